//! Exact nearest neighbours by cosine similarity.
//!
//! Similarities are computed one tile at a time (a product of `QUERY_TILE` queries with `BASE_TILE` base
//! rows); the whole matrix of similarities is never held. Each query keeps a short list of candidates and the
//! similarity that a newcomer must exceed; comparing with that rules out most of a tile.

use crate::{Features, MetricsError};
use rayon::prelude::*;
use simclr_kernels::product::{Operand, multiply};
use std::cmp::Ordering;

/// Queries per tile: one piece of parallel work.
const QUERY_TILE: usize = 128;
/// Base rows per tile; a tile of similarities then takes 256 KiB, within a core's second-level cache.
const BASE_TILE: usize = 512;
/// Similarities compared at once while looking for one above the bar.
const SCAN: usize = 32;

/// The nearest base rows of every query, nearest first.
///
/// Rows that are equally similar are ordered by their index.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    k: usize,
    indices: Vec<u32>,
    similarities: Vec<f32>,
}

impl Neighbours {
    /// From the neighbours of every query, nearest first, `k` of each.
    pub(crate) fn of(k: usize, found: &[Vec<Candidate>]) -> Self {
        let all = || found.iter().flatten();
        Neighbours {
            k,
            indices: all().map(|candidate| candidate.index).collect(),
            similarities: all().map(|candidate| candidate.similarity).collect(),
        }
    }

    /// Neighbours per query: the `k` asked for, or the number of base rows if that is smaller.
    pub fn k(&self) -> usize {
        self.k
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
/// Rows are normalised here; a row of zeros has similarity 0 with everything. `k` is cut to the number of base rows.
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
    search(&queries.normalised(), &base.normalised(), base.dim(), k)
}

/// [`nearest_neighbours`] for rows that already have unit length.
pub(crate) fn search(
    queries: &[f32],
    base: &[f32],
    dim: usize,
    k: usize,
) -> Result<Neighbours, MetricsError> {
    if k == 0 {
        return Err(MetricsError::TooFew { what: "neighbours k", least: 1, got: 0 });
    }
    let rows = base.len() / dim;
    if rows == 0 {
        return Err(MetricsError::TooFew { what: "rows to search", least: 1, got: 0 });
    }
    if u32::try_from(rows).is_err() {
        return Err(MetricsError::Shape {
            what: "rows to search, at most",
            expected: u32::MAX as usize,
            got: rows,
        });
    }
    let k = k.min(rows);
    let count = queries.len() / dim;
    let base = transpose_tiles(base, dim);
    let mut indices = vec![0; count * k];
    let mut similarities = vec![0.0; count * k];
    queries
        .par_chunks(QUERY_TILE * dim)
        .zip(indices.par_chunks_mut(QUERY_TILE * k))
        .zip(similarities.par_chunks_mut(QUERY_TILE * k))
        .with_max_len(1)
        .for_each_init(
            || vec![0.0; QUERY_TILE * BASE_TILE],
            |tile, ((queries, indices), similarities)| {
                let nearest = search_tile(queries, &base, dim, k, tile);
                let places = indices.chunks_exact_mut(k).zip(similarities.chunks_exact_mut(k));
                for (candidates, (indices, similarities)) in nearest.into_iter().zip(places) {
                    for (slot, candidate) in candidates.best().into_iter().enumerate() {
                        indices[slot] = candidate.index;
                        similarities[slot] = candidate.similarity;
                    }
                }
            },
        );
    Ok(Neighbours { k, indices, similarities })
}

/// Transposes each tile of base rows into `dim` contiguous columns, which the product reads. It would otherwise do so
/// for every tile of queries, which at 512 values per row takes half of its time.
fn transpose_tiles(base: &[f32], dim: usize) -> Vec<f32> {
    let mut out = vec![0.0; base.len()];
    out.par_chunks_mut(BASE_TILE * dim).zip(base.par_chunks(BASE_TILE * dim)).for_each(|(out, rows)| {
        let width = rows.len() / dim;
        for (i, row) in rows.chunks_exact(dim).enumerate() {
            row.iter().enumerate().for_each(|(j, &value)| out[j * width + i] = value);
        }
    });
    out
}

/// Searches the whole base, in transposed tiles, for one tile of queries.
fn search_tile(queries: &[f32], base: &[f32], dim: usize, k: usize, tile: &mut [f32]) -> Vec<Candidates> {
    let count = queries.len() / dim;
    let mut nearest: Vec<Candidates> = (0..count).map(|_| Candidates::new(k)).collect();
    for (number, columns) in base.chunks(BASE_TILE * dim).enumerate() {
        let width = columns.len() / dim;
        let tile = &mut tile[..count * width];
        multiply(Operand::new(queries, dim), Operand::new(columns, width), tile, false);
        for (candidates, row) in nearest.iter_mut().zip(tile.chunks_exact(width)) {
            candidates.offer_all((number * BASE_TILE) as u32, row);
        }
    }
    nearest
}

/// A base row that may be among the nearest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub similarity: f32,
    pub index: u32,
}

impl Candidate {
    /// Most similar first, then by index.
    pub fn order(&self, other: &Candidate) -> Ordering {
        other.similarity.total_cmp(&self.similarity).then(self.index.cmp(&other.index))
    }
}

/// The best candidates offered so far, and some that were among the best when they were offered.
struct Candidates {
    k: usize,
    held: Vec<Candidate>,
    /// A newcomer no more similar than this cannot be among the best `k`: offers come in the order of their
    /// index, so that of two equals the earlier one stays.
    bar: f32,
}

impl Candidates {
    fn new(k: usize) -> Self {
        // With room for k newcomers between two selections, selecting costs a constant time per newcomer.
        Candidates { k, held: Vec::with_capacity(2 * k + SCAN), bar: f32::NEG_INFINITY }
    }

    /// Offers base rows `first`, `first + 1`, ... with these similarities.
    fn offer_all(&mut self, first: u32, similarities: &[f32]) {
        for (block, values) in similarities.chunks(SCAN).enumerate() {
            // No early exit, so that the comparison is vectorised.
            if !values.iter().fold(false, |any, &s| any | (s > self.bar)) {
                continue;
            }
            let start = first + (block * SCAN) as u32;
            for (offset, &similarity) in values.iter().enumerate() {
                if similarity > self.bar {
                    self.held.push(Candidate { similarity, index: start + offset as u32 });
                }
            }
            if self.held.len() >= 2 * self.k {
                self.select();
            }
        }
    }

    fn select(&mut self) {
        if self.held.len() > self.k {
            self.held.select_nth_unstable_by(self.k - 1, Candidate::order);
            self.held.truncate(self.k);
            self.bar = self.held[self.k - 1].similarity;
        }
    }

    fn best(mut self) -> Vec<Candidate> {
        self.select();
        self.held.sort_unstable_by(Candidate::order);
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All similarities, sorted.
    fn naive(queries: &[f32], base: &[f32], dim: usize, query: usize) -> Vec<(f32, u32)> {
        let mut all: Vec<(f32, u32)> = (base.chunks(dim).enumerate())
            .map(|(index, row)| {
                let dot = row.iter().zip(&queries[query * dim..][..dim]).map(|(a, b)| a * b).sum();
                (dot, index as u32)
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
