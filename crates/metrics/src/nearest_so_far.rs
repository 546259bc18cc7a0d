//! Nearest neighbours among rows that are added block by block.

use crate::neighbours::{Candidate, search};
use crate::{Features, MetricsError, Neighbours};

/// The rows most similar to each query among those added so far. Only the queries and their nearest rows are held in
/// memory.
#[derive(Debug, Clone)]
pub struct NearestSoFar {
    /// Of unit length.
    queries: Vec<f32>,
    dim: usize,
    k: usize,
    rows: usize,
    /// At most `k` for each query, nearest first.
    found: Vec<Vec<Candidate>>,
}

impl NearestSoFar {
    /// Starts a search for the `k` rows nearest to each row of `queries`.
    ///
    /// # Errors
    /// `k` is 0.
    pub fn new(queries: Features, k: usize) -> Result<Self, MetricsError> {
        if k == 0 {
            return Err(MetricsError::TooFew { what: "neighbours k", least: 1, got: 0 });
        }
        let found = vec![Vec::new(); queries.rows()];
        Ok(NearestSoFar { queries: queries.normalised(), dim: queries.dim(), k, rows: 0, found })
    }

    /// Adds the next rows.
    ///
    /// # Errors
    /// The rows have another number of values than the queries, or there are more than 2^32 - 1 of them in total.
    pub fn add(&mut self, block: Features) -> Result<(), MetricsError> {
        if block.dim() != self.dim {
            return Err(MetricsError::Shape { what: "values per row", expected: self.dim, got: block.dim() });
        }
        if block.rows() == 0 {
            return Ok(());
        }
        let (first, rows) = (self.rows, self.rows + block.rows());
        let expected = u32::MAX as usize;
        if rows > expected {
            return Err(MetricsError::Shape { what: "rows to search, at most", expected, got: rows });
        }
        let nearest = search(&self.queries, &block.normalised(), self.dim, self.k)?;
        for (query, found) in self.found.iter_mut().enumerate() {
            let near = nearest.indices(query).iter().zip(nearest.similarities(query));
            found.extend(
                near.map(|(&index, &similarity)| Candidate { similarity, index: first as u32 + index }),
            );
            found.sort_unstable_by(Candidate::order);
            found.truncate(self.k);
        }
        self.rows = rows;
        Ok(())
    }

    /// The neighbours found.
    ///
    /// # Errors
    /// No rows were added.
    pub fn finish(self) -> Result<Neighbours, MetricsError> {
        if self.rows == 0 {
            return Err(MetricsError::TooFew { what: "rows to search", least: 1, got: 0 });
        }
        Ok(Neighbours::of(self.k.min(self.rows), &self.found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nearest_neighbours;

    #[test]
    fn blocks_or_all_at_once() {
        let (dim, rows) = (5, 700);
        // Few distinct values, so that many rows are equally similar.
        let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 9) as f32 % 3.0 - 1.0;
        let base: Vec<f32> = (0..rows * dim).map(value).collect();
        let features = |values| Features::new(values, dim).unwrap();
        let queries = features(&base[..40 * dim]);
        for k in [1, 7, 300, 1000] {
            let mut found = NearestSoFar::new(queries, k).unwrap();
            for block in base.chunks(129 * dim) {
                found.add(features(block)).unwrap();
            }
            assert_eq!(found.finish().unwrap(), nearest_neighbours(queries, features(&base), k).unwrap());
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let one = Features::new(&[1.0, 0.0], 2).unwrap();
        assert!(NearestSoFar::new(one, 0).is_err());
        let mut found = NearestSoFar::new(one, 3).unwrap();
        assert!(found.add(Features::new(&[1.0; 3], 3).unwrap()).is_err());
        found.add(Features::new(&[], 2).unwrap()).unwrap();
        assert!(found.clone().finish().is_err());
        found.add(one).unwrap();
        assert_eq!(found.finish().unwrap().indices(0), [0]);
    }
}
