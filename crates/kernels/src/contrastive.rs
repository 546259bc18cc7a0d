//! What contrastive losses share: which views are anchors, and the walk over similarities in tiles, so that the 2N
//! x 2N matrix of all never exists.

use crate::Cpu;
use crate::geometry::{addressable, sum};
use crate::product::{Operand, multiply};
use crate::scratch::{self, Scratch};

/// Anchors in a tile.
pub(crate) const ROWS: usize = 128;
/// Other views in a tile: ROWS x COLUMNS similarities stay in the second-level cache.
const COLUMNS: usize = 256;

/// Which views this worker's anchors are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContrastiveShape {
    /// Anchors of this worker: 2n, the first views of n images and then their second views.
    pub anchors: usize,
    /// Views of all workers; this worker's are `offset..offset + anchors`.
    pub views: usize,
    /// Where this worker's views begin among all.
    pub offset: usize,
    /// Width of z.
    pub dim: usize,
    /// tau.
    pub temperature: f32,
}

impl ContrastiveShape {
    /// Where the other view of anchor `i`'s image is, among all views.
    pub(crate) fn positive(&self, i: usize) -> usize {
        self.offset + (i + self.anchors / 2) % self.anchors
    }

    /// Views that are neither an anchor nor its positive: 2(N - 1).
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

/// A tile of similarities, or of what is made of them: rows are anchors from `start` on, columns views from `first` on.
pub(crate) struct Tile<'a> {
    pub start: usize,
    pub first: usize,
    pub columns: usize,
    pub values: &'a mut [f32],
}

impl Tile<'_> {
    /// The column of the positive of row `row`, if it is there.
    #[inline(always)]
    pub fn positive(&self, shape: &ContrastiveShape, row: usize) -> Option<usize> {
        let column = shape.positive(self.start + row).wrapping_sub(self.first);
        (column < self.columns).then_some(column)
    }

    /// Row `row` of similarities, that to the positive being -infinity as well: what is greater belongs to a negative.
    #[inline(always)]
    pub fn negatives(&mut self, shape: &ContrastiveShape, row: usize) -> &[f32] {
        let positive = self.positive(shape, row);
        let s = &mut self.values[row * self.columns..][..self.columns];
        if let Some(positive) = positive {
            s[positive] = f32::NEG_INFINITY;
        }
        s
    }

    /// Fills it with s(i,k) = z_i . z_k / tau; an anchor's similarity to itself becomes -infinity.
    #[inline(always)]
    fn fill(&mut self, shape: &ContrastiveShape, all: &[f32]) {
        let (d, columns) = (shape.dim, self.columns);
        let rows = self.values.len() / columns;
        let own = shape.offset + self.start;
        let anchors = Operand::new(&all[own * d..(own + rows) * d], d);
        multiply(anchors, self.views(shape, all).t(), self.values, false);
        self.values.iter_mut().for_each(|s| *s /= shape.temperature);
        for row in 0..rows {
            let own = (shape.offset + self.start + row).wrapping_sub(self.first);
            if own < columns {
                self.values[row * columns + own] = f32::NEG_INFINITY;
            }
        }
    }

    /// The views of its columns.
    fn views<'v>(&self, shape: &ContrastiveShape, all: &'v [f32]) -> Operand<'v, f32> {
        let d = shape.dim;
        Operand::new(&all[self.first * d..(self.first + self.columns) * d], d)
    }
}

/// Memory for a tile.
pub(crate) fn values() -> Scratch<f32> {
    scratch::take(ROWS * COLUMNS)
}

/// Shows `visit` the similarities of `rows` anchors from `start` on to all views, tile by tile, in `values`.
#[inline(always)]
pub(crate) fn walk(
    shape: &ContrastiveShape,
    all: &[f32],
    (start, rows): (usize, usize),
    values: &mut [f32],
    mut visit: impl FnMut(&mut Tile),
) {
    for first in (0..shape.views).step_by(COLUMNS) {
        let columns = COLUMNS.min(shape.views - first);
        let mut tile = Tile { start, first, columns, values: &mut values[..rows * columns] };
        tile.fill(shape, all);
        visit(&mut tile);
    }
}

/// dz_i = scale * sum over k of w(i,k) z_k, where `weigh` makes w of a tile of similarities. Overwrites dz,
/// (anchors, dim).
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
