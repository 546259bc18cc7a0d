//! Exact nearest neighbours by cosine similarity.

use crate::candidates::Candidates;
use crate::{Features, MetricsError, NearestSoFar};
use rayon::prelude::*;

/// The nearest base rows of every query, nearest first.
///
/// Rows that are equally similar are ordered by their index.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    k: usize,
    /// How many base rows were searched.
    rows: usize,
    indices: Vec<u32>,
    similarities: Vec<f32>,
}

impl Neighbours {
    /// The best `k` of the candidates of every query among `rows` base rows. `k` is neither 0 nor above `rows`.
    pub(crate) fn best(k: usize, rows: usize, found: Vec<Candidates>) -> Self {
        let (mut indices, mut similarities) = (vec![0; found.len() * k], vec![0.0; found.len() * k]);
        let places = indices.par_chunks_exact_mut(k).zip(similarities.par_chunks_exact_mut(k));
        found.into_par_iter().zip(places).for_each(|(candidates, (indices, similarities))| {
            for (slot, candidate) in candidates.best().into_iter().enumerate() {
                indices[slot] = candidate.index;
                similarities[slot] = candidate.similarity;
            }
        });
        Neighbours { k, rows, indices, similarities }
    }

    /// Neighbours per query: the `k` asked for, or the number of base rows if that is smaller.
    pub fn k(&self) -> usize {
        self.k
    }

    /// How many base rows were searched.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many queries there were.
    pub fn queries(&self) -> usize {
        self.indices.len() / self.k
    }

    /// Base rows nearest to query `query`, nearest first: `k` indices.
    pub fn indices(&self, query: usize) -> &[u32] {
        &self.indices[query * self.k..][..self.k]
    }

    /// The cosine similarities of [`Neighbours::indices`], in [-1, 1] up to rounding.
    pub fn similarities(&self, query: usize) -> &[f32] {
        &self.similarities[query * self.k..][..self.k]
    }
}

/// The `k` rows of `base` most similar to each row of `queries`.
///
/// Rows are normalised here, those of `base` block by block, so that no copy of all of them is made; a row of zeros has
/// similarity 0 with everything. `k` is cut to the number of base rows.
///
/// # Errors
/// `k` is 0, `base` is empty, or the two differ in the number of values per row.
pub fn nearest_neighbours(queries: Features, base: Features, k: usize) -> Result<Neighbours, MetricsError> {
    if queries.dim() != base.dim() {
        return Err(MetricsError::Shape {
            what: "values per query row",
            expected: base.dim(),
            got: queries.dim(),
        });
    }
    let mut found = NearestSoFar::new(queries, k)?;
    found.add(base)?;
    found.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All similarities, sorted.
    fn naive(queries: &[f32], base: &[f32], dim: usize, query: usize) -> Vec<(f32, u32)> {
        let mut all: Vec<(f32, u32)> = (base.chunks(dim).enumerate())
            .map(|(index, row)| {
                let dot: f32 = row.iter().zip(&queries[query * dim..][..dim]).map(|(a, b)| a * b).sum();
                // 0 in place of -0.
                (dot + 0.0, index as u32)
            })
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all
    }

    /// Rows with a single non-zero value, +1 or -1: every product is exact, and there are many ties.
    fn axes(rows: usize, dim: usize, seed: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * dim];
        for (row, values) in out.chunks_exact_mut(dim).enumerate() {
            let mixed = (row + seed).wrapping_mul(2_654_435_761) >> 7;
            values[mixed % dim] = if mixed & 64 == 0 { 1.0 } else { -1.0 };
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn agrees_with_sorting_everything(
            count in 1usize..300, rows in 2usize..1300, dim in 1usize..9, k in 1usize..260, seed in 0usize..99,
        ) {
            let (queries, base) = (axes(count, dim, seed), axes(rows, dim, seed + 7));
            let found = nearest_neighbours(
                Features::new(&queries, dim).unwrap(), Features::new(&base, dim).unwrap(), k,
            ).unwrap();
            prop_assert_eq!(found.k(), k.min(rows));
            prop_assert_eq!(found.queries(), count);
            for query in (0..count).step_by(17) {
                let expected = naive(&queries, &base, dim, query);
                let got: Vec<(f32, u32)> =
                    found.similarities(query).iter().copied().zip(found.indices(query).iter().copied()).collect();
                prop_assert_eq!(&got[..], &expected[..found.k()]);
            }
        }
    }

    #[test]
    fn refuses_an_empty_search() {
        let one = Features::new(&[1.0, 0.0], 2).unwrap();
        let none = Features::new(&[], 2).unwrap();
        let other = Features::new(&[1.0; 3], 3).unwrap();
        assert!(nearest_neighbours(one, one, 0).is_err());
        assert!(nearest_neighbours(one, none, 1).is_err());
        assert!(nearest_neighbours(one, other, 1).is_err());
        assert_eq!(nearest_neighbours(one, one, 5).unwrap().indices(0), [0]);
        assert_eq!(nearest_neighbours(none, one, 5).unwrap().queries(), 0);
    }
}
