//! Shared by the contrastive losses: which views are anchors, and the walk over similarities in tiles, so that the
//! 2N x 2N matrix of similarities is never stored.

use crate::Cpu;
use crate::geometry::{addressable, sum};
use crate::product::{Operand, multiply};
use crate::scratch::{self, Scratch};

/// Anchors in a tile.
pub(crate) const ROWS: usize = 128;
/// Columns of a tile, the views to compare with: ROWS x COLUMNS similarities stay in the second-level cache.
const COLUMNS: usize = 256;

/// The size of the batch of views, and where this worker's anchors are in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContrastiveShape {
    /// Number of this worker's anchors: 2n, the first views of n images and then their second views.
    pub anchors: usize,
    /// Number of views of all workers; this worker's are `offset..offset + anchors`.
    pub views: usize,
    /// Index of this worker's first view among all views.
    pub offset: usize,
    /// Width of z, the embedding of a view.
    pub dim: usize,
    /// The temperature tau.
    pub temperature: f32,
}

impl ContrastiveShape {
    /// The index, among all views, of the other view of anchor `i`'s image.
    pub(crate) fn positive(&self, i: usize) -> usize {
        self.offset + (i + self.anchors / 2) % self.anchors
    }

    /// Number of negatives of an anchor, the views that are neither the anchor nor its positive: 2(N - 1).
    pub(crate) fn negatives(&self) -> usize {
        self.views - 2
    }

    pub(crate) fn check(&self, all: &[f32]) {
        assert!(self.anchors >= 2 && self.anchors.is_multiple_of(2), "two views of every image");
        assert!(sum([self.offset, self.anchors]).is_some_and(|end| end <= self.views));
        assert!(addressable([Some(self.views), Some(self.dim)]) && self.dim > 0, "z of {self:?}");
        assert_eq!(all.len(), self.views * self.dim);
    }
}

/// A tile of similarities, or of weights made from them: rows are anchors from `start` on, columns views from `first`.
pub(crate) struct Tile<'a> {
    pub start: usize,
    pub first: usize,
    pub columns: usize,
    pub values: &'a mut [f32],
}

impl Tile<'_> {
    /// The column of row `row`'s positive, if it lies in this tile.
    #[inline(always)]
    pub fn positive(&self, shape: &ContrastiveShape, row: usize) -> Option<usize> {
        let column = shape.positive(self.start + row).wrapping_sub(self.first);
        (column < self.columns).then_some(column)
    }

    /// Row `row` of similarities with the positive set to -infinity too, so that every greater value is a negative's.
    #[inline(always)]
    pub fn negatives(&mut self, shape: &ContrastiveShape, row: usize) -> &[f32] {
        let positive = self.positive(shape, row);
        let s = &mut self.values[row * self.columns..][..self.columns];
        if let Some(positive) = positive {
            s[positive] = f32::NEG_INFINITY;
        }
        s
    }

    /// Fills the tile with s(i,k) = z_i . z_k / tau; an anchor's similarity to itself becomes -infinity.
    #[inline(always)]
    fn fill(&mut self, shape: &ContrastiveShape, all: &[f32]) {
        let (d, columns) = (shape.dim, self.columns);
        let rows = self.values.len() / columns;
        let own = shape.offset + self.start;
        let anchors = Operand::new(&all[own * d..(own + rows) * d], d);
        multiply(anchors, self.views(shape, all).t(), self.values, false);
        let scale = 1.0 / shape.temperature;
        self.values.iter_mut().for_each(|s| *s *= scale);
        for row in 0..rows {
            let own = (shape.offset + self.start + row).wrapping_sub(self.first);
            if own < columns {
                self.values[row * columns + own] = f32::NEG_INFINITY;
            }
        }
    }

    /// The views that are the columns of this tile.
    fn views<'v>(&self, shape: &ContrastiveShape, all: &'v [f32]) -> Operand<'v, f32> {
        let d = shape.dim;
        Operand::new(&all[self.first * d..(self.first + self.columns) * d], d)
    }
}

/// Memory for a tile.
pub(crate) fn values() -> Scratch<f32> {
    scratch::take(ROWS * COLUMNS)
}

/// Calls `visit` with the similarities of `rows` anchors, from `start` on, to all views, tile by tile, in `values`.
#[inline(always)]
pub(crate) fn walk(
    shape: &ContrastiveShape,
    all: &[f32],
    (start, rows): (usize, usize),
    values: &mut [f32],
    visit: impl FnMut(&mut Tile),
) {
    walk_some(shape, all, (start, rows), values, |_| true, visit);
}

/// [`walk`] over the tiles that are `wanted`, which is asked before they are filled.
#[inline(always)]
fn walk_some(
    shape: &ContrastiveShape,
    all: &[f32],
    (start, rows): (usize, usize),
    values: &mut [f32],
    wanted: impl Fn(&Tile) -> bool,
    mut visit: impl FnMut(&mut Tile),
) {
    for first in (0..shape.views).step_by(COLUMNS) {
        let columns = COLUMNS.min(shape.views - first);
        let mut tile = Tile { start, first, columns, values: &mut values[..rows * columns] };
        if wanted(&tile) {
            tile.fill(shape, all);
            visit(&mut tile);
        }
    }
}

/// Calls `visit` with each of `rows` anchors, from `start` on, counted from there, and its similarity to its positive,
/// the very value that [`walk`] computes: that of [`crate::nt_xent`] may be rounded otherwise, so that a view equal to
/// the positive would be less similar than it.
#[inline(always)]
pub(crate) fn positives(
    shape: &ContrastiveShape,
    all: &[f32],
    (start, rows): (usize, usize),
    values: &mut [f32],
    mut visit: impl FnMut(usize, f32),
) {
    let has_one = |tile: &Tile| (0..rows).any(|row| tile.positive(shape, row).is_some());
    walk_some(
        shape,
        all,
        (start, rows),
        values,
        has_one,
        #[inline(always)]
        |tile| {
            for row in 0..rows {
                if let Some(column) = tile.positive(shape, row) {
                    visit(row, tile.values[row * tile.columns + column]);
                }
            }
        },
    );
}

/// dz_i = scale * sum over k of w(i,k) z_k, where `weigh` turns a tile of similarities into the weights w.
/// Overwrites dz, (anchors, dim).
pub(crate) fn gradient(
    cpu: &Cpu,
    shape: &ContrastiveShape,
    all: &[f32],
    scale: f32,
    dz: &mut [f32],
    weigh: impl Fn(&mut Tile) + Sync,
) {
    let d = shape.dim;
    cpu.threads.run_chunks(dz, ROWS * d, |piece, dz| {
        let rows = dz.len() / d;
        let mut values = values();
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                walk(
                    shape,
                    all,
                    (piece * ROWS, rows),
                    &mut values,
                    #[inline(always)]
                    |tile| {
                        weigh(tile);
                        let weights = Operand::new(tile.values, tile.columns);
                        multiply(weights, tile.views(shape, all), dz, tile.first > 0);
                    },
                );
            },
        );
        dz.iter_mut().for_each(|v| *v *= scale);
    });
}
