//! How evenly features cover the sphere.

use crate::{Features, MetricsError};
use rayon::prelude::*;
use simclr_kernels::product::{Operand, multiply};

/// Rows per side of a tile of similarities.
const TILE: usize = 256;

/// log of the mean over all pairs i < j of exp(-2 ||z_i - z_j||^2), z L2-normalised: in [-8, 0], 0 when all
/// rows are the same, lower is more even (Wang and Isola 2020, equation 2, t = 2).
///
/// Time grows with the square of the number of rows; memory does not.
///
/// # Errors
/// Fewer than two rows.
pub fn uniformity(z: Features) -> Result<f64, MetricsError> {
    let (rows, dim) = (z.rows(), z.dim());
    if rows < 2 {
        return Err(MetricsError::TooFew { what: "rows for uniformity", least: 2, got: rows });
    }
    let normalised = z.normalised();
    let tiles = rows.div_ceil(TILE);
    let rows_of = |tile: usize| &normalised[tile * TILE * dim..rows.min((tile + 1) * TILE) * dim];
    // A row of zeros has no direction: the squares below put it at distance 1 from every other direction.
    let squares: Vec<f64> =
        (normalised.chunks_exact(dim)).map(|row| row.iter().map(|&x| f64::from(x).powi(2)).sum()).collect();
    let sums: Vec<f64> = (0..tiles * tiles)
        .into_par_iter()
        .map_init(
            || vec![0.0; TILE * TILE],
            |dots, place| {
                let (above, across) = (place / tiles, place % tiles);
                if across < above {
                    return 0.0;
                }
                let (left, right) = (rows_of(above), rows_of(across));
                let width = right.len() / dim;
                let dots = &mut dots[..left.len() / dim * width];
                multiply(Operand::new(left, dim), Operand::new(right, dim).t(), dots, false);
                let mut sum = 0.0;
                for (i, row) in dots.chunks_exact(width).enumerate() {
                    let skip = if above == across { i + 1 } else { 0 };
                    for (j, &dot) in row.iter().enumerate().skip(skip) {
                        let square =
                            squares[above * TILE + i] + squares[across * TILE + j] - 2.0 * f64::from(dot);
                        // Rounding can bring equal rows below distance 0.
                        sum += (-2.0 * square.max(0.0)).exp();
                    }
                }
                sum
            },
        )
        .collect();
    let pairs = rows as f64 * (rows as f64 - 1.0) / 2.0;
    Ok((sums.iter().sum::<f64>() / pairs).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_configurations() {
        let of = |z: &[f32], dim| uniformity(Features::new(z, dim).unwrap());
        let same = of(&[1.0, 2.0, 2.0, 4.0, 3.0, 6.0], 2).unwrap();
        assert!(same.abs() < 1e-6, "{same}");
        assert_eq!(of(&[1.0, -3.0], 1), Ok(-8.0));
        // A pair at right angles: squared distance 2.
        assert_eq!(of(&[1.0, 0.0, 0.0, 1.0], 2), Ok(-4.0));
        assert!(of(&[1.0, 0.0], 2).is_err());
    }

    #[test]
    fn tiles_do_not_show() {
        // 600 rows alternate between two orthogonal directions.
        let z: Vec<f32> = (0..600).flat_map(|i| if i % 2 == 0 { [1.0, 0.0] } else { [0.0, 1.0] }).collect();
        let (same, other) = (2.0 * (300.0 * 299.0 / 2.0), 300.0 * 300.0);
        let expected = ((same + other * f64::exp(-4.0)) / (same + other)).ln();
        let got = uniformity(Features::new(&z, 2).unwrap()).unwrap();
        assert!((got - expected).abs() < 1e-12, "{got} {expected}");
    }
}
