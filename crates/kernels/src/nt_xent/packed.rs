//! The views, cut into blocks and laid out as the register tiles read them.

use super::tile::PANEL;
use crate::contrastive::ContrastiveShape;
use crate::{Cpu, scratch};

/// Views in a block; the similarities of two blocks stay in the second-level cache.
pub const BLOCK: usize = 128;

/// How all views are cut into blocks: this worker's own first, then those before and those after them.
#[derive(Clone, Copy)]
pub struct Blocks {
    anchors: usize,
    offset: usize,
    views: usize,
}

impl Blocks {
    pub fn new(shape: &ContrastiveShape) -> Blocks {
        Blocks { anchors: shape.anchors, offset: shape.offset, views: shape.views }
    }

    /// The number of blocks of this worker's own views.
    pub fn own(self) -> usize {
        self.anchors.div_ceil(BLOCK)
    }

    /// The number of all blocks.
    pub fn count(self) -> usize {
        self.own() + self.offset.div_ceil(BLOCK) + (self.views - self.offset - self.anchors).div_ceil(BLOCK)
    }

    /// The first view of a block, and its number of views.
    pub fn range(self, block: usize) -> (usize, usize) {
        let (own, before) = (self.own(), self.offset.div_ceil(BLOCK));
        let (start, end, index) = if block < own {
            (self.offset, self.offset + self.anchors, block)
        } else if block < own + before {
            (0, self.offset, block - own)
        } else {
            (self.offset + self.anchors, self.views, block - own - before)
        };
        let first = start + index * BLOCK;
        (first, BLOCK.min(end - first))
    }
}

/// Blocks of views, packed in one of two layouts of panels, [`PANEL`] values wide and padded with zeros.
pub struct Packed {
    values: scratch::Scratch<f32>,
    /// Values in a block, and in a panel.
    block: usize,
    panel: usize,
}

impl Packed {
    /// z transposed: a panel has the same [`PANEL`] views in each of its `dim` rows.
    pub fn transposed(cpu: &Cpu, blocks: Blocks, all: &[f32], dim: usize) -> Packed {
        let packed = Packed::new(blocks, BLOCK / PANEL, dim);
        packed.fill(cpu, blocks, |first, len, values| {
            for (p, panel) in values.chunks_exact_mut(dim * PANEL).enumerate() {
                let views = len.saturating_sub(p * PANEL).min(PANEL);
                let z = &all[(first + (p * PANEL).min(len)) * dim..][..views * dim];
                for (c, row) in panel.chunks_exact_mut(PANEL).enumerate() {
                    let (row, padding) = row.split_at_mut(views);
                    row.iter_mut().zip(z.iter().skip(c).step_by(dim)).for_each(|(to, &from)| *to = from);
                    padding.fill(0.0);
                }
            }
        })
    }

    /// z as it is: a panel has [`PANEL`] coordinates of each view.
    pub fn rows(cpu: &Cpu, blocks: Blocks, all: &[f32], dim: usize) -> Packed {
        let packed = Packed::new(blocks, dim.div_ceil(PANEL), BLOCK);
        packed.fill(cpu, blocks, |first, len, values| {
            for (p, panel) in values.chunks_exact_mut(BLOCK * PANEL).enumerate() {
                let width = PANEL.min(dim - p * PANEL);
                let z = &all[first * dim..(first + len) * dim];
                let (used, unused) = panel.split_at_mut(len * PANEL);
                for (row, z) in used.chunks_exact_mut(PANEL).zip(z.chunks_exact(dim)) {
                    row[..width].copy_from_slice(&z[p * PANEL..][..width]);
                    row[width..].fill(0.0);
                }
                unused.fill(0.0);
            }
        })
    }

    fn new(blocks: Blocks, panels: usize, rows: usize) -> Packed {
        let panel = rows * PANEL;
        let block = panels * panel;
        Packed { values: scratch::take(blocks.count() * block), block, panel }
    }

    fn fill(mut self, cpu: &Cpu, blocks: Blocks, fill: impl Fn(usize, usize, &mut [f32]) + Sync) -> Packed {
        cpu.threads.run_chunks(&mut self.values, self.block, |block, values| {
            let (first, len) = blocks.range(block);
            fill(first, len, values);
        });
        self
    }

    /// A view of all panels, for threads to share.
    pub fn panels(&self) -> Panels<'_> {
        Panels { values: &self.values, block: self.block, panel: self.panel }
    }
}

/// The panels of all blocks.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    values: &'a [f32],
    block: usize,
    panel: usize,
}

impl<'a> Panels<'a> {
    /// The panels of a block.
    pub fn of(self, block: usize) -> std::slice::ChunksExact<'a, f32> {
        self.values[block * self.block..][..self.block].chunks_exact(self.panel)
    }
}
