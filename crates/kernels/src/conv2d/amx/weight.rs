//! The gradient of the weights: output channels are the rows of the tiles, a kernel row's taps and input channels their
//! columns, and the sums go over places of the lattice.
//!
//! The result is cut into blocks, and the images into parts, as in `super::super::direct_weight`: a unit of work is one
//! block over one part. Both factors join two images, the same pixel and channel of both in a pair, so that x needs no
//! transposition; dy is transposed, 16 places of 16 channels at a time, with zeros at places that are no pixel.

use super::super::blocks::{Block, Blocks};
use super::super::class::Class;
use super::super::direct_weight::UNITS;
use super::super::images::{self, Cut, Images, Piece};
use super::lattice::{Columns, Lattice, NOWHERE};
use super::pack::TILE;
use super::stacked_weight;
use crate::shared::SharedMut;
use crate::simd::amx::{Amx, ROW, SIDE, Side, Tiles, transpose};
use crate::simd::first_lanes;
use crate::{Conv2dGeometry, Cpu, Element, scratch};
use std::arch::x86_64::*;
use std::ops::Range;

/// About the most sums to hold, unless a single part has more.
const SUMS: usize = 4 << 20;
/// How many pixels to prefetch ahead of copying: 64 bytes of each of two images are too short for the hardware's own
/// prefetching.
const AHEAD: usize = 6;
/// About the pixels of a piece: both of its copies stay in the second-level cache.
const PIXELS: usize = 512;
/// Steps of 16 places whose products are added to the sums at a time: dy's tiles of a chunk stay in the first-level
/// cache while all taps and input channels pass by.
const CHUNK: usize = 8;
/// Input channels that lie beside each other in the copy of x: with more, the rows of a tile would be so far apart,
/// often by a power of two, that they evict each other from the first-level cache.
const GROUP: usize = 4 * SIDE;

/// The cut of the work, which depends on the geometry alone.
struct Plan {
    /// The geometry, with pairs of images as its batch.
    g: Conv2dGeometry,
    class: Class,
    cut: Cut,
    /// Number of parts into which the pieces are cut.
    parts: usize,
    blocks: Blocks,
}

impl Plan {
    fn new(g: &Conv2dGeometry) -> Plan {
        let g = Conv2dGeometry { batch: g.batch.div_ceil(2), ..*g };
        // The copy of a block's input channels is repeated for each block of output channels, and repays most where
        // many taps use it.
        let (in_most, out_most) = if g.kernel_width == 1 { (256, 256) } else { (256, 128) };
        let in_block = g.in_channels.div_ceil(g.in_channels.div_ceil(in_most));
        let blocks = Blocks::new(&g, in_block, out_most);
        let cut = Cut::new(g.batch, g.out_height(), g.out_width(), PIXELS);
        let parts = UNITS.div_ceil(blocks.count()).min(cut.pieces()).min(SUMS.div_ceil(g.weight_len()));
        Plan { class: Class::forward(&g), g, cut, parts, blocks }
    }

    /// The tiles beside each other in a kernel row's run of taps and `channels` input channels of a group.
    fn run_tiles(&self, channels: usize) -> usize {
        (self.g.kernel_width * channels).div_ceil(SIDE)
    }

    /// The tiles of a kernel row in the first `channels` input channels of a block, which are whole groups or all.
    fn row_tiles(&self, channels: usize) -> usize {
        channels / GROUP * self.run_tiles(GROUP) + self.run_tiles(channels % GROUP)
    }

    /// The tiles of a block's output channels, in twos.
    fn out_tiles(&self) -> usize {
        self.blocks.out_block.div_ceil(2 * SIDE) * 2
    }

    /// The length of a unit's sums: (tile of output channels, kernel row, group of input channels, tile of the run,
    /// output channel, number).
    fn sums_len(&self) -> usize {
        self.out_tiles() * self.g.kernel_height * self.row_tiles(self.blocks.in_block) * TILE
    }
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
    if stacked_weight::pays(g) {
        return stacked_weight::backward_weight(cpu, amx, g, x, dy, dw);
    }
    let plan = Plan::new(g);
    let unit_len = plan.sums_len();
    let mut sums = scratch::take(plan.parts * plan.blocks.count() * unit_len);
    cpu.threads.run_chunks(&mut sums, unit_len, |unit, sums| {
        let part = unit / plan.blocks.count();
        let block = plan.blocks.get(unit % plan.blocks.count());
        let unit = Unit { amx, plan: &plan, block, x, dy };
        for (i, index) in plan.cut.part(part, plan.parts).enumerate() {
            // SAFETY: this form is chosen for processors with AMX, which have AVX-512.
            unsafe { unit.piece(&plan.cut.piece(index), sums, i > 0) };
        }
    });
    let sums = &sums[..];
    let dw = SharedMut::new(dw);
    let out_tiles = plan.out_tiles();
    cpu.threads.run(plan.blocks.count() * out_tiles, |index| {
        let (block, tile) = (index / out_tiles, index % out_tiles);
        let parts = sums.chunks_exact(unit_len).skip(block).step_by(plan.blocks.count());
        cpu.isa.vectorize(
            #[inline(always)]
            || unpack(&plan, &plan.blocks.get(block), tile, parts, dw),
        );
    });
}

/// Adds a block's sums for one tile of output channels over all parts, in order, and writes them to their places in
/// `dw`.
#[inline(always)]
fn unpack<'s>(
    plan: &Plan,
    block: &Block,
    out_tile: usize,
    parts: impl Iterator<Item = &'s [f32]> + Clone,
    dw: SharedMut<f32>,
) {
    let g = &plan.g;
    let row_tiles = plan.row_tiles(block.in_channels);
    let rows = block.out_channels.saturating_sub(out_tile * SIDE).min(SIDE);
    for r in 0..g.kernel_height {
        for group in groups(block) {
            let len = group.len();
            for run in 0..plan.run_tiles(len) {
                let index = (out_tile * g.kernel_height + r) * row_tiles + plan.row_tiles(group.start) + run;
                let mut total = [0.0; TILE];
                for part in parts.clone() {
                    total.iter_mut().zip(&part[index * TILE..]).for_each(|(total, sum)| *total += sum);
                }
                for (row, sums) in total.chunks_exact(SIDE).take(rows).enumerate() {
                    let k = block.first_out + out_tile * SIDE + row;
                    let mut done = 0;
                    while done < SIDE {
                        let at = run * SIDE + done;
                        let (s, c) = (at / len, at % len);
                        if s == g.kernel_width {
                            break;
                        }
                        let here = (len - c).min(SIDE - done);
                        let tap = (k * g.kernel_height + r) * g.kernel_width + s;
                        let to = tap * g.in_channels + block.first_in + group.start + c;
                        // SAFETY: blocks are disjoint in (output channel, input channel), their tiles in the output
                        // channel, and each has one writer.
                        let dw = unsafe { dw.slice(to, here) };
                        dw.copy_from_slice(&sums[done..done + here]);
                        done += here;
                    }
                }
            }
        }
    }
}

/// The groups of a block's input channels.
fn groups(block: &Block) -> impl Iterator<Item = Range<usize>> {
    let channels = block.in_channels;
    (0..channels).step_by(GROUP).map(move |first| first..(first + GROUP).min(channels))
}

/// One block of the result.
struct Unit<'a, E> {
    amx: Amx,
    plan: &'a Plan,
    block: Block,
    x: &'a [E],
    dy: &'a [E],
}

impl<E: Element> Unit<'_, E> {
    /// Adds the products of a piece's pixels to the sums if `resume`, else overwrites the sums with them.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    fn piece(&self, piece: &Piece, sums: &mut [f32], resume: bool) {
        let (plan, g, block) = (self.plan, &self.plan.g, &self.block);
        let (input, output) = (Images::input(g), Images::output(g));
        let (x, dy) = (images::of_units(self.x, &input, piece), images::of_units(self.dy, &output, piece));
        let lattice =
            |channels| Lattice::new(&plan.class.taps, g.stride, &input, piece, output.width, channels);
        // Places are multiplied in whole tiles.
        let steps = lattice(1).places().div_ceil(SIDE);
        let mut gradients = scratch::take::<f32>(plan.out_tiles() * steps * TILE);
        transposed(dy, &output, block, piece, &lattice(1), &mut gradients);
        // SAFETY: the only tiles of this thread, which does nothing else while they live.
        let mut tiles = unsafe { Tiles::new(self.amx) };
        for group in groups(block) {
            let lattice = lattice(group.len());
            // So are runs, two tiles at a time.
            let slack = SIDE * lattice.pitch() + 2 * SIDE;
            let mut copy = scratch::take::<f32>(lattice.len() + slack);
            let (inside, beyond) = copy.split_at_mut(lattice.len());
            beyond.fill(0.0);
            let chosen = block.first_in + group.start..block.first_in + group.end;
            lattice.fill(&input, piece, inside, |pair, row, columns, to| {
                let at = 2 * pair * input.len() + row * input.width * input.channels;
                let second = x.get(at + input.len()..).filter(|second| !second.is_empty());
                join_columns(&x[at..], second, input.channels, &chosen, columns, to);
            });
            for begin in (0..steps).step_by(CHUNK) {
                let chunk = begin..steps.min(begin + CHUNK);
                self.products(&mut tiles, &gradients, &copy, &lattice, &group, chunk, sums, resume);
            }
        }
    }

    /// Adds the products of the places in a `chunk` of steps, for a group of input channels, of which `copy` is the
    /// lattice. The first chunk overwrites the sums unless it is to `resume`.
    #[inline(always)]
    fn products(
        &self,
        tiles: &mut Tiles,
        gradients: &[f32],
        copy: &[f32],
        lattice: &Lattice,
        group: &Range<usize>,
        chunk: Range<usize>,
        sums: &mut [f32],
        resume: bool,
    ) {
        let (plan, block, height) = (self.plan, &self.block, self.plan.g.kernel_height);
        let (begin, steps) = (chunk.start, chunk.len());
        let pitch = lattice.pitch();
        let offsets = lattice.offsets(&plan.class.taps);
        let row_tiles = plan.row_tiles(block.in_channels);
        let run_tiles = plan.run_tiles(group.len());
        let resume = resume || begin > 0;
        // From a tile of output channels to the next.
        let (dy_below, below) = (gradients.len() / plan.out_tiles(), height * row_tiles * TILE);
        for out_tile in (0..block.out_channels.div_ceil(SIDE)).step_by(2) {
            let dy = &gradients[out_tile * dy_below..][..2 * dy_below][begin * TILE..];
            assert!(dy.len() >= dy_below + steps * TILE, "dy has two tiles for each step");
            let a = Side { start: dy.as_ptr().cast(), pitch: ROW, neighbour: 4 * dy_below, step: 4 * TILE };
            for (r, run) in (0..height).flat_map(|r| (0..run_tiles).step_by(2).map(move |run| (r, run))) {
                let columns = (run_tiles - run).min(2);
                let first = offsets[r * plan.g.kernel_width] + run * SIDE + begin * SIDE * pitch;
                let end = first + (steps * SIDE - 1) * pitch + columns * SIDE;
                assert!(end <= copy.len(), "a piece reads {end} pairs of {}", copy.len());
                let b = Side {
                    start: copy[first..].as_ptr().cast(),
                    pitch: 4 * pitch,
                    neighbour: ROW,
                    step: 4 * SIDE * pitch,
                };
                let row = out_tile * height + r;
                let sums = &mut sums[(row * row_tiles + plan.row_tiles(group.start) + run) * TILE..];
                assert!(sums.len() >= below + columns * TILE, "the block has two rows of tiles of sums");
                let sums = sums.as_mut_ptr();
                // SAFETY: the assertions cover both sides and the sums.
                unsafe {
                    match columns {
                        2 => add::<2>(tiles, a, b, steps, sums, below, resume),
                        _ => add::<1>(tiles, a, b, steps, sums, below, resume),
                    }
                }
            }
        }
    }
}

/// Adds products of `steps` tiles to 2 x `N` tiles of `sums` if `resume`, else overwrites these with them.
///
/// # Safety
///
/// Those of [`Tiles::multiply`] and, with `below`, of [`Tiles::save`].
#[inline(always)]
unsafe fn add<const N: usize>(
    tiles: &mut Tiles,
    a: Side,
    b: Side,
    steps: usize,
    sums: *mut f32,
    below: usize,
    resume: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if resume {
            tiles.load::<N>(sums, below);
        } else {
            tiles.clear();
        }
        tiles.multiply::<N>(a, b, steps);
        tiles.save::<N>(sums, below);
    }
}

/// Joins the `chosen` of the `channels` input channels in columns of a row of two images, whose pixels begin `first`
/// and `second`.
#[inline(always)]
fn join_columns<E: Element>(
    first: &[E],
    second: Option<&[E]>,
    channels: usize,
    chosen: &Range<usize>,
    columns: &Columns,
    to: &mut [f32],
) {
    let len = chosen.len();
    let start = columns.first * channels + chosen.start;
    if columns.step == 1 && len == channels {
        let len = to.len();
        return images::join(&first[start..][..len], second.map(|second| &second[start..][..len]), to);
    }
    for (i, to) in to.chunks_exact_mut(len).enumerate() {
        let at = start + i * columns.step * channels;
        for from in [Some(first), second].into_iter().flatten() {
            let ahead = from.as_ptr().wrapping_add(at + AHEAD * columns.step * channels);
            // SAFETY: a prefetch of any address is harmless.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) };
        }
        images::join(&first[at..][..len], second.map(|second| &second[at..][..len]), to);
    }
}

/// Writes the block's output channels of dy as (tile of channels, 16 places, channel, place), pairs of two images, with
/// zeros at places that are no pixel and channels beyond the block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn transposed<E: Element>(
    dy: &[E],
    shape: &Images,
    block: &Block,
    piece: &Piece,
    lattice: &Lattice,
    to: &mut [f32],
) {
    let steps = lattice.places().div_ceil(SIDE);
    let mut at = scratch::take::<usize>(steps * SIDE);
    lattice.map(&mut at, NOWHERE, |n, i, j| {
        let pixel = (piece.row + i) * shape.width + j;
        2 * n * shape.len() + pixel * shape.channels + block.first_out
    });
    let tiles = to.len() / (steps * TILE);
    // Pixels are read in the order of memory.
    for (step, places) in at.as_chunks::<SIDE>().0.iter().enumerate() {
        for tile in 0..tiles {
            let to = &mut to[(tile * steps + step) * TILE..][..TILE];
            let first = tile * SIDE;
            let channels = block.out_channels.saturating_sub(first).min(SIDE);
            transposed_tile(&dy[first.min(dy.len())..], places, shape.len(), channels, to);
        }
    }
}

/// Writes `channels` channels, at most 16, of 16 places of dy as (channel, place): each the pair of the value at the
/// place and of that `second` further on, or 0 where there is none. A place may be [`NOWHERE`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub fn transposed_tile<E: Element>(
    dy: &[E],
    places: &[usize; SIDE],
    second: usize,
    channels: usize,
    to: &mut [f32],
) {
    let mask = first_lanes(channels);
    let values = |place: usize| {
        let known: Option<&[E]> = dy.get(place..place + channels);
        match known {
            // SAFETY: `known` has as many values of 16 bits as the mask lets through.
            Some(known) => unsafe { _mm256_maskz_loadu_epi16(mask, known.as_ptr().cast()) },
            None => _mm256_setzero_si256(),
        }
    };
    let mut rows = [_mm512_setzero_ps(); SIDE];
    for (row, &place) in rows.iter_mut().zip(places) {
        if place == NOWHERE {
            continue;
        }
        let low = _mm512_cvtepu16_epi32(values(place));
        let high = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(values(place + second)));
        *row = _mm512_castsi512_ps(_mm512_or_si512(low, high));
    }
    // SAFETY: AVX-512 F is enabled.
    let columns = unsafe { transpose(rows) };
    for (to, column) in to.as_chunks_mut::<SIDE>().0.iter_mut().zip(columns) {
        // SAFETY: `to` has 16 numbers.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), column) };
    }
}
