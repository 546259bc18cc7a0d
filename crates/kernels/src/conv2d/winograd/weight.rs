//! The gradient of the weights, by the adjoint transforms: with `V` the transformed input tiles and `Z` the transformed
//! gradients of the output, 36 matrices of sums over all tiles of `Z * V`, transformed to 3 x 3 once at the end.
//!
//! The work is cut as in the direct form, into blocks of input and output channels, times parts of the tiles, whose
//! results are added in order. A unit transforms the tiles of its own channels, a group at a time.

use super::tiles::{self, PRODUCTS, SIDE, Tiles};
use super::transform::{Input, OutputGradient, WeightGradient, plane};
use crate::conv2d::blocks::{Block, Blocks};
use crate::conv2d::images::Images;
use crate::conv2d::outer::{self, Tiled, Walk};
use crate::simd::{Kernel, Simd, dispatch};
use crate::{Conv2dGeometry, Cpu, Element, scratch};

/// Input and output channels in a block.
const BLOCK: usize = 128;
/// Units of work to aim for.
const UNITS: usize = 32;
/// The fewest tiles in a part: with fewer, the transforms at its end would cost too much in proportion.
const PART: usize = 96;

struct Plan {
    g: Conv2dGeometry,
    tiles: Tiles,
    parts: usize,
    blocks: Blocks,
}

impl Plan {
    fn new(g: &Conv2dGeometry) -> Plan {
        let even = |channels: usize| channels.div_ceil(channels.div_ceil(BLOCK));
        let blocks = Blocks::new(g, even(g.in_channels), even(g.out_channels));
        let tiles = Tiles::new(g.batch, &Images::output(g));
        let parts = UNITS.div_ceil(blocks.count()).min(tiles.len() / PART).max(1);
        Plan { g: *g, tiles, parts, blocks }
    }

    /// How many tiles to process together.
    fn group(&self) -> usize {
        if self.blocks.in_block + self.blocks.out_block > 128 { 96 } else { 48 }
    }
}

/// See [`crate::conv2d::conv2d_backward_weight`].
pub fn backward_weight<E: Element>(cpu: &Cpu, g: &Conv2dGeometry, x: &[E], dy: &[E], dw: &mut [f32]) {
    let plan = Plan::new(g);
    let blocks = plan.blocks;
    let unit_len = blocks.in_block * blocks.out_block * 9;
    let mut results = scratch::take(plan.parts * blocks.count() * unit_len);
    cpu.threads.run_chunks(&mut results, unit_len, |unit, result| {
        let part = unit / blocks.count();
        let tiles = plan.tiles.len();
        dispatch(
            cpu.isa,
            Unit {
                plan: &plan,
                block: blocks.get(unit % blocks.count()),
                first: part * tiles / plan.parts,
                end: (part + 1) * tiles / plan.parts,
                x,
                dy,
                result,
            },
        );
    });
    let results = &results[..];
    // One output channel at a time: gathers (tap, input channel) from all input blocks and adds the parts in order.
    cpu.threads.run_chunks(dw, 9 * g.in_channels, |k, dw| {
        for b in 0..blocks.of_inputs() {
            let index = k / blocks.out_block * blocks.of_inputs() + b;
            let block = blocks.get(index);
            let row = 9 * block.in_channels;
            for part in 0..plan.parts {
                let unit = part * blocks.count() + index;
                let from = &results[unit * unit_len + k % blocks.out_block * row..][..row];
                for tap in 0..9 {
                    let to = &mut dw[tap * g.in_channels + block.first_in..][..block.in_channels];
                    let from = &from[tap * block.in_channels..][..block.in_channels];
                    if part == 0 {
                        to.copy_from_slice(from);
                    } else {
                        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                    }
                }
            }
        }
    });
}

/// One block, summed over tiles `first..end`; `result` is (output channel, tap, input channel).
struct Unit<'a, E> {
    plan: &'a Plan,
    block: Block,
    first: usize,
    end: usize,
    x: &'a [E],
    dy: &'a [E],
    result: &'a mut [f32],
}

impl<E: Element> Kernel for Unit<'_, E> {
    type Output = ();
    const BF16: bool = E::BF16;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let tile = outer::best_tile(self.block.out_channels, self.block.in_channels, S::LANES);
        outer::with_tile(simd, tile, self);
    }
}

/// Unused numbers after each transformed tile: tiles a power of two apart would fall into the same few cache sets.
const GAP: usize = 16;

/// The length of a product's row of output channels, with room for a register tile to reach beyond the last.
fn gradient_row(out_channels: usize) -> usize {
    [32, 48, 80].into_iter().find(|row| out_channels + 16 <= *row).unwrap_or(BLOCK + 16)
}

impl<E: Element> Tiled for Unit<'_, E> {
    #[inline(always)]
    fn run<S: Simd, const P: usize, const NV: usize>(self, simd: S) {
        let block = self.block;
        let (out_tiles, in_tiles) =
            (block.out_channels.div_ceil(P), block.in_channels.div_ceil(NV * S::LANES));
        let tile_len = P * NV * S::LANES;
        let sums_plane = out_tiles * in_tiles * tile_len;
        let mut sums = scratch::take(PRODUCTS * sums_plane);
        let most = self.plan.group().min(self.end - self.first);
        // Inputs: (tile, block of NV vectors, product, channel). Gradients: (tile, product, channel).
        let x_tile = in_tiles * PRODUCTS * NV * S::LANES + GAP;
        let row = gradient_row(block.out_channels);
        let dy_tile = PRODUCTS * row + GAP;
        let mut inputs = scratch::take(most * x_tile);
        let mut gradients = scratch::take(most * dy_tile);
        let groups = (self.end - self.first).div_ceil(most);
        for group in 0..groups {
            let tiles = self.end - self.first;
            let first = self.first + group * tiles / groups;
            let count = self.first + (group + 1) * tiles / groups - first;
            self.transform_input::<S, NV>(simd, first, count, x_tile, &mut inputs);
            match row {
                32 => self.transform_gradient::<S, 32>(simd, first, count, dy_tile, &mut gradients),
                48 => self.transform_gradient::<S, 48>(simd, first, count, dy_tile, &mut gradients),
                80 => self.transform_gradient::<S, 80>(simd, first, count, dy_tile, &mut gradients),
                _ => self.transform_gradient::<S, 144>(simd, first, count, dy_tile, &mut gradients),
            }
            assert!(count <= most && out_tiles * P <= row);
            for product in 0..PRODUCTS {
                // A tile's inputs stay in the first-level cache while all output channels pass by.
                for in_tile in 0..in_tiles {
                    for out_tile in 0..out_tiles {
                        let index = (product * out_tiles + out_tile) * in_tiles + in_tile;
                        let walk = Walk {
                            x: inputs[(in_tile * PRODUCTS + product) * NV * S::LANES..].as_ptr(),
                            image: 0,
                            line: 0,
                            pixel: x_tile,
                            images: 1,
                            rows: 1,
                            columns: count,
                            dy: gradients[product * row + out_tile * P..].as_ptr(),
                            dy_pixel: dy_tile,
                        };
                        let sums = &mut sums[index * tile_len..][..tile_len];
                        // SAFETY: tiles of `inputs` hold all vectors of `in_tiles`, those of `gradients` P numbers for
                        // each of `out_tiles` (the assertion), and there are `count` tiles of both; `sums` has a tile.
                        unsafe { outer::tile::<S, f32, P, NV>(simd, &walk, sums.as_mut_ptr(), group > 0) }
                    }
                }
            }
        }
        self.finish::<S, P, NV>(simd, &sums, sums_plane);
    }
}

impl<E: Element> Unit<'_, E> {
    #[inline(always)]
    fn transform_input<S: Simd, const NV: usize>(
        &self,
        simd: S,
        first: usize,
        count: usize,
        x_tile: usize,
        inputs: &mut [f32],
    ) {
        let shape = Images::input(&self.plan.g);
        let padding = self.plan.g.padding as isize;
        let channels = self.block.in_channels;
        let width = NV * S::LANES;
        assert!(inputs.len() >= count * x_tile && x_tile >= channels.next_multiple_of(width) * PRODUCTS);
        let mut zeros = scratch::take(shape.channels);
        zeros.fill(E::default());
        for t in 0..count {
            let (image, h, w) = self.plan.tiles.place(first + t);
            let first = (image, h - padding, w - padding);
            let pixels = tiles::sources::<E, 6>(self.x, &shape, first, &zeros);
            let chosen = self.block.first_in..self.block.first_in + channels;
            tiles::prefetch_below::<S, E, 6>(simd, self.x, &shape, first, chosen);
            for channel in (0..channels).step_by(S::LANES) {
                let lanes = S::LANES.min(channels - channel);
                let at = t * x_tile + channel / width * PRODUCTS * width + channel % width;
                // SAFETY: a pixel has at least `first_in + in_channels` channels; the assertion covers the writes.
                unsafe {
                    let d = tiles::load(simd, &pixels, self.block.first_in + channel, lanes);
                    let v = plane::<S, Input, 6, 6>(simd, &d);
                    tiles::store_products(simd, &v, inputs.as_mut_ptr().add(at), width);
                }
            }
        }
    }

    #[inline(always)]
    fn transform_gradient<S: Simd, const ROW: usize>(
        &self,
        simd: S,
        first: usize,
        count: usize,
        dy_tile: usize,
        gradients: &mut [f32],
    ) {
        let shape = Images::output(&self.plan.g);
        let channels = self.block.out_channels;
        assert!(gradients.len() >= count * dy_tile && dy_tile >= PRODUCTS * ROW);
        assert!(channels.next_multiple_of(S::LANES) <= ROW);
        let mut zeros = scratch::take(shape.channels);
        zeros.fill(E::default());
        for t in 0..count {
            let place = self.plan.tiles.place(first + t);
            let pixels = tiles::sources::<E, SIDE>(self.dy, &shape, place, &zeros);
            let chosen = self.block.first_out..self.block.first_out + channels;
            tiles::prefetch_below::<S, E, SIDE>(simd, self.dy, &shape, place, chosen);
            for channel in (0..channels).step_by(S::LANES) {
                let lanes = S::LANES.min(channels - channel);
                // SAFETY: a pixel has at least `first_out + out_channels` channels; the assertions cover the writes.
                unsafe {
                    let dy = tiles::load(simd, &pixels, self.block.first_out + channel, lanes);
                    let z = plane::<S, OutputGradient, 4, 6>(simd, &dy);
                    tiles::store_products(simd, &z, gradients.as_mut_ptr().add(t * dy_tile + channel), ROW);
                }
            }
        }
    }

    /// Transforms the sums to 3 x 3.
    #[inline(always)]
    fn finish<S: Simd, const P: usize, const NV: usize>(self, simd: S, sums: &[f32], sums_plane: usize) {
        let (channels, width) = (self.block.in_channels, NV * S::LANES);
        let in_tiles = channels.div_ceil(width);
        assert!(sums.len() >= PRODUCTS * sums_plane);
        assert!(self.block.out_channels.div_ceil(P) * in_tiles * P * width <= sums_plane);
        for (k, result) in self.result.chunks_mut(9 * channels).take(self.block.out_channels).enumerate() {
            assert_eq!(result.len(), 9 * channels);
            for channel in (0..channels).step_by(S::LANES) {
                let tile = k / P * in_tiles + channel / width;
                let at = (tile * P + k % P) * width + channel % width;
                let lanes = S::LANES.min(channels - channel);
                // SAFETY: the vector lies in tile `tile` of each product, by the assertions; `result` has 9 rows of
                // `channels >= channel + lanes` numbers.
                unsafe {
                    let u = tiles::load_products(simd, sums.as_ptr().add(at), sums_plane);
                    let g = plane::<S, WeightGradient, 6, 3>(simd, &u);
                    for r in 0..3 {
                        for s in 0..3 {
                            let to = result.as_mut_ptr().add((r * 3 + s) * channels + channel);
                            simd.store_first(to, g[r][s], lanes);
                        }
                    }
                }
            }
        }
    }
}
