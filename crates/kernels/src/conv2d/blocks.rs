//! Cuts a gradient of the weights into blocks of input and output channels.

use crate::Conv2dGeometry;

/// The blocks, ordered by output channels, then by input channels.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    in_channels: usize,
    out_channels: usize,
    /// Input channels in a block (the last may have fewer).
    pub in_block: usize,
    /// Output channels in a block, likewise.
    pub out_block: usize,
}

/// One block of the gradient.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub first_in: usize,
    pub in_channels: usize,
    pub first_out: usize,
    pub out_channels: usize,
}

impl Blocks {
    /// Cuts into blocks of `in_block` by `out_block` channels, or fewer if the geometry has fewer.
    pub fn new(g: &Conv2dGeometry, in_block: usize, out_block: usize) -> Blocks {
        let Conv2dGeometry { in_channels, out_channels, .. } = *g;
        let (in_block, out_block) = (in_block.min(in_channels), out_block.min(out_channels));
        Blocks { in_channels, out_channels, in_block, out_block }
    }

    /// The number of blocks of input channels.
    pub fn of_inputs(&self) -> usize {
        self.in_channels.div_ceil(self.in_block)
    }

    /// The number of all blocks.
    pub fn count(&self) -> usize {
        self.of_inputs() * self.out_channels.div_ceil(self.out_block)
    }

    /// Block number `index`.
    pub fn get(&self, index: usize) -> Block {
        let first_in = index % self.of_inputs() * self.in_block;
        let first_out = index / self.of_inputs() * self.out_block;
        Block {
            first_in,
            in_channels: self.in_block.min(self.in_channels - first_in),
            first_out,
            out_channels: self.out_block.min(self.out_channels - first_out),
        }
    }
}
