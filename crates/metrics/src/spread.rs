//! How much normalised projections vary, which shows collapse.

use crate::{Features, MetricsError};

/// Mean over the coordinates of the standard deviation over the rows of z, which is L2-normalised first.
///
/// About 1 / sqrt(d) for directions spread evenly over the sphere, 0 when all rows point the same way: collapse.
///
/// # Errors
/// No rows.
pub fn spread(z: Features) -> Result<f64, MetricsError> {
    if z.rows() == 0 {
        return Err(MetricsError::TooFew { what: "rows for spread", least: 1, got: 0 });
    }
    let normalised = z.normalised();
    let rows = z.rows() as f64;
    let mut means = vec![0f64; z.dim()];
    for row in normalised.chunks_exact(z.dim()) {
        means.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x) / rows);
    }
    // Two passes: a difference of two sums would lose the little variance that is left after a collapse.
    let mut variances = vec![0f64; z.dim()];
    for row in normalised.chunks_exact(z.dim()) {
        for ((variance, &x), mean) in variances.iter_mut().zip(row).zip(&means) {
            *variance += (f64::from(x) - mean).powi(2) / rows;
        }
    }
    Ok(variances.iter().map(|v| v.sqrt()).sum::<f64>() / z.dim() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collapsed_and_healthy() {
        let of = |z: &[f32], dim| spread(Features::new(z, dim).unwrap()).unwrap();
        assert!(of(&[0.3, 0.4, 3.0, 4.0, 30.0, 40.0], 2) < 1e-7);
        // The four directions along the axes of the plane: standard deviation sqrt(1/2) in both.
        let healthy = of(&[1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, -1.0], 2);
        assert!((healthy - 0.5f64.sqrt()).abs() < 1e-12);
        assert!(spread(Features::new(&[], 2).unwrap()).is_err());
    }
}
