//! BatchNorm's forward pass, once scale and shift are known.

use crate::pieces::{repeated, repeats, rows_per_piece};
use crate::simd::{Kernel, LINE, Simd, dispatch};
use crate::{Cpu, Element};

/// An output of at least this size leaves the caches before it is read, so it is written past them: this spares
/// reading the memory that it overwrites.
pub(super) const STREAM_BYTES: usize = 16 << 20;

/// y = act(x scale + shift + residual), with one scale and shift per channel, and act the ReLU or the identity. NaN
/// stays NaN.
pub fn batch_norm_forward<E: Element>(
    cpu: &Cpu,
    x: &[E],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[E]>,
    relu: bool,
    y: &mut [E],
) {
    let channels = scale.len();
    assert_eq!(shift.len(), channels);
    assert_eq!(x.len(), y.len());
    assert!(residual.is_none_or(|r| r.len() == x.len()));
    let times = repeats(channels);
    let (scale, shift) = (&*repeated(scale, times), &*repeated(shift, times));
    let piece_len = rows_per_piece(channels) * channels;
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    let stream = size_of_val(y) >= STREAM_BYTES && (channels * size_of::<E>()).is_multiple_of(LINE);
    cpu.threads.run_chunks(y, piece_len, |i, y| {
        let range = i * piece_len..i * piece_len + y.len();
        let (x, residual) = (&x[range.clone()], residual.map(|r| &r[range]));
        let stream = stream && y.as_ptr().addr().is_multiple_of(LINE);
        dispatch(cpu.isa, Forward { x, scale, shift, residual, floor, stream, y });
    });
}

struct Forward<'a, E> {
    x: &'a [E],
    scale: &'a [f32],
    shift: &'a [f32],
    residual: Option<&'a [E]>,
    floor: f32,
    stream: bool,
    y: &'a mut [E],
}

impl<E: Element> Kernel for Forward<'_, E> {
    type Output = ();
    const BF16: bool = E::BF16;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match (self.residual, self.stream) {
            (None, false) => self.with::<S, false>(simd, |_, _, v| v),
            (None, true) => self.with::<S, true>(simd, |_, _, v| v),
            (Some(residual), stream) => {
                assert_eq!(residual.len(), self.x.len());
                let add = |at, lanes, v| {
                    // SAFETY: the residual is as long as x, and these values lie within x.
                    simd.add(v, unsafe { E::load_some(simd, residual.as_ptr().wrapping_add(at), lanes) })
                };
                if stream { self.with::<S, true>(simd, add) } else { self.with::<S, false>(simd, add) }
            }
        }
    }
}

impl<E: Element> Forward<'_, E> {
    #[inline(always)]
    fn with<S: Simd, const STREAM: bool>(self, simd: S, add: impl Fn(usize, usize, S::V) -> S::V) {
        let wide = self.scale.len();
        assert!(self.shift.len() == wide && self.y.len() == self.x.len());
        let floor = simd.splat(self.floor);
        for start in (0..self.x.len()).step_by(wide) {
            let len = wide.min(self.x.len() - start);
            for column in (0..len).step_by(S::LANES) {
                let lanes = S::LANES.min(len - column);
                let at = start + column;
                // SAFETY: at + lanes <= x.len() and column + lanes <= wide, to which the assertions compare all
                // other lengths. Streamed rows begin at whole cache lines, as `batch_norm_forward` has checked, so
                // full vectors are aligned.
                unsafe {
                    let x = E::load_some(simd, self.x.as_ptr().add(at), lanes);
                    let scale = f32::load_some(simd, self.scale.as_ptr().add(column), lanes);
                    let shift = f32::load_some(simd, self.shift.as_ptr().add(column), lanes);
                    // Not fused, but rounded twice: the backward pass's gate must agree on every sign.
                    let v = add(at, lanes, simd.add(simd.mul(x, scale), shift));
                    let v = simd.max(floor, v);
                    let y = self.y.as_mut_ptr().add(at);
                    match (lanes == S::LANES, STREAM) {
                        (true, true) => E::stream(simd, y, v),
                        (true, false) => E::store(simd, y, v),
                        (false, _) => E::store_first(simd, y, v, lanes),
                    }
                }
            }
        }
        if STREAM {
            simd.finish_streams();
        }
    }
}
