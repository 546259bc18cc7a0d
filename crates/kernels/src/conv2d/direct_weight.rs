//! The direct gradient of the weights: a matrix product that sums over pixels.
//!
//! The result is cut into blocks of input and output channels, and if these are too few for all threads, the pixels
//! are cut as well, into parts whose sums are added in order at the end. A unit of work, one block over one part,
//! goes through its pixels about a hundred at a time: it copies the output channels, and the input channels of the
//! block with the padding around them, so that the taps of a kernel row are one run of S * C numbers; then every tile
//! of output channels by vectors of the run sums over all these pixels.
//!
//! In bf16 both copies join two images, the same pixel and channel of both in a unit of 32 bits, so that one
//! instruction multiplies and adds over two images, and nothing is transposed. All later steps see half as many
//! images.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::blocks::{Block, Blocks};
use super::images::{self, Cut, Images, Piece, Window};
use super::outer::{self, Tiled, Walk};
use crate::shared::SharedMut;
use crate::simd::{Kernel, LINE, Simd, dispatch, lanes};
use crate::{Conv2dGeometry, Cpu, Element, scratch};
use std::ops::Range;

/// Output channels in a block.
const OUT_BLOCK: usize = 128;
/// Units of work to aim for: enough to keep a few dozen threads evenly busy.
pub const UNITS: usize = 32;
/// Pixels to copy and sum over at a time: a tile's part of their copies stays in the first-level cache.
const PIXELS: usize = 128;
/// How many pixels to prefetch ahead of packing: two images are two streams, which the hardware prefetcher picks up too
/// late.
const AHEAD: usize = 4;

/// The cut of the work, which depends on the geometry alone, except for the shape of the tiles.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// The geometry, with units of images as its batch.
    g: Conv2dGeometry,
    cut: Cut,
    /// Number of parts into which the pixels are cut.
    parts: usize,
    blocks: Blocks,
    /// A tile: output channels by vectors of `lanes` numbers of a run.
    tile: (usize, usize),
    lanes: usize,
}

impl Plan {
    fn new(g: &Conv2dGeometry, lanes: usize) -> Plan {
        // A kernel row has one run for all its taps, so 1 x 1 kernels need more channels for the same length.
        let most = if g.kernel_width == 1 { 256 } else { (192 / g.kernel_width).max(64) };
        let in_block = g.in_channels.div_ceil(g.in_channels.div_ceil(most));
        let cut = Cut::new(g.batch, g.out_height(), g.out_width(), PIXELS);
        let blocks = Blocks::new(g, in_block, OUT_BLOCK);
        let parts = UNITS.div_ceil(blocks.count()).min(cut.pieces());
        let tile = outer::best_tile(blocks.out_block, g.kernel_width * in_block, lanes);
        Plan { g: *g, cut, parts, blocks, tile, lanes }
    }

    /// The number of tiles along a run, for `in_channels` input channels.
    fn run_tiles(&self, in_channels: usize) -> usize {
        (self.g.kernel_width * in_channels).div_ceil(self.tile.1 * self.lanes)
    }

    fn tile_len(&self) -> usize {
        self.tile.0 * self.tile.1 * self.lanes
    }

    /// The length of a unit's sums: (tile of output channels, kernel row, tile of the run, output channel, number).
    fn sums_len(&self) -> usize {
        let out_tiles = self.blocks.out_block.div_ceil(self.tile.0);
        out_tiles * self.g.kernel_height * self.run_tiles(self.blocks.in_block) * self.tile_len()
    }
}

/// See [`super::conv2d_backward_weight`].
pub fn backward_weight<E: Element>(cpu: &Cpu, g: &Conv2dGeometry, x: &[E], dy: &[E], dw: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = amx::chosen::<E>(cpu.isa, g.stride) {
        return amx::weight::backward_weight(cpu, amx, g, x, dy, dw);
    }
    let units = Conv2dGeometry { batch: g.batch.div_ceil(E::PER_UNIT), ..*g };
    let plan = Plan::new(&units, lanes(cpu.isa));
    let unit_len = plan.sums_len();
    let mut sums = scratch::take(plan.parts * plan.blocks.count() * unit_len);
    // The blocks of a part are consecutive, so that threads running at the same time share its pixels.
    cpu.threads.run_chunks(&mut sums, unit_len, |unit, sums| {
        let part = unit / plan.blocks.count();
        let block = plan.blocks.get(unit % plan.blocks.count());
        dispatch(cpu.isa, Unit { plan: &plan, part, block, x, dy, sums });
    });
    let sums = &sums[..];
    let dw = SharedMut::new(dw);
    cpu.threads.run(plan.blocks.count(), |index| {
        let mut parts = sums.chunks_exact(unit_len).skip(index).step_by(plan.blocks.count());
        let Some(first) = parts.next() else { return };
        let mut total = scratch::take(unit_len);
        total.copy_from_slice(first);
        for part in parts {
            for (total, part) in total.iter_mut().zip(part) {
                *total += part;
            }
        }
        unpack(&plan, &plan.blocks.get(index), &total, dw);
    });
}

/// Writes the sums of a block to their places in `dw`.
fn unpack(plan: &Plan, block: &Block, sums: &[f32], dw: SharedMut<f32>) {
    let g = &plan.g;
    let width = plan.tile.1 * plan.lanes;
    let run_tiles = plan.run_tiles(block.in_channels);
    for k in 0..block.out_channels {
        let (out_tile, p) = (k / plan.tile.0, k % plan.tile.0);
        for r in 0..g.kernel_height {
            let tiles = &sums[(out_tile * g.kernel_height + r) * run_tiles * plan.tile_len()..];
            for s in 0..g.kernel_width {
                let at = ((block.first_out + k) * g.kernel_height + r) * g.kernel_width + s;
                // SAFETY: blocks are disjoint in (output channel, input channel), and each has one writer.
                let dw = unsafe { dw.slice(at * g.in_channels + block.first_in, block.in_channels) };
                let mut done = 0;
                while done < dw.len() {
                    let l = s * block.in_channels + done;
                    let here = (width - l % width).min(dw.len() - done);
                    let from = l / width * plan.tile_len() + p * width + l % width;
                    dw[done..done + here].copy_from_slice(&tiles[from..from + here]);
                    done += here;
                }
            }
        }
    }
}

/// One block of the result, summed over one part of the pixels.
struct Unit<'a, E> {
    plan: &'a Plan,
    part: usize,
    block: Block,
    x: &'a [E],
    dy: &'a [E],
    sums: &'a mut [f32],
}

impl<E: Element> Kernel for Unit<'_, E> {
    type Output = ();
    const BF16: bool = E::BF16;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        outer::with_tile(simd, self.plan.tile, self);
    }
}

impl<E: Element> Tiled for Unit<'_, E> {
    #[inline(always)]
    fn run<S: Simd, const P: usize, const NV: usize>(mut self, simd: S) {
        for (i, index) in self.plan.cut.part(self.part, self.plan.parts).enumerate() {
            self.piece::<S, P, NV>(simd, &self.plan.cut.piece(index), i > 0);
        }
    }
}

/// The layout of the vectors of x: tile `t` of the run of kernel row r starts at `r * line + t * tile`, and from there
/// images, rows and pixels follow at their distances.
struct Operand {
    len: usize,
    line: usize,
    tile: usize,
    image: usize,
    row: usize,
    pixel: usize,
}

impl Operand {
    /// The layout in which [`Unit::copy_inputs`] writes a piece, with tiles of `width` numbers.
    fn new(plan: &Plan, block: &Block, piece: &Piece, width: usize) -> Operand {
        let (g, channels, columns) = (&plan.g, block.in_channels, plan.g.out_width());
        if one_by_one(g) {
            let tile = piece.images * piece.rows * columns * width;
            return Operand {
                len: plan.run_tiles(channels) * tile,
                line: 0,
                tile,
                image: piece.rows * columns * width,
                row: columns * width,
                pixel: width,
            };
        }
        let window = window(g, piece);
        let line = window.columns * channels;
        Operand {
            len: piece.images * window.rows * line,
            line,
            tile: width,
            image: window.rows * line,
            row: line * g.stride,
            pixel: channels * g.stride,
        }
    }

    /// The distance from a pixel's first tile to the last tile of its last kernel row.
    fn last_tile(&self, kernel_rows: usize, run_tiles: usize) -> usize {
        (kernel_rows - 1) * self.line + (run_tiles - 1) * self.tile
    }

    /// The distance from the first to the last pixel of a piece of `columns` columns.
    fn last_pixel(&self, piece: &Piece, columns: usize) -> usize {
        (piece.images - 1) * self.image + (piece.rows - 1) * self.row + (columns - 1) * self.pixel
    }
}

/// Whether each pixel of y depends on a single pixel of x: then only those needed are gathered, in whole tiles.
fn one_by_one(g: &Conv2dGeometry) -> bool {
    (g.kernel_height, g.kernel_width, g.padding) == (1, 1, 0)
}

/// The pixels of x on which a piece of y depends.
fn window(g: &Conv2dGeometry, piece: &Piece) -> Window {
    Window {
        row: (piece.row * g.stride) as isize - g.padding as isize,
        column: -(g.padding as isize),
        rows: (piece.rows - 1) * g.stride + g.kernel_height,
        columns: (g.out_width() - 1) * g.stride + g.kernel_width,
    }
}

impl<E: Element> Unit<'_, E> {
    /// Copies the block's input channels of the pixels that a piece needs, in the layout of [`Operand`].
    #[inline(always)]
    fn copy_inputs<S: Simd>(&self, simd: S, piece: &Piece, width: usize, to: &mut [f32]) {
        let g = &self.plan.g;
        let input = Images::input(g);
        let x = images::of_units::<E>(self.x, &input, piece);
        let chosen = self.block.first_in..self.block.first_in + self.block.in_channels;
        if one_by_one(g) {
            let (first, columns) = (piece.row * g.stride, g.out_width());
            let rows = Rows { first, count: piece.rows, columns, stride: g.stride };
            join_pixels::<S, E>(simd, x, &input, &rows, chosen, width, piece.images, to);
        } else {
            window(g, piece).copy_units(x, &input, chosen, to);
        }
    }

    /// Adds the products of a piece's pixels to the sums if `resume`, else overwrites the sums with them.
    #[inline(always)]
    fn piece<S: Simd, const P: usize, const NV: usize>(&mut self, simd: S, piece: &Piece, resume: bool) {
        let (plan, g, block) = (self.plan, &self.plan.g, &self.block);
        let output = Images::output(g);
        let width = NV * S::LANES;
        let run_tiles = plan.run_tiles(block.in_channels);
        let out_tiles = block.out_channels.div_ceil(P);
        let tile_len = P * width;
        assert!(self.sums.len() >= out_tiles * g.kernel_height * run_tiles * tile_len);

        // A pixel's output channels, rounded up to whole tiles, and a gap that keeps pixels out of the same few
        // cache sets.
        let dy_row = block.out_channels.next_multiple_of(P) + 16;
        let mut gradients = scratch::take(piece.images * piece.rows * output.width * dy_row);
        let rows = Rows { first: piece.row, count: piece.rows, columns: output.width, stride: 1 };
        let chosen = block.first_out..block.first_out + block.out_channels;
        let dy = images::of_units::<E>(self.dy, &output, piece);
        join_pixels::<S, E>(simd, dy, &output, &rows, chosen, dy_row, piece.images, &mut gradients);

        let operand = Operand::new(plan, block, piece, width);
        // The last tile of a run may reach beyond the run, and at the end beyond the copy, by less than a tile.
        let mut copy = scratch::take(operand.len + width);
        let (inside, slack) = copy.split_at_mut(operand.len);
        slack.fill(0.0);
        self.copy_inputs(simd, piece, width, inside);
        let end =
            operand.last_tile(g.kernel_height, run_tiles) + operand.last_pixel(piece, output.width) + width;
        assert!(end <= copy.len(), "a piece reads {end} numbers of {}", copy.len());
        assert!(out_tiles * P <= dy_row);
        // A tile's vectors of x stay in the first-level cache while all output channels pass by.
        for r in 0..g.kernel_height {
            for run_tile in 0..run_tiles {
                for out_tile in 0..out_tiles {
                    let index = (out_tile * g.kernel_height + r) * run_tiles + run_tile;
                    let walk = Walk {
                        x: copy[r * operand.line + run_tile * operand.tile..].as_ptr(),
                        image: operand.image,
                        line: operand.row,
                        pixel: operand.pixel,
                        images: piece.images,
                        rows: piece.rows,
                        columns: output.width,
                        dy: gradients[out_tile * P..].as_ptr(),
                        dy_pixel: dy_row,
                    };
                    let sums = &mut self.sums[index * tile_len..][..tile_len];
                    // SAFETY: the farthest tile of the farthest pixel ends within `copy`, and `gradients` has whole
                    // tiles of P units for each pixel, both by the assertions above; `sums` has a tile.
                    unsafe { outer::tile::<S, E, P, NV>(simd, &walk, sums.as_mut_ptr(), resume) }
                }
            }
        }
    }
}

/// The pixels to pack: `count` rows of `columns` pixels, `stride` apart, from row `first` and column 0 on.
struct Rows {
    first: usize,
    count: usize,
    columns: usize,
    stride: usize,
}

/// Writes channels `chosen` of the pixels as units, in tiles of `width` channels: (tile, pixel, channel), with zeros
/// beyond the last channel. Pixels are read in order, which is that of memory.
#[inline(always)]
fn join_pixels<S: Simd, E: Element>(
    simd: S,
    images: &[E],
    shape: &Images,
    rows: &Rows,
    chosen: Range<usize>,
    width: usize,
    units: usize,
    tiles: &mut [f32],
) {
    let tile = units * rows.count * rows.columns * width;
    assert!(tiles.len() >= chosen.len().div_ceil(width) * tile);
    let mut pixel = 0;
    for image in (0..units).map(|unit| unit * E::PER_UNIT) {
        let second = image * shape.len() + shape.len();
        let second = (E::PER_UNIT == 2 && second < images.len()).then(|| &images[second..]);
        let first = &images[image * shape.len()..];
        for row in (0..rows.count).map(|row| rows.first + row * rows.stride) {
            for column in (0..rows.columns).map(|column| column * rows.stride) {
                let at = (row * shape.width + column) * shape.channels;
                let first = &first[at..][chosen.clone()];
                let second = second.map(|second| &second[at..][chosen.clone()]);
                for from in [Some(first), second].into_iter().flatten() {
                    let ahead = from.as_ptr().wrapping_add(AHEAD * shape.channels).cast::<f32>();
                    for line in (0..size_of_val(from)).step_by(LINE) {
                        simd.prefetch(ahead.wrapping_byte_add(line));
                    }
                }
                let mut to = pixel * width;
                let mut done = 0;
                while done < first.len() {
                    let here = width.min(first.len() - done);
                    let (known, beyond) = tiles[to..][..width].split_at_mut(here);
                    images::join(&first[done..][..here], second.map(|second| &second[done..][..here]), known);
                    beyond.fill(0.0);
                    done += here;
                    to += tile;
                }
                pixel += 1;
            }
        }
    }
}
