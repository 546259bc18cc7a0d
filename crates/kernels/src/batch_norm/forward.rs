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
        dispatch(cpu.isa, Forward { x: Some(x), scale, shift, residual, floor, stream, y });
    });
}

/// A pass that overwrites what it normalises.
pub(crate) struct InPlace<'a, E> {
    pub y: &'a mut [E],
    /// One factor per channel, in rows that may be repeated.
    pub scale: &'a [f32],
    /// One addend per channel, likewise.
    pub shift: &'a [f32],
    /// As long as y.
    pub residual: Option<&'a [E]>,
    /// Below which values are raised to it.
    pub floor: f32,
}

/// y = max(floor, y scale + shift + residual), rounded as in [`batch_norm_forward`].
#[inline(always)]
pub(crate) fn in_place<S: Simd, E: Element>(simd: S, pass: InPlace<E>) {
    let InPlace { y, scale, shift, residual, floor } = pass;
    Forward { x: None, scale, shift, residual, floor, stream: false, y }.run(simd);
}

struct Forward<'a, E> {
    /// As long as y; `None` if it is y.
    x: Option<&'a [E]>,
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
                assert_eq!(residual.len(), self.y.len());
                let add = |at, lanes, v| {
                    // SAFETY: the residual is as long as y, and these values lie within y.
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
        let (y, all) = (self.y.as_mut_ptr(), self.y.len());
        assert!(self.shift.len() == wide && self.x.is_none_or(|x| x.len() == all));
        let x = self.x.map_or(y.cast_const(), <[E]>::as_ptr);
        let floor = simd.splat(self.floor);
        for start in (0..all).step_by(wide) {
            let len = wide.min(all - start);
            for column in (0..len).step_by(S::LANES) {
                let lanes = S::LANES.min(len - column);
                let at = start + column;
                // SAFETY: at + lanes <= y.len() and column + lanes <= wide, to which the assertions compare all
                // other lengths; each value is read before it is written. Streamed rows begin at whole cache lines, as
                // `batch_norm_forward` has checked, so full vectors are aligned.
                unsafe {
                    let x = E::load_some(simd, x.add(at), lanes);
                    let scale = f32::load_some(simd, self.scale.as_ptr().add(column), lanes);
                    let shift = f32::load_some(simd, self.shift.as_ptr().add(column), lanes);
                    // Not fused, but rounded twice: the backward pass's gate must agree on every sign.
                    let v = add(at, lanes, simd.add(simd.mul(x, scale), shift));
                    let v = simd.max(floor, v);
                    let y = y.add(at);
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
