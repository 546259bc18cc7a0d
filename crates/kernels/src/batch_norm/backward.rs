//! BatchNorm's backward pass: the sums over all rows that it needs, then the gradient of the input.

// Register tiles index arrays up to a constant, since the compiler unrolls that form into registers.
#![allow(clippy::needless_range_loop)]

use super::{F32_ROWS, fold};
use crate::pieces::{repeated, repeats, rows_per_piece, sum_pieces};
use crate::shared::SharedMut;
use crate::simd::{Kernel, LINE, Simd, dispatch};
use crate::{Cpu, Element, scratch};

/// Where the ReLU after the BatchNorm let values through, and therefore lets gradients back.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a, E> {
    /// Everywhere: there is no ReLU.
    Open,
    /// Where the ReLU's output is positive.
    Output(&'a [E]),
    /// Where x scale + shift is positive, with one scale and shift per channel: recomputed, which spares reading the
    /// output. For a BatchNorm without residual.
    Affine {
        /// Factors of x.
        scale: &'a [f32],
        /// Added to x scale.
        shift: &'a [f32],
    },
}

/// The two sums that BatchNorm's backward pass needs: `sums` = [sum of g; C values, sum of g (x - mean); C values],
/// where g is `dy` where the gate is open and zero elsewhere. With `keep`, `dy` becomes g, which is the gradient of
/// the residual and spares the next pass the gate.
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

/// dx = g a + x b + c, with one a, b and c per channel and g as in [`batch_norm_backward_sums`]. dx overwrites x,
/// which is not read again: this moves less memory than a separate tensor would.
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

    /// Calls `body` with the gate, its per-channel values repeated `times` times.
    fn repeated<R>(&self, times: usize, body: impl FnOnce(Gate<E>) -> R) -> R {
        match *self {
            Gate::Affine { scale, shift } => {
                let (scale, shift) = (repeated(scale, times), repeated(shift, times));
                body(Gate::Affine { scale: &scale, shift: &shift })
            }
            gate => body(gate),
        }
    }

    /// The gate of the values in `range`, which are whole rows.
    fn part(&self, range: std::ops::Range<usize>) -> Self {
        match *self {
            Gate::Output(y) => Gate::Output(&y[range]),
            gate => gate,
        }
    }
}

/// The kind of a gate as a type, so that each kind is compiled separately.
trait Kind<E>: Copy {
    /// `g` where the gate is open at value `at`, in column `column` of the repeated row, else 0.
    ///
    /// # Safety
    ///
    /// There must be `lanes` values from `at` and from `column` on.
    unsafe fn pass<S: Simd>(self, simd: S, g: S::V, x: S::V, at: usize, column: usize, lanes: usize) -> S::V;

    /// Prefetches what [`Kind::pass`] will read at value `at`, which may be out of bounds.
    #[inline(always)]
    fn ahead<S: Simd>(self, simd: S, at: usize) {
        let _ = (simd, at);
    }
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
        simd.where_positive(unsafe { E::load_some(simd, self.as_ptr().wrapping_add(at), lanes) }, g)
    }

    #[inline(always)]
    fn ahead<S: Simd>(self, simd: S, at: usize) {
        simd.prefetch(self.as_ptr().wrapping_add(at).cast());
    }
}

impl<E: Element> Kind<E> for (&[f32], &[f32]) {
    #[inline(always)]
    unsafe fn pass<S: Simd>(self, simd: S, g: S::V, x: S::V, _: usize, column: usize, lanes: usize) -> S::V {
        // SAFETY: the caller's promise.
        let [scale, shift] =
            unsafe { [self.0, self.1].map(|v| f32::load_some(simd, v.as_ptr().wrapping_add(column), lanes)) };
        // Rounded twice, as in the forward pass: both must agree on every sign.
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
    const BF16: bool = E::BF16;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match (self.gate, self.keep) {
            // Without a ReLU, dy is g already.
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
        let channels = self.acc.len() / 2;
        let mut partial = scratch::take::<f32>(2 * wide);
        partial.fill(0.0);
        // More rows at a time read and write their sums less often, but prefetched rows must still be in the
        // first-level cache when their turn comes.
        let most = if wide <= 512 { 8 } else { 4 };
        for start in (0..self.x.len()).step_by(F32_ROWS * wide) {
            let len = (self.x.len() - start).min(F32_ROWS * wide);
            let mut done = 0;
            while done < len {
                let here = len - done;
                let rows = if here >= most * wide { most } else { 1 };
                // The very last repeated row may be shorter; it holds whole rows of channels.
                let columns = here.min(wide);
                match rows {
                    8 => self.rows::<S, 8, KEEP>(simd, gate, start + done, columns, &mut partial),
                    4 => self.rows::<S, 4, KEEP>(simd, gate, start + done, columns, &mut partial),
                    _ => self.rows::<S, 1, KEEP>(simd, gate, start + done, columns, &mut partial),
                }
                done += rows * columns;
            }
            let (sums, products) = partial.split_at_mut(wide);
            fold(sums, &mut self.acc[..channels]);
            fold(products, &mut self.acc[channels..]);
        }
    }

    /// Adds the first `columns` values of R rows, from value `start` on, to `partial` (sums of g, then of products),
    /// and prefetches the next R rows: the hardware prefetcher does not follow so many short streams.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const KEEP: bool>(
        &mut self,
        simd: S,
        gate: impl Kind<E>,
        start: usize,
        columns: usize,
        partial: &mut [f32],
    ) {
        let wide = self.mean.len();
        assert!(columns <= wide && partial.len() == 2 * wide);
        assert!(start + (R - 1) * wide + columns <= self.x.len() && self.dy.len() == self.x.len());
        let (sums, products) = partial.split_at_mut(wide);
        for column in (0..columns).step_by(S::LANES) {
            let lanes = S::LANES.min(columns - column);
            // SAFETY: by the assertions above, there are `lanes` values from `column` on in each of the R rows and in
            // the repeated row; gates have been checked to be as long as x or as a row.
            unsafe {
                let [sum_at, product_at] = [&mut *sums, products].map(|v| v.as_mut_ptr().add(column));
                let mean = f32::load_some(simd, self.mean.as_ptr().add(column), lanes);
                let [mut sum, mut product] =
                    [sum_at, product_at].map(|v| f32::load_some(simd, v.cast_const(), lanes));
                for row in 0..R {
                    let at = start + row * wide + column;
                    let x = E::load_some(simd, self.x.as_ptr().add(at), lanes);
                    let dy = E::load_some(simd, self.dy.as_ptr().add(at), lanes);
                    let g = gate.pass(simd, dy, x, at, column, lanes);
                    if (column * size_of::<E>()).is_multiple_of(LINE) {
                        let next = at + R * wide;
                        simd.prefetch(self.x.as_ptr().wrapping_add(next).cast());
                        simd.prefetch(self.dy.as_ptr().wrapping_add(next).cast());
                        gate.ahead(simd, next);
                    }
                    if KEEP {
                        E::store_some(simd, self.dy.as_mut_ptr().add(at), g, lanes);
                    }
                    sum = simd.add(sum, g);
                    product = simd.add(product, simd.mul(g, simd.sub(x, mean)));
                }
                simd.store_first(sum_at, sum, lanes);
                simd.store_first(product_at, product, lanes);
            }
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
    const BF16: bool = E::BF16;

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
                    let x = E::load_some(simd, self.x.as_ptr().add(at), lanes);
                    let dy = E::load_some(simd, self.dy.as_ptr().add(at), lanes);
                    let g = gate.pass(simd, dy, x, at, column, lanes);
                    let [a, b, c] = [a, b, c].map(|v| f32::load_some(simd, v.as_ptr().add(column), lanes));
                    let dx = simd.add(simd.add(simd.mul(g, a), simd.mul(x, b)), c);
                    E::store_some(simd, self.x.as_mut_ptr().add(at), dx, lanes);
                }
            }
        }
    }
}
