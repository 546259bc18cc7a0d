//! BatchNorm's backward: the sums over all rows that it needs, then the gradient to the input.

// Register tiles go over arrays by index up to a constant: that form is unrolled into registers.
#![allow(clippy::needless_range_loop)]

use super::{F32_ROWS, load};
use crate::pieces::{repeated, repeats, rows_per_piece, sum_pieces};
use crate::shared::SharedMut;
use crate::simd::{Kernel, Simd, dispatch};
use crate::{Cpu, Element};

/// Where the ReLU behind the BatchNorm let values through, and so gradients back.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a, E> {
    /// Everywhere: there is no ReLU.
    Open,
    /// Where its output is positive.
    Output(&'a [E]),
    /// Where x scale + shift is positive, one value a channel: found again, which spares reading the output. For a
    /// BatchNorm without residual.
    Affine {
        /// Factors of x.
        scale: &'a [f32],
        /// What is added.
        shift: &'a [f32],
    },
}

/// The two sums that BatchNorm's backward needs: `sums` = [sum of g; C values, sum of g (x - mean); C values],
/// g being `dy` where the gate is open and zero elsewhere. Where `keep`, `dy` becomes g, which is the gradient of
/// the residual, and spares the next pass the gate.
pub fn batch_norm_backward_sums<E: Element>(
    cpu: &Cpu,
    dy: &mut [E],
    gate: Gate<E>,
    x: &[E],
    mean: &[f32],
    keep: bool,
    sums: &mut [f64],
) {
    let channels = mean.len();
    assert_eq!(sums.len(), 2 * channels);
    assert_eq!(dy.len(), x.len());
    gate.check(x.len(), channels);
    let times = repeats(channels);
    let mean = &*repeated(mean, times);
    let piece_len = rows_per_piece(channels) * channels;
    let dy = SharedMut::new(dy);
    gate.repeated(times, |gate| {
        sum_pieces(cpu, x.len().div_ceil(piece_len), sums, |i, acc| {
            let range = i * piece_len..x.len().min((i + 1) * piece_len);
            // SAFETY: pieces are disjoint, each runs once, and `dy` is borrowed until all are done.
            let dy = unsafe { dy.slice(range.start, range.len()) };
            let (x, gate) = (&x[range.clone()], gate.part(range));
            dispatch(cpu.isa, Sums { dy, gate, x, mean, keep, acc });
        });
    });
}

/// dx = g a + x b + c, with a, b, c one value a channel and g as in [`batch_norm_backward_sums`]. dx takes the
/// place of x, which nobody reads again: less memory moves than for a tensor of its own.
pub fn batch_norm_backward_input<E: Element>(
    cpu: &Cpu,
    dy: &[E],
    gate: Gate<E>,
    x: &mut [E],
    coefficients: [&[f32]; 3],
) {
    let channels = coefficients[0].len();
    assert!(coefficients.iter().all(|c| c.len() == channels));
    assert_eq!(dy.len(), x.len());
    gate.check(x.len(), channels);
    let times = repeats(channels);
    let wide = coefficients.map(|values| repeated(values, times));
    let coefficients = [&wide[0][..], &wide[1], &wide[2]];
    let piece_len = rows_per_piece(channels) * channels;
    gate.repeated(times, |gate| {
        cpu.threads.run_chunks(x, piece_len, |i, x| {
            let range = i * piece_len..i * piece_len + x.len();
            let (dy, gate) = (&dy[range.clone()], gate.part(range));
            dispatch(cpu.isa, Input { dy, gate, x, coefficients });
        });
    });
}

impl<E: Element> Gate<'_, E> {
    fn check(&self, len: usize, channels: usize) {
        match self {
            Gate::Open => {}
            Gate::Output(y) => assert_eq!(y.len(), len),
            Gate::Affine { scale, shift } => assert!(scale.len() == channels && shift.len() == channels),
        }
    }

    /// Calls `body` with values a channel repeated.
    fn repeated<R>(&self, times: usize, body: impl FnOnce(Gate<E>) -> R) -> R {
        match *self {
            Gate::Affine { scale, shift } => {
                let (scale, shift) = (repeated(scale, times), repeated(shift, times));
                body(Gate::Affine { scale: &scale, shift: &shift })
            }
            gate => body(gate),
        }
    }

    /// The gate of some whole rows.
    fn part(&self, range: std::ops::Range<usize>) -> Self {
        match *self {
            Gate::Output(y) => Gate::Output(&y[range]),
            gate => gate,
        }
    }
}

/// A gate's kind, known to the compiler.
trait Kind<E>: Copy {
    /// `g` where the gate is open at value `at`, in column `column` of the repeated row, else 0.
    ///
    /// # Safety
    ///
    /// There must be `lanes` values from `at` and from `column` on.
    unsafe fn pass<S: Simd>(self, simd: S, g: S::V, x: S::V, at: usize, column: usize, lanes: usize) -> S::V;
}

#[derive(Clone, Copy)]
struct Open;

impl<E> Kind<E> for Open {
    #[inline(always)]
    unsafe fn pass<S: Simd>(self, _: S, g: S::V, _: S::V, _: usize, _: usize, _: usize) -> S::V {
        g
    }
}

impl<E: Element> Kind<E> for &[E] {
    #[inline(always)]
    unsafe fn pass<S: Simd>(self, simd: S, g: S::V, _: S::V, at: usize, _: usize, lanes: usize) -> S::V {
        // SAFETY: the caller's promise.
        simd.where_positive(unsafe { load(simd, self.as_ptr().wrapping_add(at), lanes) }, g)
    }
}

impl<E: Element> Kind<E> for (&[f32], &[f32]) {
    #[inline(always)]
    unsafe fn pass<S: Simd>(self, simd: S, g: S::V, x: S::V, _: usize, column: usize, lanes: usize) -> S::V {
        // SAFETY: the caller's promise.
        let [scale, shift] =
            unsafe { [self.0, self.1].map(|v| load(simd, v.as_ptr().wrapping_add(column), lanes)) };
        // Rounded twice, as forward does: both must agree on every sign.
        simd.where_positive(simd.add(simd.mul(x, scale), shift), g)
    }
}

struct Sums<'a, E> {
    dy: &'a mut [E],
    gate: Gate<'a, E>,
    x: &'a [E],
    mean: &'a [f32],
    keep: bool,
    acc: &'a mut [f64],
}

impl<E: Element> Kernel for Sums<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match (self.gate, self.keep) {
            // Without a gate dy is g already.
            (Gate::Open, _) => self.with::<S, false>(simd, Open),
            (Gate::Output(y), true) => self.with::<S, true>(simd, y),
            (Gate::Output(y), false) => self.with::<S, false>(simd, y),
            (Gate::Affine { scale, shift }, true) => self.with::<S, true>(simd, (scale, shift)),
            (Gate::Affine { scale, shift }, false) => self.with::<S, false>(simd, (scale, shift)),
        }
    }
}

impl<E: Element> Sums<'_, E> {
    #[inline(always)]
    fn with<S: Simd, const KEEP: bool>(mut self, simd: S, gate: impl Kind<E>) {
        let wide = self.mean.len();
        for start in (0..self.x.len()).step_by(F32_ROWS * wide) {
            let len = (self.x.len() - start).min(F32_ROWS * wide);
            let mut column = 0;
            while column < wide {
                // Rows that reach this column; the last may be shorter than `wide`, but holds whole rows of channels.
                let rows = len / wide + usize::from(column < len % wide);
                let end = if len / wide == 0 { len } else { wide };
                let tail = len % wide;
                // Four vectors at a time hide the latency of the additions; not where the last row ends in between.
                let all = |span: usize| column + span <= end && (tail <= column || tail >= column + span);
                let span = if all(4 * S::LANES) {
                    self.strip::<S, 4, KEEP>(simd, gate, start, column, rows, S::LANES);
                    4 * S::LANES
                } else {
                    let mut lanes = S::LANES.min(end.saturating_sub(column));
                    if tail > column {
                        lanes = lanes.min(tail - column);
                    }
                    if lanes == 0 {
                        break;
                    }
                    self.strip::<S, 1, KEEP>(simd, gate, start, column, rows, lanes);
                    lanes
                };
                column += span;
            }
        }
    }

    /// Adds `rows` rows of NV vectors, the last of `lanes` values, from value `start` and column `column` on.
    #[inline(always)]
    fn strip<S: Simd, const NV: usize, const KEEP: bool>(
        &mut self,
        simd: S,
        gate: impl Kind<E>,
        start: usize,
        column: usize,
        rows: usize,
        lanes: usize,
    ) {
        let wide = self.mean.len();
        let here = (NV - 1) * S::LANES + lanes;
        assert!(rows > 0 && column + here <= wide && lanes <= S::LANES);
        assert!(start + (rows - 1) * wide + column + here <= self.x.len() && self.dy.len() == self.x.len());
        let mut sum = [simd.splat(0.0); NV];
        let mut product = [simd.splat(0.0); NV];
        let mut mean = [simd.splat(0.0); NV];
        let mut out = [[0.0f32; 64]; 2];
        // SAFETY: the assertions: every row has `here` values from its column on; gates have been checked to be as
        // long as x or as a row; NV * LANES <= 64.
        unsafe {
            for v in 0..NV {
                mean[v] = load(simd, self.mean.as_ptr().add(column + v * S::LANES), lanes);
            }
            for row in 0..rows {
                for v in 0..NV {
                    let at = start + row * wide + column + v * S::LANES;
                    let x = load(simd, self.x.as_ptr().add(at), lanes);
                    let dy = load(simd, self.dy.as_ptr().add(at), lanes);
                    let g = gate.pass(simd, dy, x, at, column + v * S::LANES, lanes);
                    if KEEP {
                        E::store_first(simd, self.dy.as_mut_ptr().add(at), g, lanes);
                    }
                    sum[v] = simd.add(sum[v], g);
                    product[v] = simd.add(product[v], simd.mul(g, simd.sub(x, mean[v])));
                }
            }
            for v in 0..NV {
                simd.store(out[0].as_mut_ptr().add(v * S::LANES), sum[v]);
                simd.store(out[1].as_mut_ptr().add(v * S::LANES), product[v]);
            }
        }
        let (sums, products) = self.acc.split_at_mut(self.acc.len() / 2);
        let channels = sums.len();
        let mut channel = column % channels;
        for i in 0..here {
            sums[channel] += f64::from(out[0][i]);
            products[channel] += f64::from(out[1][i]);
            channel = if channel + 1 == channels { 0 } else { channel + 1 };
        }
    }
}

struct Input<'a, E> {
    dy: &'a [E],
    gate: Gate<'a, E>,
    x: &'a mut [E],
    coefficients: [&'a [f32]; 3],
}

impl<E: Element> Kernel for Input<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.gate {
            Gate::Open => self.with(simd, Open),
            Gate::Output(y) => self.with(simd, y),
            Gate::Affine { scale, shift } => self.with(simd, (scale, shift)),
        }
    }
}

impl<E: Element> Input<'_, E> {
    #[inline(always)]
    fn with<S: Simd>(self, simd: S, gate: impl Kind<E>) {
        let [a, b, c] = self.coefficients;
        let wide = a.len();
        assert!(b.len() == wide && c.len() == wide);
        assert_eq!(self.dy.len(), self.x.len());
        for start in (0..self.x.len()).step_by(wide) {
            let len = wide.min(self.x.len() - start);
            for column in (0..len).step_by(S::LANES) {
                let lanes = S::LANES.min(len - column);
                let at = start + column;
                // SAFETY: at + lanes <= x.len() and column + lanes <= wide, to which the assertions above and those
                // at entry compare all other lengths.
                unsafe {
                    let x = load(simd, self.x.as_ptr().add(at), lanes);
                    let dy = load(simd, self.dy.as_ptr().add(at), lanes);
                    let g = gate.pass(simd, dy, x, at, column, lanes);
                    let [a, b, c] = [a, b, c].map(|v| load(simd, v.as_ptr().add(column), lanes));
                    let dx = simd.add(simd.add(simd.mul(g, a), simd.mul(x, b)), c);
                    if lanes == S::LANES {
                        E::store(simd, self.x.as_mut_ptr().add(at), dx);
                    } else {
                        E::store_first(simd, self.x.as_mut_ptr().add(at), dx, lanes);
                    }
                }
            }
        }
    }
}
