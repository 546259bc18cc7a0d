//! Means and deviations of features.

use rayon::prelude::*;
use simclr_metrics::Features;

/// Rows per piece of parallel work.
const PIECE: usize = 1024;

/// Shifts and scales each column to mean 0 and deviation 1, as measured on the set it was made from.
#[derive(Debug, Clone)]
pub(super) struct Standardizer {
    mean: Vec<f64>,
    /// 1 / deviation; 1 for a column that never varies.
    scale: Vec<f64>,
}

impl Standardizer {
    pub(super) fn new(features: Features) -> Self {
        let mean = column_means(features, |_, x| x);
        let variance = column_means(features, |column, x| (x - mean[column]).powi(2));
        let scale = mean.iter().zip(&variance).map(|(mean, variance)| {
            let deviation = variance.sqrt();
            // The rounding error left in a constant column is no signal.
            if deviation > 1e-7 * mean.abs() { 1.0 / deviation } else { 1.0 }
        });
        let scale = scale.collect();
        Standardizer { mean, scale }
    }

    pub(super) fn dim(&self) -> usize {
        self.mean.len()
    }

    pub(super) fn apply(&self, features: Features) -> Vec<f32> {
        let mut out = features.values().to_vec();
        out.par_chunks_mut(PIECE * self.dim()).for_each(|rows| {
            for row in rows.chunks_exact_mut(self.dim()) {
                for ((x, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                    *x = ((f64::from(*x) - mean) * scale) as f32;
                }
            }
        });
        out
    }
}

/// Mean over the rows of `of(column, value)`, summed piece by piece in order.
fn column_means(features: Features, of: impl Fn(usize, f64) -> f64 + Sync) -> Vec<f64> {
    let dim = features.dim();
    let sums: Vec<Vec<f64>> = (features.values().par_chunks(PIECE * dim))
        .map(|rows| {
            let mut sums = vec![0.0; dim];
            for row in rows.chunks_exact(dim) {
                for (column, (sum, &x)) in sums.iter_mut().zip(row).enumerate() {
                    *sum += of(column, f64::from(x));
                }
            }
            sums
        })
        .collect();
    let mut total = vec![0.0; dim];
    for piece in &sums {
        total.iter_mut().zip(piece).for_each(|(total, sum)| *total += sum);
    }
    total.iter_mut().for_each(|total| *total /= features.rows() as f64);
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_become_0_and_deviations_1() {
        let values: Vec<f32> =
            (0..3000).flat_map(|i| [(i % 2) as f32 * 4.0 + 100.0, 7.3, (i % 3) as f32]).collect();
        let features = Features::new(&values, 3).unwrap();
        let out = Standardizer::new(features).apply(features);
        assert_eq!(&out[..2], [-1.0, 0.0]);
        assert_eq!(out[3], 1.0);
        let third: f64 = out.chunks(3).map(|row| f64::from(row[2]).powi(2)).sum();
        assert!((third / 3000.0 - 1.0).abs() < 1e-6);
    }
}
