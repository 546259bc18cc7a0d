//! How close the two views of an image lie.

use crate::pairs::check_pairs;
use crate::{Features, MetricsError};

/// Mean over the pairs of ||z_i - z_i+||^2, z L2-normalised: in [0, 4], lower is closer
/// (Wang and Isola 2020, equation 1, alpha = 2).
///
/// `z` holds 2N rows: one view of each of N images, then the other views in the same order.
///
/// # Errors
/// No rows, or an odd number of them.
pub fn alignment(z: Features) -> Result<f64, MetricsError> {
    let pairs = check_pairs(z)?;
    let normalised = z.normalised();
    let (first, second) = normalised.split_at(pairs * z.dim());
    let sum: f64 = first.iter().zip(second).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    Ok(sum / pairs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_opposite_and_orthogonal() {
        let of = |z: &[f32]| alignment(Features::new(z, 2).unwrap());
        assert_eq!(of(&[1.0, 0.0, 5.0, 0.0]), Ok(0.0));
        assert_eq!(of(&[1.0, 0.0, -5.0, 0.0]), Ok(4.0));
        assert_eq!(of(&[1.0, 0.0, 0.0, 2.0, 0.0, 3.0, 0.0, 1.0]), Ok(1.0));
        assert!(of(&[1.0, 0.0]).is_err());
        assert!(of(&[]).is_err());
    }
}
