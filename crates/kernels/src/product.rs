//! Products of plain row-major matrices, on the calling thread.
//!
//! A safe interface to the `gemm` crate: operands are slices whose bounds are checked once, and the result is
//! written contiguously. Each call runs on one thread: callers cut work into tiles of fixed size, so that results
//! never depend on the number of threads.

use gemm::Parallelism;

/// The most products that are summed in one go. `gemm` cuts longer sums by the size of the first-level cache, but never
/// ones of up to 512, so that results depend on the instruction set alone.
const DEPTH: usize = 512;

/// The element types of [`multiply`]: `f32` and `f64`.
pub trait Real: Copy + Send + Sync + private::Sealed + 'static {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A matrix to multiply: a slice with the steps between its rows and between its columns.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a, T> {
    values: &'a [T],
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
}

impl<'a, T: Real> Operand<'a, T> {
    /// `values` as contiguous rows of `cols` values.
    ///
    /// Panics if `cols` is 0 or `values` is not a whole number of rows.
    pub fn new(values: &'a [T], cols: usize) -> Self {
        assert!(cols > 0 && values.len().is_multiple_of(cols), "a whole number of rows of {cols} values");
        Operand { values, rows: values.len() / cols, cols, row_step: cols, col_step: 1 }
    }

    /// The transposed matrix. Moves no values.
    pub fn t(self) -> Self {
        Operand { rows: self.cols, cols: self.rows, row_step: self.col_step, col_step: self.row_step, ..self }
    }

    /// `count` columns from `start` on. Panics if there are fewer.
    pub fn columns(self, start: usize, count: usize) -> Self {
        assert!(start <= self.cols && count <= self.cols - start, "columns within the matrix");
        let skip = (start * self.col_step).min(self.values.len());
        Operand { values: &self.values[skip..], cols: count, ..self }
    }

    /// The least length of `values`: the index of the last element plus one.
    fn reach(&self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_step + (self.cols - 1) * self.col_step + 1
    }
}

/// Writes `a` times `b` to `out`, a contiguous row-major matrix, or adds it to `out` if `accumulate`.
///
/// Panics if the shapes do not fit.
pub fn multiply<T: Real>(a: Operand<T>, b: Operand<T>, out: &mut [T], accumulate: bool) {
    assert_eq!(a.cols, b.rows, "columns of the left and rows of the right operand");
    assert_eq!(Some(out.len()), a.rows.checked_mul(b.cols), "values of the result");
    assert!(a.reach() <= a.values.len() && b.reach() <= b.values.len(), "operands within their slices");
    if out.is_empty() {
        return;
    }
    // A product of no depth is 0.
    for first in (0..a.cols.max(1)).step_by(DEPTH) {
        let accumulate = accumulate || first > 0;
        // SAFETY: by the three assertions above, every element that gemm reads of `a` and `b`, columns and rows from
        // `first` on, lies below their `reach` and so within their slices, and the a.rows x b.cols elements written are
        // exactly those of `out`, which is borrowed mutably and overlaps neither. Steps fit `isize` because they do not
        // exceed a slice's length.
        unsafe {
            gemm::gemm(
                a.rows,
                b.cols,
                DEPTH.min(a.cols - first),
                out.as_mut_ptr(),
                1,
                b.cols as isize,
                accumulate,
                a.values.as_ptr().add(first * a.col_step),
                a.col_step as isize,
                a.row_step as isize,
                b.values.as_ptr().add(first * b.row_step),
                b.col_step as isize,
                b.row_step as isize,
                if accumulate { T::ONE } else { T::ZERO },
                T::ONE,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(a: Operand<f32>, b: Operand<f32>) -> Vec<f32> {
        let at = |m: &Operand<f32>, i: usize, j: usize| m.values[i * m.row_step + j * m.col_step];
        let mut out = Vec::new();
        for i in 0..a.rows {
            for j in 0..b.cols {
                out.push((0..a.cols).map(|k| at(&a, i, k) * at(&b, k, j)).sum());
            }
        }
        out
    }

    proptest! {
        #[test]
        fn agrees_with_three_loops(m in 1usize..20, n in 1usize..20, k in 1usize..40, skip in 0usize..3) {
            // Small whole numbers, so that every order of summation is exact.
            let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..(n + skip) * k).map(|i| (i % 5) as f32 - 2.0).collect();
            let left = Operand::new(&a, k);
            for right in [
                Operand::new(&b, n + skip).columns(skip, n),
                Operand::new(&b[..n * k], k).t(),
            ] {
                let mut out = vec![f32::NAN; m * n];
                multiply(left, right, &mut out, false);
                prop_assert_eq!(&out, &naive(left, right));
                multiply(left, right, &mut out, true);
                let twice: Vec<f32> = naive(left, right).iter().map(|x| 2.0 * x).collect();
                prop_assert_eq!(&out, &twice);
            }
        }
    }

    /// A long sum is that of its parts, whatever the caches.
    #[test]
    fn long_sums_are_cut_by_their_length_alone() {
        let (m, n, k) = (37, 21, 2 * DEPTH + 76);
        let value = |i: usize| (i as f32 * 0.37).sin();
        let (a, b): (Vec<f32>, Vec<f32>) =
            ((0..m * k).map(value).collect(), (0..n * k).map(|i| value(i + 7)).collect());
        let (a, b) = (Operand::new(&a, k), Operand::new(&b, k));
        let (mut whole, mut parts) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
        multiply(a, b.t(), &mut whole, false);
        for first in (0..k).step_by(DEPTH) {
            let len = DEPTH.min(k - first);
            multiply(a.columns(first, len), b.columns(first, len).t(), &mut parts, first > 0);
        }
        assert_eq!(whole, parts);
        let mut nothing = [f32::NAN; 6];
        multiply(Operand::new(&[], 2).t(), Operand::new(&[0f32; 0], 3), &mut nothing, false);
        assert_eq!(nothing, [0.0; 6]);
    }

    /// Two empty matrices whose product would have 2^64 + 1 values, which wraps to 1.
    #[test]
    #[should_panic(expected = "values of the result")]
    fn refuses_a_result_beyond_the_address_space() {
        let (rows, cols) = (274_177, 67_280_421_310_721);
        multiply(Operand::new(&[0f32; 0], rows).t(), Operand::new(&[], cols), &mut [0.0], false);
    }

    #[test]
    #[should_panic(expected = "columns within the matrix")]
    fn refuses_columns_that_are_not_there() {
        Operand::new(&[0f32; 6], 3).columns(2, 2);
    }
}
