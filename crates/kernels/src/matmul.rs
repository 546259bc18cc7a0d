//! Plain products of row-major matrices, on one thread or cut into fixed blocks of rows.

use gemm::{Parallelism, gemm};

use crate::Cpu;

/// A row-major matrix, or the transpose of one, as an operand of a product.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// The (rows, columns) matrix whose rows lie one after another in `data`.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Matrix<'a> {
        assert_eq!(data.len(), rows * columns, "a {rows} x {columns} matrix");
        Matrix {
            data,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// The transpose: nothing is copied.
    pub fn t(self) -> Matrix<'a> {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Rows `start..start + rows` of the matrix.
    pub fn rows(self, start: usize, rows: usize) -> Matrix<'a> {
        assert!(start + rows <= self.rows);
        let data = if rows == 0 {
            &self.data[..0]
        } else {
            &self.data[start * self.row_stride..]
        };
        Matrix { data, rows, ..self }
    }
}

/// c = a b, or c += a b when `accumulate`, on the calling thread. c is row-major (a.rows, b.columns).
pub fn matmul_serial(a: Matrix, b: Matrix, c: &mut [f32], accumulate: bool) {
    assert_eq!(a.columns, b.rows, "inner sizes of a product");
    assert_eq!(c.len(), a.rows * b.columns);
    if c.is_empty() {
        return;
    }
    if a.columns == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return;
    }
    // SAFETY: `Matrix` guarantees that its strides stay inside its data, c's length was checked above, and c is
    // borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm(
            a.rows,
            b.columns,
            a.columns,
            c.as_mut_ptr(),
            1,
            b.columns as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// c = a b over all threads. The cut into row blocks depends on a's rows alone, so the bits do too.
pub fn matmul(cpu: &Cpu, a: Matrix, b: Matrix, c: &mut [f32]) {
    assert_eq!(c.len(), a.rows * b.columns);
    let rows = a.rows.div_ceil(16).next_multiple_of(16);
    cpu.threads.run_chunks(c, (rows * b.columns).max(1), |i, c| {
        matmul_serial(a.rows(i * rows, c.len() / b.columns), b, c, false);
    });
}

/// Adds `bias` (one value a column) to every row of c.
pub fn add_bias(c: &mut [f32], bias: &[f32]) {
    for row in c.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
    }
}

/// The sum of each column of a row-major matrix with `out.len()` columns.
pub fn column_sums(x: &[f32], out: &mut [f32]) {
    let mut sums = vec![0f64; out.len()];
    for row in x.chunks_exact(out.len()) {
        sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
    }
    out.iter_mut().zip(sums).for_each(|(o, s)| *o = s as f32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Threads};

    #[test]
    fn products_and_transposes_match_the_definition() {
        let value = |i: usize, k: usize| ((i * 31 + k * 7) % 13) as f32 - 6.0;
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (33, 17, 9), (70, 40, 130), (4, 3, 0)] {
            let a: Vec<f32> = (0..m * k).map(|i| value(i, 1)).collect();
            let b: Vec<f32> = (0..k * n).map(|i| value(i, 2)).collect();
            let want: Vec<f32> = (0..m * n)
                .map(|i| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum())
                .collect();
            let transpose = |x: &[f32], r: usize, c: usize| -> Vec<f32> {
                (0..r * c).map(|i| x[i % r * c + i / r]).collect()
            };
            let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
            for threads in [1, 2] {
                let cpu = Cpu {
                    threads: Threads::new(threads).unwrap(),
                    isa: Isa::detect(),
                };
                let mut c = vec![f32::NAN; m * n];
                matmul(&cpu, Matrix::new(&a, m, k), Matrix::new(&b, k, n), &mut c);
                assert_eq!(c, want);
                matmul(
                    &cpu,
                    Matrix::new(&at, k, m).t(),
                    Matrix::new(&bt, n, k).t(),
                    &mut c,
                );
                assert_eq!(c, want);
            }
        }
    }
}
