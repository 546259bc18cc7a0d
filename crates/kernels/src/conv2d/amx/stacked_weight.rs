//! The gradient of the weights of small images: the sums of a product of tiles go over one pixel of 32 images.
//!
//! Each tap has the products of those output pixels that it gives a source pixel, and no others (see
//! [`super::stacked`]). Both factors join two images, as in [`super::weight`]; dy's rows are output channels, x's
//! columns input channels. The sums of all taps of a kernel row, for two tiles of output channels, stay in registers
//! while all images of a piece pass by.

use super::super::blocks::{Block, Blocks};
use super::super::class::Class;
use super::super::direct_weight::UNITS;
use super::super::images::{self, Images, Piece};
use super::in_rows;
use super::lattice::{Lattice, NOWHERE};
use super::pack::TILE;
use super::weight::transposed_tile;
use crate::shared::SharedMut;
use crate::simd::amx::{Amx, Rows, SIDE, Tiles};
use crate::{Conv2dGeometry, Cpu, Element, scratch};

/// Images that a product sums over.
const STACK: usize = 2 * SIDE;
/// Output channels that share registers.
const OUT_PAIR: usize = 2 * SIDE;
/// Input and output channels in a block.
const IN_BLOCK: usize = 128;
const OUT_BLOCK: usize = 64;
/// About the most values of a block's copies that are read again and again: they stay in the second-level cache.
const NEAR: usize = 256 << 10;
/// About the most values of all copies.
const COPIES: usize = 4 << 20;
/// Channels that are copied at a time.
const COPIED: usize = 128;

/// Whether this form is the faster, which depends on the geometry alone.
pub fn pays(g: &Conv2dGeometry) -> bool {
    let class = Class::forward(g);
    if !in_rows(&class) || !g.in_channels.is_multiple_of(SIDE) || Plan::new(g).near == 0 {
        return false;
    }
    // The products for a batch, each of 32 images here, and of 16 places of two images on the lattice. Unless they are
    // much fewer, they are not worth reading the copies again for each block.
    let many = Piece { image: 0, images: SIDE, row: 0, rows: g.out_height() };
    let lattice = Lattice::new(&class.taps, g.stride, &Images::input(g), &many, g.out_width(), 1);
    let here = class.meetings() * g.batch.div_ceil(STACK);
    let there = lattice.places() * class.taps.len() * g.batch / (SIDE * STACK);
    10 * here < 7 * there
}

/// The cut of the work, which depends on the geometry alone.
struct Plan {
    g: Conv2dGeometry,
    blocks: Blocks,
    /// The copies of dy and x for a stack, (tile of channels, pixel, 16 x 16 pairs of images).
    dy: Copy,
    x: Copy,
    /// Stacks in all, those that are copied at a time, and those whose copies stay near.
    stacks: usize,
    together: usize,
    near: usize,
    /// Number of parts into which the stacks that are copied at a time are cut.
    parts: usize,
}

/// The shape of a copy for a stack.
#[derive(Clone, Copy)]
struct Copy {
    from: Images,
    tiles: usize,
}

impl Copy {
    fn pixels(&self) -> usize {
        self.from.height * self.from.width
    }

    /// The length of a tile of channels.
    fn tile_len(&self) -> usize {
        self.pixels() * TILE
    }

    fn len(&self) -> usize {
        self.tiles * self.tile_len()
    }
}

impl Plan {
    fn new(g: &Conv2dGeometry) -> Plan {
        let dy = Copy { from: Images::output(g), tiles: out_tiles(g.out_channels) };
        let x = Copy { from: Images::input(g), tiles: g.in_channels.div_ceil(SIDE) };
        let blocks = Blocks::new(g, IN_BLOCK, OUT_BLOCK);
        let block_len =
            out_tiles(blocks.out_block) * dy.tile_len() + blocks.in_block.div_ceil(SIDE) * x.tile_len();
        let stacks = g.batch.div_ceil(STACK);
        let together = (COPIES / (dy.len() + x.len())).clamp(1, stacks);
        let parts = UNITS.div_ceil(blocks.count()).min(together);
        Plan { g: *g, blocks, dy, x, stacks, together, near: NEAR / block_len, parts }
    }

    /// The length of the sums of two tiles of output channels, 16 input channels and a kernel row, (tap, tile).
    fn row_sums_len(&self) -> usize {
        self.g.kernel_width * 2 * TILE
    }

    /// The length of a unit's sums: (two tiles of output channels, 16 input channels, kernel row, tap, tile).
    fn sums_len(&self) -> usize {
        let (out_tiles, in_tiles) = (out_tiles(self.blocks.out_block), self.blocks.in_block.div_ceil(SIDE));
        out_tiles / 2 * in_tiles * self.g.kernel_height * self.row_sums_len()
    }
}

/// The tiles of some output channels, in twos.
fn out_tiles(channels: usize) -> usize {
    channels.div_ceil(OUT_PAIR) * 2
}

/// See [`super::super::conv2d_backward_weight`].
pub fn backward_weight<E: Element>(
    cpu: &Cpu,
    amx: Amx,
    g: &Conv2dGeometry,
    x: &[E],
    dy: &[E],
    dw: &mut [f32],
) {
    let plan = &Plan::new(g);
    let unit_len = plan.sums_len();
    let mut sums = scratch::take(plan.parts * plan.blocks.count() * unit_len);
    let mut dy_copy = scratch::take::<f32>(plan.together * plan.dy.len());
    let mut x_copy = scratch::take::<f32>(plan.together * plan.x.len());
    for first in (0..plan.stacks).step_by(plan.together) {
        let stacks = plan.together.min(plan.stacks - first);
        copy(cpu, &plan.dy, stacks, &mut dy_copy, |stack, channel, to| {
            // SAFETY: this form is chosen for processors with AMX, which have AVX-512.
            unsafe { copy_dy(dy, &plan.dy, (first + stack) * STACK, channel, to) }
        });
        copy(cpu, &plan.x, stacks, &mut x_copy, |stack, channel, to| {
            // SAFETY: as above.
            unsafe { copy_x(x, &plan.x, (first + stack) * STACK, channel, to) }
        });
        let (dy, x) = (&dy_copy[..stacks * plan.dy.len()], &x_copy[..stacks * plan.x.len()]);
        cpu.threads.run_chunks(&mut sums, unit_len, |unit, sums| {
            let part = unit / plan.blocks.count();
            let block = plan.blocks.get(unit % plan.blocks.count());
            let stacks = part * stacks / plan.parts..(part + 1) * stacks / plan.parts;
            let dy = &dy[stacks.start * plan.dy.len()..stacks.end * plan.dy.len()];
            let x = &x[stacks.start * plan.x.len()..stacks.end * plan.x.len()];
            // SAFETY: as above.
            unsafe { Unit { amx, plan, block, x, dy }.run(sums, first > 0) };
        });
    }
    let sums = &sums[..];
    let dw = SharedMut::new(dw);
    let rows_in_block = unit_len / plan.row_sums_len();
    cpu.threads.run(plan.blocks.count() * rows_in_block, |index| {
        let (block, row) = (index / rows_in_block, index % rows_in_block);
        let parts = sums.chunks_exact(unit_len).skip(block).step_by(plan.blocks.count());
        cpu.isa.vectorize(
            #[inline(always)]
            || unpack(plan, &plan.blocks.get(block), row, parts, dw),
        );
    });
}

/// Lets `work` copy channels of a stack, (stack, first channel, values), for all stacks and channels.
fn copy(
    cpu: &Cpu,
    shape: &Copy,
    stacks: usize,
    to: &mut [f32],
    work: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let tiles = COPIED / SIDE;
    let in_stack = shape.tiles.div_ceil(tiles);
    let to = SharedMut::new(to);
    cpu.threads.run(stacks * in_stack, |index| {
        let (stack, first) = (index / in_stack, index % in_stack * tiles);
        let tiles = tiles.min(shape.tiles - first);
        // SAFETY: each of these ranges belongs to one call.
        let to =
            unsafe { to.slice(stack * shape.len() + first * shape.tile_len(), tiles * shape.tile_len()) };
        work(stack, first * SIDE, to);
    });
}

/// Copies channels of dy from `channel` on for the stack that begins with `image`, transposed: (tile of channels,
/// pixel, channel, pair of images), zeros for missing channels and images.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn copy_dy<E: Element>(dy: &[E], shape: &Copy, image: usize, channel: usize, to: &mut [f32]) {
    let (len, channels) = (shape.from.len(), shape.from.channels);
    for pixel in 0..shape.pixels() {
        let places = std::array::from_fn(|pair| {
            let place = (image + 2 * pair) * len + pixel * channels;
            if place < dy.len() { place } else { NOWHERE }
        });
        for (tile, to) in to.chunks_exact_mut(shape.tile_len()).enumerate() {
            let first = channel + tile * SIDE;
            let known = channels.saturating_sub(first).min(SIDE);
            transposed_tile(&dy[first.min(dy.len())..], &places, len, known, &mut to[pixel * TILE..][..TILE]);
        }
    }
}

/// Copies channels of x from `channel` on for the stack that begins with `image`: (16 channels, pixel, pair of images,
/// channel), zeros for missing images.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn copy_x<E: Element>(x: &[E], shape: &Copy, image: usize, channel: usize, to: &mut [f32]) {
    let mut images = x.chunks_exact(shape.from.len()).skip(image);
    for pair in 0..SIDE {
        let (first, second) = (images.next(), images.next());
        for pixel in 0..shape.pixels() {
            let at = pixel * shape.from.channels + channel;
            for (tile, to) in to.chunks_exact_mut(shape.tile_len()).enumerate() {
                let to = &mut to[pixel * TILE + pair * SIDE..][..SIDE];
                let Some(first) = first else {
                    to.fill(0.0);
                    continue;
                };
                let from = at + tile * SIDE;
                images::join(&first[from..][..SIDE], second.map(|second| &second[from..][..SIDE]), to);
            }
        }
    }
}

/// Adds the sums number `row` of a block, those of a kernel row, over all parts, in order, and writes them to their
/// places in `dw`.
#[inline(always)]
fn unpack<'s>(
    plan: &Plan,
    block: &Block,
    row: usize,
    parts: impl Iterator<Item = &'s [f32]> + Clone,
    dw: SharedMut<f32>,
) {
    let g = &plan.g;
    let in_tiles = plan.blocks.in_block.div_ceil(SIDE);
    let (r, tiles) = (row % g.kernel_height, row / g.kernel_height);
    let (in_first, out_first) = (tiles % in_tiles * SIDE, tiles / in_tiles * OUT_PAIR);
    let inputs = block.in_channels.saturating_sub(in_first).min(SIDE);
    let outputs = block.out_channels.saturating_sub(out_first);
    if inputs == 0 {
        return;
    }
    for tile in 0..2 * g.kernel_width {
        let (s, below) = (tile / 2, tile % 2 * SIDE);
        let mut total = [0.0; TILE];
        for part in parts.clone() {
            let from = &part[row * plan.row_sums_len() + tile * TILE..];
            total.iter_mut().zip(from).for_each(|(total, sum)| *total += sum);
        }
        for (k, sums) in total.chunks_exact(SIDE).enumerate().take(outputs.saturating_sub(below)) {
            let k = block.first_out + out_first + below + k;
            let tap = (k * g.kernel_height + r) * g.kernel_width + s;
            // SAFETY: blocks are disjoint in (output channel, input channel), their rows of sums in these and the
            // kernel row, and each has one writer.
            let dw = unsafe { dw.slice(tap * g.in_channels + block.first_in + in_first, inputs) };
            dw.copy_from_slice(&sums[..inputs]);
        }
    }
}

/// One block of the result, and the copies of some stacks.
struct Unit<'a> {
    amx: Amx,
    plan: &'a Plan,
    block: Block,
    dy: &'a [f32],
    x: &'a [f32],
}

impl Unit<'_> {
    /// Adds the products of all stacks to the sums if `resume`, else overwrites the sums with them.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    fn run(&self, sums: &mut [f32], resume: bool) {
        with_row!(self.plan.g.stride, self.plan.g.kernel_width, self.products(sums, resume));
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    fn products<const STEP: usize, const TAPS: usize>(&self, sums: &mut [f32], resume: bool) {
        // SAFETY: the only tiles of this thread, which does nothing else while they live.
        let mut tiles = unsafe { Tiles::new(self.amx) };
        let Plan { g, dy, x, near, .. } = self.plan;
        let rows = Rows { outputs: dy.from.width, inputs: x.from.width, first: -(g.padding as isize) };
        let in_tiles = self.plan.blocks.in_block.div_ceil(SIDE);
        let stacks = self.dy.chunks(near * dy.len()).zip(self.x.chunks(near * x.len()));
        for (near, (dys, xs)) in stacks.enumerate() {
            let resume = resume || near > 0;
            for (index, sums) in sums.chunks_exact_mut(self.plan.row_sums_len()).enumerate() {
                let (r, index) = (index % g.kernel_height, index / g.kernel_height);
                let in_tile = self.block.first_in / SIDE + index % in_tiles;
                let out_tile = self.block.first_out / SIDE + index / in_tiles * 2;
                if in_tile >= x.tiles || out_tile >= dy.tiles {
                    continue;
                }
                if resume {
                    tiles.load_rows::<TAPS>(sums);
                } else {
                    tiles.clear_rows();
                }
                for (dys, xs) in dys.chunks_exact(dy.len()).zip(xs.chunks_exact(x.len())) {
                    let dys = &dys[out_tile * dy.tile_len()..][..2 * dy.tile_len()];
                    let xs = &xs[in_tile * x.tile_len()..][..x.tile_len()];
                    for row in 0..dy.from.height {
                        let outputs = &dys[row * dy.from.width * TILE..];
                        let source = (row * STEP + r).wrapping_sub(g.padding);
                        let inputs = xs.chunks_exact(x.from.width * TILE).nth(source);
                        let Some(inputs) = inputs else { continue };
                        // SAFETY: `outputs` begins with a tile for each output pixel, as does what lies a tile of channels
                        // further on in it; `inputs` has one for each source pixel.
                        unsafe {
                            tiles.correlate_rows::<STEP, TAPS>(
                                outputs.as_ptr().cast(),
                                dy.tile_len() * size_of::<f32>(),
                                inputs.as_ptr().cast(),
                                rows,
                            );
                        }
                    }
                }
                tiles.save_rows::<TAPS>(sums);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{geometry, values};
    use super::*;
    use crate::testing::cpu;
    use crate::{Isa, Level};
    use half::bf16;

    #[test]
    fn batches_too_small_for_a_stack_are_left_to_the_lattice() {
        let stacked = |batch, side| pays(&geometry(batch, side, side, 64, 64, (3, 3), 1, 1));
        assert!(stacked(256, 4) && stacked(32, 7) && stacked(32, 8));
        assert!(!stacked(1, 4) && !stacked(16, 8) && !stacked(33, 8));
        assert!(!stacked(256, 16), "few zeros");
    }

    /// More stacks than are copied at a time, the last round with fewer.
    #[test]
    fn rounds_add_up() {
        let Some(amx) = Amx::of(Isa::detect()) else { return };
        let of = |batch| geometry(batch, 4, 4, 16, 512, (3, 3), 1, 1);
        let g = of(1070);
        let plan = Plan::new(&g);
        assert!(plan.together > plan.near);
        assert!(plan.stacks > plan.together && !plan.stacks.is_multiple_of(plan.together));
        let narrow = |values: Vec<f32>| values.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
        let (x, dy) = (narrow(values(g.input_len(), 1)), narrow(values(g.output_len(), 2)));
        let cpu = cpu(Isa::forced(Level::Amx).unwrap_or(Isa::detect()), 2);
        let weights = |g: &Conv2dGeometry, x: &[bf16], dy: &[bf16]| {
            let mut dw = vec![f32::NAN; g.weight_len()];
            backward_weight(&cpu, amx, g, x, dy, &mut dw);
            dw
        };
        let first = of(plan.together * STACK);
        let rest = of(g.batch - first.batch);
        let apart = [
            weights(&first, &x[..first.input_len()], &dy[..first.output_len()]),
            weights(&rest, &x[first.input_len()..], &dy[first.output_len()..]),
        ];
        for (i, sum) in weights(&g, &x, &dy).into_iter().enumerate() {
            let expected = apart[0][i] + apart[1][i];
            assert!((sum - expected).abs() < 1e-3, "{i}: {sum} and {expected}");
        }
    }
}
