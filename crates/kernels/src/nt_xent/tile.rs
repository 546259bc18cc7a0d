//! The product of a matrix and a panel, in register tiles.

use crate::simd::Simd;

/// Values in a row of a panel: four AVX-512 vectors.
pub const PANEL: usize = 64;
/// Rows of a register tile: 4 x 4 AVX-512 sums hide a multiply-add's latency and take half a load per multiply-add.
pub const ROWS: usize = 4;
/// Columns are computed in multiples of this.
const STEP: usize = 16;

/// A matrix to be read value by value: a slice with the steps between its rows and between its columns.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    pub values: &'a [f32],
    pub row_step: usize,
    pub col_step: usize,
}

/// c = a b, or c += a b. a is (rows, depth), b (depth, [`PANEL`]), c (rows, width) with `c_row` between rows, width
/// at most [`PANEL`].
///
/// Rows are rounded up to a multiple of [`ROWS`] and width to a multiple of 16: the operands must have this many, and c
/// must have room for them.
#[inline(always)]
pub fn multiply<S: Simd>(
    simd: S,
    (rows, depth, width): (usize, usize, usize),
    a: Left,
    b: &[f32],
    c: &mut [f32],
    c_row: usize,
    accumulate: bool,
) {
    if rows == 0 || depth == 0 || width == 0 {
        return;
    }
    let (rows, width) = (rows.next_multiple_of(ROWS), width.next_multiple_of(STEP));
    assert!((rows - 1) * a.row_step + (depth - 1) * a.col_step < a.values.len(), "rows of the left operand");
    assert!(width <= PANEL && depth * PANEL <= b.len(), "rows of the panel");
    assert!((rows - 1) * c_row + width <= c.len(), "room for the product");
    let mut column = 0;
    while column < width {
        let columns = if S::LANES == 16 && width - column == PANEL { PANEL } else { STEP };
        for row in (0..rows).step_by(ROWS) {
            let a = Left { values: &a.values[row * a.row_step..], ..a };
            let (b, c) = (&b[column..], &mut c[row * c_row + column..]);
            // SAFETY: by the assertions above, rows `row..row + ROWS` and columns up to `depth` lie within a, columns
            // `column..column + columns` of `depth` rows within b, and the tile of both within c; `columns` is the
            // number of vectors times their lanes.
            unsafe {
                match columns / S::LANES {
                    4 => tile::<S, 4>(simd, depth, a, b, c, c_row, accumulate),
                    2 => tile::<S, 2>(simd, depth, a, b, c, c_row, accumulate),
                    _ => tile::<S, 1>(simd, depth, a, b, c, c_row, accumulate),
                }
            }
        }
        column += columns;
    }
}

/// # Safety
///
/// a must hold `ROWS` rows of `depth` values, b `depth` rows and c `ROWS` rows of `V` vectors, in their steps.
#[inline(always)]
unsafe fn tile<S: Simd, const V: usize>(
    simd: S,
    depth: usize,
    a: Left,
    b: &[f32],
    c: &mut [f32],
    c_row: usize,
    accumulate: bool,
) {
    let mut sums = [[simd.splat(0.0); V]; ROWS];
    let (a, row_step, col_step) = (a.values.as_ptr(), a.row_step, a.col_step);
    let (b, c) = (b.as_ptr(), c.as_mut_ptr());
    for k in 0..depth {
        let mut right = [simd.splat(0.0); V];
        for v in 0..V {
            // SAFETY: the caller vouches for V vectors in each of `depth` rows of b.
            right[v] = unsafe { simd.load(b.add(k * PANEL + v * S::LANES)) };
        }
        for row in 0..ROWS {
            // SAFETY: the caller vouches for ROWS rows of `depth` values of a.
            let left = simd.splat(unsafe { *a.add(row * row_step + k * col_step) });
            for v in 0..V {
                sums[row][v] = simd.mul_add(left, right[v], sums[row][v]);
            }
        }
    }
    for row in 0..ROWS {
        for v in 0..V {
            // SAFETY: the caller vouches for V vectors in each of ROWS rows of c.
            unsafe {
                let to = c.add(row * c_row + v * S::LANES);
                let sum = if accumulate { simd.add(simd.load(to), sums[row][v]) } else { sums[row][v] };
                simd.store(to, sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::simd::{Kernel, dispatch};

    struct Case<'a> {
        size: (usize, usize, usize),
        transposed: bool,
        a: &'a [f32],
        b: &'a [f32],
        c: &'a mut [f32],
    }

    impl Kernel for Case<'_> {
        type Output = ();
        const BF16: bool = false;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let (row_step, col_step) = if self.transposed { (1, 16) } else { (32, 1) };
            let a = Left { values: self.a, row_step, col_step };
            multiply(simd, self.size, a, self.b, self.c, PANEL, false);
            multiply(simd, self.size, a, self.b, self.c, PANEL, true);
        }
    }

    #[test]
    fn products_match_three_loops() {
        // Small whole numbers, so that every order of summation is exact.
        let a: Vec<f32> = (0..512).map(|i| (i % 7) as f32 - 3.0).collect();
        let b: Vec<f32> = (0..32 * PANEL).map(|i| (i % 5) as f32 - 2.0).collect();
        for (rows, depth, width) in [(1, 1, 1), (4, 32, 64), (7, 3, 17), (16, 31, 50)] {
            for transposed in [false, true] {
                let at = |i: usize, k: usize| if transposed { a[k * 16 + i] } else { a[i * 32 + k] };
                for isa in Isa::all() {
                    let mut c = vec![f32::NAN; 16 * PANEL];
                    let size = (rows, depth, width);
                    dispatch(isa, Case { size, transposed, a: &a, b: &b, c: &mut c });
                    for i in 0..rows {
                        for j in 0..width {
                            let want: f32 = (0..depth).map(|k| at(i, k) * b[k * PANEL + j]).sum();
                            assert_eq!(c[i * PANEL + j], 2.0 * want, "{i} {j} of {size:?}, {transposed}");
                        }
                    }
                }
            }
        }
    }
}
