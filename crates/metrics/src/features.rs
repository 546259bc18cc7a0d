//! A checked view of a feature matrix.

use crate::MetricsError;
use rayon::prelude::*;

/// Rows per piece of parallel work.
const PIECE: usize = 1024;

/// A row-major matrix of finite features, one row per image: borrowed, checked once.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    values: &'a [f32],
    dim: usize,
}

impl<'a> Features<'a> {
    /// A view of `values` as rows of `dim` values.
    ///
    /// # Errors
    /// `dim` is 0, `values` is not a whole number of rows, or a value is NaN or infinite.
    pub fn new(values: &'a [f32], dim: usize) -> Result<Self, MetricsError> {
        if dim == 0 {
            return Err(MetricsError::TooFew { what: "values per row", least: 1, got: 0 });
        }
        let whole = values.len() / dim * dim;
        if whole != values.len() {
            return Err(MetricsError::Shape {
                what: "feature values, whole rows",
                expected: whole,
                got: values.len(),
            });
        }
        let broken = values.par_chunks(PIECE * dim).enumerate().find_map_first(|(piece, rows)| {
            let place = rows.iter().position(|value| !value.is_finite())?;
            Some(piece * PIECE + place / dim)
        });
        match broken {
            Some(row) => Err(MetricsError::NotFinite { row }),
            None => Ok(Features { values, dim }),
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// How many values a row has.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values, row after row.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The values of row `row`. Panics if there is no such row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.dim..][..self.dim]
    }

    /// The rows in blocks of `rows`, the last of which may have fewer.
    pub(crate) fn blocks(&self, rows: usize) -> impl Iterator<Item = Features<'a>> {
        let dim = self.dim;
        self.values.chunks(rows * dim).map(move |values| Features { values, dim })
    }

    /// A copy with every row divided by its L2 norm; a row of zeros stays zero.
    pub fn normalised(&self) -> Vec<f32> {
        let mut out = self.values.to_vec();
        out.par_chunks_mut(PIECE * self.dim).for_each(|rows| {
            for row in rows.chunks_exact_mut(self.dim) {
                // In f64: squares of large features would overflow f32.
                let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
                if norm > 0.0 {
                    row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
                }
            }
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_matrix() {
        assert!(matches!(Features::new(&[1.0], 0), Err(MetricsError::TooFew { .. })));
        assert!(matches!(Features::new(&[1.0; 5], 2), Err(MetricsError::Shape { expected: 4, got: 5, .. })));
        let mut values = vec![0.5; 3 * 4000];
        values[3 * 3500 + 1] = f32::NAN;
        values[3 * 3900] = f32::INFINITY;
        assert_eq!(Features::new(&values, 3).unwrap_err(), MetricsError::NotFinite { row: 3500 });
    }

    #[test]
    fn rows_get_unit_length_whatever_their_scale() {
        let values = [3e30, 4e30, 0.0, 0.0, 3e-30, -4e-30];
        let features = Features::new(&values, 2).unwrap();
        let expected = [0.6, 0.8, 0.0, 0.0, 0.6, -0.8];
        for (got, expected) in features.normalised().iter().zip(expected) {
            assert!((got - expected).abs() < 1e-7, "{got} {expected}");
        }
    }
}
