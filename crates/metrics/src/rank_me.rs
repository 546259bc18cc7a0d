//! The effective rank of a set of features, a figure of quality that needs no labels.

use crate::eigenvalues::symmetric_eigenvalues;
use crate::{Features, MetricsError};
use rayon::prelude::*;
use simclr_kernels::product::{Operand, multiply};

/// Added to every normalised singular value, as in the paper.
const EPSILON: f64 = 1e-7;
/// Rows of features that are added to the Gram matrix at a time.
const ROWS: usize = 1024;
/// Columns of the Gram matrix per piece of parallel work.
const COLUMNS: usize = 64;

/// RankMe (Garrido et al. 2023, equation 1): exp of the entropy of the normalised singular values,
/// exp(-sum p_k log p_k), p_k = sigma_k / sum sigma + 1e-7, over the min(rows, dim) singular values of the
/// feature matrix as it is (not centred).
///
/// From 1 (all rows on one line) to min(rows, dim), up to the epsilon. Features that are all zero give 0. Singular
/// values come from the Gram matrix of the shorter side in f64, which is exact far below the epsilon.
///
/// # Errors
/// No rows.
pub fn rank_me(features: Features) -> Result<f64, MetricsError> {
    if features.rows() == 0 {
        return Err(MetricsError::TooFew { what: "rows for RankMe", least: 1, got: 0 });
    }
    let side = features.rows().min(features.dim());
    let singular: Vec<f64> =
        symmetric_eigenvalues(gram(features), side).into_iter().map(|value| value.max(0.0).sqrt()).collect();
    let sum: f64 = singular.iter().sum();
    let entropy: f64 = (singular.iter())
        .map(|value| if sum > 0.0 { value / sum + EPSILON } else { EPSILON })
        .map(|p| -p * p.ln())
        .sum();
    Ok(if sum > 0.0 { entropy.exp() } else { 0.0 })
}

/// The Gram matrix of the shorter side: X X^T or X^T X, row-major, in f64.
fn gram(features: Features) -> Vec<f64> {
    let (rows, dim) = (features.rows(), features.dim());
    if rows <= dim {
        let wide: Vec<f64> = features.values().iter().map(|&x| f64::from(x)).collect();
        let mut out = vec![0.0; rows * rows];
        out.par_chunks_mut(COLUMNS * rows).zip(wide.par_chunks(COLUMNS * dim)).for_each(|(out, left)| {
            multiply(Operand::new(left, dim), Operand::new(&wide, dim).t(), out, false);
        });
        return out;
    }
    let mut out = vec![0.0; dim * dim];
    for piece in features.values().chunks(ROWS * dim) {
        let wide: Vec<f64> = piece.iter().map(|&x| f64::from(x)).collect();
        let all = Operand::new(&wide, dim);
        out.par_chunks_mut(COLUMNS * dim).enumerate().for_each(|(number, out)| {
            let left = all.columns(number * COLUMNS, out.len() / dim);
            multiply(left.t(), all, out, true);
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f32], dim: usize) -> f64 {
        rank_me(Features::new(values, dim).unwrap()).unwrap()
    }

    #[test]
    fn known_ranks() {
        // Rows on one line; equal axes; axes with singular values 3, 1, 0.
        let line: Vec<f32> = (1..=50).flat_map(|i| [i as f32, 2.0 * i as f32, -(i as f32)]).collect();
        assert!((of(&line, 3) - 1.0).abs() < 1e-4);
        let axes: Vec<f32> = (0..12 * 4).map(|i| if i / 4 % 4 == i % 4 { 1.0 } else { 0.0 }).collect();
        assert!((of(&axes, 4) - 4.0).abs() < 1e-4);
        let three_to_one = of(&[3.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], 3);
        let expected = (-(0.75f64 * 0.75f64.ln() + 0.25 * 0.25f64.ln())).exp();
        assert!((three_to_one - expected).abs() < 1e-5);
        assert_eq!(of(&[0.0; 6], 3), 0.0);
    }

    #[test]
    fn both_sides_give_the_same() {
        let (rows, dim) = (90, 130);
        let values: Vec<f32> = (0..rows * dim).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let transposed: Vec<f32> = (0..rows * dim).map(|i| values[i % rows * dim + i / rows]).collect();
        let (wide, tall) = (of(&values, dim), of(&transposed, rows));
        assert!((wide - tall).abs() < 1e-9, "{wide} {tall}");
    }
}
