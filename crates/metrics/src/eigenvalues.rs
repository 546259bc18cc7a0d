//! Eigenvalues of a symmetric matrix: Householder reflections to tridiagonal form, then implicit QL
//! (Golub and Van Loan, sections 8.3.1 and 8.3.3).

use rayon::prelude::*;

/// Rows per piece of parallel work.
const PIECE: usize = 32;

/// The eigenvalues of the symmetric row-major n x n `matrix`, in no particular order.
///
/// About 4/3 n^3 operations. Absolute errors are of the order of the rounding of the largest eigenvalue.
pub(crate) fn symmetric_eigenvalues(mut matrix: Vec<f64>, n: usize) -> Vec<f64> {
    let (mut diagonal, mut beside) = tridiagonal(&mut matrix, n);
    implicit_ql(&mut diagonal, &mut beside);
    diagonal
}

/// Reduces `matrix` to tridiagonal form with the same eigenvalues. Returns the diagonal (n) and the values beside it
/// (n, the last one 0).
fn tridiagonal(matrix: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (vec![0.0; n], vec![0.0; n]);
    for k in 0..n {
        diagonal[k] = matrix[k * n + k];
        if k + 1 == n {
            break;
        }
        // Reflect row k right of the diagonal onto its first axis: H = I - 2 v v^T / (v . v).
        let mut v = matrix[k * n + k + 1..(k + 1) * n].to_vec();
        let norm = dot(&v, &v).sqrt();
        let onto = if v[0] > 0.0 { -norm } else { norm };
        beside[k] = onto;
        v[0] -= onto;
        let square = dot(&v, &v);
        if square == 0.0 {
            continue;
        }
        // A <- H A H on the rest, as A - v w^T - w v^T.
        let rest = &mut matrix[(k + 1) * n..];
        let beta = 2.0 / square;
        let mut w = vec![0.0; v.len()];
        rest.par_chunks(PIECE * n).zip(w.par_chunks_mut(PIECE)).for_each(|(rows, w)| {
            for (row, w) in rows.chunks_exact(n).zip(w) {
                *w = beta * dot(&row[k + 1..], &v);
            }
        });
        let along = beta / 2.0 * dot(&v, &w);
        w.iter_mut().zip(&v).for_each(|(w, v)| *w -= along * v);
        rest.par_chunks_mut(PIECE * n).enumerate().for_each(|(piece, rows)| {
            for (row, i) in rows.chunks_exact_mut(n).zip(piece * PIECE..) {
                let (vi, wi) = (v[i], w[i]);
                for ((a, v), w) in row[k + 1..].iter_mut().zip(&v).zip(&w) {
                    *a -= vi * w + wi * v;
                }
            }
        });
    }
    (diagonal, beside)
}

/// The dot product, in eight partial sums, so that the loop vectorises and its order is fixed.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in left.zip(right) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Turns `diagonal` into the eigenvalues of the tridiagonal matrix; overwrites `beside`.
fn implicit_ql(diagonal: &mut [f64], beside: &mut [f64]) {
    let n = diagonal.len();
    // A value beside the diagonal this small changes no eigenvalue by more than rounding does.
    let largest = diagonal.iter().chain(beside.iter()).fold(0.0, |most: f64, x| most.max(x.abs()));
    let negligible = largest * f64::EPSILON;
    for start in 0..n {
        // Two or three rounds are usual; the bound only makes sure that the loop ends.
        for _ in 0..50 {
            let end = (start..n - 1).find(|&i| beside[i].abs() <= negligible).unwrap_or(n - 1);
            if end == start {
                break;
            }
            ql_sweep(diagonal, beside, start, end);
        }
    }
}

/// One QL step with Wilkinson's shift on the block `start..=end`.
fn ql_sweep(diagonal: &mut [f64], beside: &mut [f64], start: usize, end: usize) {
    let slope = (diagonal[start + 1] - diagonal[start]) / (2.0 * beside[start]);
    let root = slope.hypot(1.0).copysign(slope);
    let mut g = diagonal[end] - diagonal[start] + beside[start] / (slope + root);
    let (mut sine, mut cosine, mut shift) = (1.0, 1.0, 0.0);
    for i in (start..end).rev() {
        let f = sine * beside[i];
        let b = cosine * beside[i];
        let r = f.hypot(g);
        beside[i + 1] = r;
        if r == 0.0 {
            // The block splits here; the next round takes up what is left of it.
            diagonal[i + 1] -= shift;
            beside[end] = 0.0;
            return;
        }
        sine = f / r;
        cosine = g / r;
        let p = diagonal[i + 1] - shift;
        let r = (diagonal[i] - p) * sine + 2.0 * cosine * b;
        shift = sine * r;
        diagonal[i + 1] = p + shift;
        g = cosine * r - b;
    }
    diagonal[start] -= shift;
    beside[start] = g;
    beside[end] = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(mut values: Vec<f64>) -> Vec<f64> {
        values.sort_by(f64::total_cmp);
        values
    }

    #[test]
    fn small_matrices() {
        assert_eq!(symmetric_eigenvalues(vec![7.0], 1), [7.0]);
        let two = sorted(symmetric_eigenvalues(vec![2.0, 1.0, 1.0, 2.0], 2));
        assert!((two[0] - 1.0).abs() < 1e-14 && (two[1] - 3.0).abs() < 1e-14);
        assert_eq!(symmetric_eigenvalues(vec![0.0; 9], 3), [0.0; 3]);
    }

    #[test]
    fn second_difference_matrix() {
        // 2 on the diagonal, -1 beside it: eigenvalues 2 - 2 cos(pi k / (n + 1)).
        let n = 100usize;
        let matrix = (0..n * n).map(|i| match (i / n).abs_diff(i % n) {
            0 => 2.0,
            1 => -1.0,
            _ => 0.0,
        });
        let got = sorted(symmetric_eigenvalues(matrix.collect(), n));
        for (k, value) in got.iter().enumerate() {
            let expected = 2.0 - 2.0 * (std::f64::consts::PI * (k + 1) as f64 / (n + 1) as f64).cos();
            assert!((value - expected).abs() < 1e-12, "{k}: {value} {expected}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Reflections of a diagonal matrix keep its eigenvalues.
        #[test]
        fn finds_what_was_put_in(values in prop::collection::vec(-5.0f64..5.0, 1..60), seed in 1u32..1000) {
            let n = values.len();
            let mut matrix = vec![0.0; n * n];
            for (i, value) in values.iter().enumerate() {
                matrix[i * n + i] = *value;
            }
            for round in 0..3 {
                let v: Vec<f64> = (0..n).map(|i| (f64::from(seed) + 1.7 * (i * (round + 1)) as f64).sin() + 0.1).collect();
                let square = dot(&v, &v);
                // A <- H A, then A <- A H.
                for j in 0..n {
                    let along: f64 = (0..n).map(|i| v[i] * matrix[i * n + j]).sum::<f64>() * 2.0 / square;
                    (0..n).for_each(|i| matrix[i * n + j] -= along * v[i]);
                }
                for row in matrix.chunks_exact_mut(n) {
                    let along = dot(row, &v) * 2.0 / square;
                    row.iter_mut().zip(&v).for_each(|(a, v)| *a -= along * v);
                }
            }
            let (got, expected) = (sorted(symmetric_eigenvalues(matrix, n)), sorted(values));
            for (got, expected) in got.iter().zip(&expected) {
                prop_assert!((got - expected).abs() < 1e-10, "{} {}", got, expected);
            }
        }
    }
}
