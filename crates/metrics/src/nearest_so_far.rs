//! Nearest neighbours among rows that are added block by block.
//!
//! Similarities are computed one tile at a time (a product of `QUERY_TILE` queries with `BASE_TILE` base
//! rows); the whole matrix of similarities is never held. Each query keeps a short list of candidates and the
//! similarity that a newcomer must exceed; comparing with that rules out most of a tile.

use crate::candidates::Candidates;
use crate::{Features, MetricsError, Neighbours};
use rayon::prelude::*;
use simclr_kernels::product::{Operand, multiply};

/// Queries per tile: one piece of parallel work.
const QUERY_TILE: usize = 128;
/// Base rows per tile; a tile of similarities then takes 256 KiB, within a core's second-level cache.
const BASE_TILE: usize = 512;
/// About how many values of base rows are normalised and transposed at a time: 32 MiB.
const BLOCK_VALUES: usize = 1 << 23;

/// The rows most similar to each query among those added so far. Of the rows, only the nearest are held in memory, as
/// numbers and similarities, and copies of a block of a few thousand while it is searched.
#[derive(Debug, Clone)]
pub struct NearestSoFar {
    /// Of unit length.
    queries: Vec<f32>,
    dim: usize,
    k: usize,
    rows: usize,
    /// Of each query.
    found: Vec<Candidates>,
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
        let found = (0..queries.rows()).map(|_| Candidates::new(k)).collect();
        Ok(NearestSoFar { queries: queries.normalised(), dim: queries.dim(), k, rows: 0, found })
    }

    /// How many rows of `dim` values are best added at a time: blocks of a multiple of this give the bits of all rows
    /// added at once, and smaller ones take longer.
    pub fn block_rows(dim: usize) -> usize {
        (BLOCK_VALUES / (BASE_TILE * dim.max(1))).max(1) * BASE_TILE
    }

    /// Adds the next rows.
    ///
    /// # Errors
    /// The rows have another number of values than the queries, or there are more than 2^32 - 1 of them in total.
    pub fn add(&mut self, rows: Features) -> Result<(), MetricsError> {
        if rows.dim() != self.dim {
            return Err(MetricsError::Shape { what: "values per row", expected: self.dim, got: rows.dim() });
        }
        let (expected, got) = (u32::MAX as usize, self.rows + rows.rows());
        if got > expected {
            return Err(MetricsError::Shape { what: "rows to search, at most", expected, got });
        }
        for block in rows.blocks(NearestSoFar::block_rows(self.dim)) {
            let (first, dim) = (self.rows as u32, self.dim);
            let columns = transpose_tiles(&block.normalised(), dim);
            self.queries
                .par_chunks(QUERY_TILE * dim)
                .zip(self.found.par_chunks_mut(QUERY_TILE))
                .with_max_len(1)
                .for_each_init(
                    || vec![0.0; QUERY_TILE * BASE_TILE],
                    |tile, (queries, found)| search_block(queries, &columns, dim, (first, found), tile),
                );
            self.rows += block.rows();
        }
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
        Ok(Neighbours::best(self.k.min(self.rows), self.rows, self.found))
    }
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

/// Offers the rows of a block, in transposed tiles and numbered from `first`, to the candidates of a tile of queries.
fn search_block(
    queries: &[f32],
    columns: &[f32],
    dim: usize,
    (first, found): (u32, &mut [Candidates]),
    tile: &mut [f32],
) {
    let count = queries.len() / dim;
    for (number, columns) in columns.chunks(BASE_TILE * dim).enumerate() {
        let width = columns.len() / dim;
        let tile = &mut tile[..count * width];
        multiply(Operand::new(queries, dim), Operand::new(columns, width), tile, false);
        // 0 in place of -0, which is as similar but would be ordered behind it.
        tile.iter_mut().for_each(|similarity| *similarity += 0.0);
        for (candidates, row) in found.iter_mut().zip(tile.chunks_exact(width)) {
            candidates.offer_all(first + (number * BASE_TILE) as u32, row);
        }
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
    fn blocks_give_the_bits_of_all_at_once() {
        let dim = 2000;
        let rows = 2 * NearestSoFar::block_rows(dim) + 700;
        let mut state = 1u32;
        let mut value = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 1e6 - 8.0
        };
        let base: Vec<f32> = (0..rows * dim).map(|_| value()).collect();
        let base = Features::new(&base, dim).unwrap();
        let queries = Features::new(&base.values()[..130 * dim], dim).unwrap();
        let mut found = NearestSoFar::new(queries, 20).unwrap();
        base.blocks(BASE_TILE).for_each(|block| found.add(block).unwrap());
        let nearest = nearest_neighbours(queries, base, 20).unwrap();
        assert_eq!(found.finish().unwrap(), nearest);
        // Neither the blocks of a search nor its tiles leave out a row.
        assert!((0..130).all(|query| nearest.indices(query)[0] == query as u32));
    }

    /// Rows at right angles to the query have a similarity of 0 or of -0.
    #[test]
    fn the_signs_of_zeros_do_not_count() {
        let base: Vec<f32> = (0..200).flat_map(|i| [0.0, if i % 3 == 0 { 1.0 } else { -1.0 }]).collect();
        let (queries, base) = ([1.0, 0.0, -1.0, 0.0], Features::new(&base, 2).unwrap());
        let found = nearest_neighbours(Features::new(&queries, 2).unwrap(), base, 50).unwrap();
        for query in 0..2 {
            assert_eq!(found.indices(query), (0..50).collect::<Vec<u32>>());
            assert!(found.similarities(query).iter().all(|similarity| similarity.to_bits() == 0));
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
