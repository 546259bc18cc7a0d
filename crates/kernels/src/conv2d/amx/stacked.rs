//! The forward pass and the gradient of the input of small images: a tile's rows are one pixel of 16 images.
//!
//! Each output pixel has the products of those taps that meet a pixel, and no others: 3 x 3 taps on 4 x 4 pixels have
//! 100 of them for each pair of channels where a lattice has 25 * 9. In a block lie four output pixels of a row, whose
//! taps read a source pixel while it is in a register. Tiles come from the second-level cache more often than on a
//! lattice, though, so that large images, which have few zeros, are faster there.

use super::super::class::Class;
use super::super::epilogue::{self, Epilogue, PieceEpilogue};
use super::super::images::{Cut, Piece};
use super::super::pack::Source;
use super::in_rows;
use super::lattice::{Lattice, NOWHERE};
use super::output::{self, CHANNELS, Output};
use super::pack::{Order, TILE, Weights};
use crate::scratch::{self, Scratch};
use crate::shared::SharedMut;
use crate::simd::amx::{Amx, SIDE, Tiles};
use crate::{Cpu, Element, Write};
use half::bf16;
use std::ops::Range;

/// Output pixels of a block.
const PIXELS: usize = 4;
/// Places of a block.
const PLACES: usize = PIXELS * SIDE;
/// Input channels of a tile.
const DEPTH: usize = 2 * SIDE;
/// About the most values of a piece's copy: it stays in the second-level cache beside the weights.
const COPY: usize = 512 << 10;

/// Pieces to aim for.
const PIECES: usize = 8;

/// Whether this form is the faster for a class, which depends on the shape of its images and taps alone.
pub fn pays(class: &Class) -> bool {
    let from = &class.from;
    if !in_rows(class) || !from.channels.is_multiple_of(DEPTH) || SIDE * from.len() > COPY {
        return false;
    }
    // The products of 16 images. Those of the lattice take less time each, by about the ratio of these numbers.
    let many = Piece { image: 0, images: SIDE, row: 0, rows: class.rows };
    let lattice = Lattice::new(&class.taps, class.step, from, &many, class.columns, from.channels);
    13 * class.meetings() < 10 * lattice.places() * class.taps.len() / SIDE
}

/// The first output column of each block of a row.
fn blocks(class: &Class) -> impl Iterator<Item = usize> {
    (0..class.columns).step_by(PIXELS)
}

/// The source pixels that exist, relative to the one that the first tap of output column `first` reads.
fn inside(class: &Class, first: usize) -> Range<usize> {
    let column = (first * class.step) as isize + class.taps[0].column;
    (-column).max(0) as usize..(class.from.width as isize - column).max(0) as usize
}

/// The rows of taps that meet a source row for output row `row`, by their number, and that source row.
fn source_rows(class: &Class, row: usize) -> impl Iterator<Item = (usize, usize)> {
    let rows = class.taps.iter().step_by(class.taps_in_row()).enumerate();
    rows.filter_map(move |(r, tap)| {
        let source = usize::try_from((row * class.step) as isize + tap.row).ok()?;
        (source < class.from.height).then_some((r, source))
    })
}

/// Computes a class of pixels; see [`super::super::direct`].
pub fn run<E: Element>(
    cpu: &Cpu,
    amx: Amx,
    class: &Class,
    src: &[E],
    weights: Source,
    dst: &mut [E],
    write: Write,
    epilogue: Epilogue<E>,
) {
    let weights = &Weights::new(cpu, amx, class, weights, Order::Rows { taps: class.taps_in_row() });
    // Many images make streaming the weights past them cheap, but a small batch must leave work for all threads.
    let images = (COPY / class.from.len()).min(class.batch / PIECES).min(4 * SIDE) / SIDE * SIDE;
    let cut = Cut::at_least(class.batch, class.rows, images.max(SIDE), PIECES);
    let src = bytemuck::cast_slice(src);
    let dst = SharedMut::new(bytemuck::cast_slice_mut(dst));
    epilogue::over(cpu, cut.pieces(), epilogue.cast::<bf16>(), |index, epilogue| {
        let kernel = PieceKernel { amx, class, weights, piece: cut.piece(index), src, dst, write, epilogue };
        // SAFETY: the level of `Amx` includes AVX-512 with AVX512_BF16.
        unsafe { kernel.run() }
    });
}

struct PieceKernel<'a> {
    amx: Amx,
    class: &'a Class,
    weights: &'a Weights,
    piece: Piece,
    src: &'a [bf16],
    dst: SharedMut<bf16>,
    write: Write,
    epilogue: PieceEpilogue<'a, bf16>,
}

impl PieceKernel<'_> {
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn run(self) {
        let copy = self.copy();
        let places = self.places();
        let (to, write, channels) = (self.dst, self.write, self.class.to.channels);
        // SAFETY: the places are those of pixels of this class and piece, which belong to this thread until `run` ends.
        let mut output = unsafe { Output::<PLACES>::new(to, write, channels, &places, &self.epilogue) };
        let (step, taps) = (self.class.step, self.class.taps_in_row());
        with_row!(step, taps, self.products(&copy, &mut output));
        let totals = output.end();
        if let (PieceEpilogue::Sum(sums), Some(totals)) = (self.epilogue, totals) {
            output::unpack(&totals, sums);
        }
    }

    /// The piece's source pixels as (16 images, row, column, 32 channels, image, channel), zeros for images that are
    /// missing from 16.
    #[inline(always)]
    fn copy(&self) -> Scratch<f32> {
        let (from, images) = (&self.class.from, self.piece.images);
        let mut copy = scratch::take::<f32>(images.div_ceil(SIDE) * SIDE * from.len() / 2);
        let src = &self.src[self.piece.image * from.len()..][..images * from.len()];
        let stacks = copy.chunks_exact_mut(SIDE * from.len() / 2).zip(src.chunks(SIDE * from.len()));
        for (stack, images) in stacks {
            let stack: &mut [[bf16; DEPTH]] = bytemuck::cast_slice_mut(stack);
            if images.len() < SIDE * from.len() {
                stack.fill([bf16::ZERO; DEPTH]);
            }
            for (n, image) in images.chunks_exact(from.len()).enumerate() {
                let to = stack[n..].iter_mut().step_by(SIDE);
                to.zip(image.as_chunks::<DEPTH>().0).for_each(|(to, from)| *to = *from);
            }
        }
        copy
    }

    /// Where each place's result belongs in the destination, or [`NOWHERE`]: (16 images, row, block of columns, column,
    /// image).
    fn places(&self) -> Scratch<usize> {
        let (class, piece) = (self.class, &self.piece);
        let in_row = class.columns.div_ceil(PIXELS) * PLACES;
        let mut places = scratch::take(piece.images.div_ceil(SIDE) * piece.rows * in_row);
        for (index, line) in places.chunks_exact_mut(in_row).enumerate() {
            let (first, row) = (index / piece.rows * SIDE, piece.row + index % piece.rows);
            for (column, pixel) in line.chunks_exact_mut(SIDE).enumerate() {
                let at = (class.first.0 + row * class.to_step) * class.to.width;
                let at = (at + class.first.1 + column * class.to_step) * class.to.channels;
                for (n, place) in pixel.iter_mut().enumerate() {
                    let exists = first + n < piece.images && column < class.columns;
                    *place = if exists { (piece.image + first + n) * class.to.len() + at } else { NOWHERE };
                }
            }
        }
        places
    }

    /// Computes the whole piece from its `copy`.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn products<const STEP: usize, const TAPS: usize>(&self, copy: &[f32], output: &mut Output<PLACES>) {
        // SAFETY: the only tiles of this thread, which does nothing else while they live.
        let mut tiles = unsafe { Tiles::new(self.amx) };
        let (class, weights) = (self.class, self.weights);
        let depth = class.from.channels / DEPTH;
        let row_len = class.from.width * depth * TILE;
        let stack_len = class.from.height * row_len;
        let taps_len = depth * TAPS * TILE;
        assert_eq!(weights.block_len(), class.taps.len() / TAPS * taps_len, "weights of all taps");
        for first in (0..weights.blocks()).step_by(CHANNELS / SIDE) {
            let mut place = 0;
            let rows = self.piece.row..self.piece.row + self.piece.rows;
            for (stack, row) in
                copy.chunks_exact(stack_len).flat_map(|stack| rows.clone().map(move |row| (stack, row)))
            {
                for column in blocks(class) {
                    let inside = inside(class, column);
                    // The last pixel may be beyond the row, and what it reads too.
                    let inside = inside.start..inside.end.min(3 * STEP + TAPS);
                    let start = (column * STEP) as isize + class.taps[0].column;
                    // The rows of the block before that are written after each step.
                    let steps = source_rows(class, row).count() * depth;
                    let rows = PLACES.div_ceil(steps.max(1)).max(2);
                    for o in first..weights.blocks().min(first + CHANNELS / SIDE) {
                        tiles.clear();
                        for (r, source) in source_rows(class, row) {
                            let pixels = &stack[source * row_len..][..row_len];
                            let taps = &weights.from(o)[r * taps_len..][..taps_len];
                            for (d, taps) in taps.chunks_exact(TAPS * TILE).enumerate() {
                                let pixel = start * (depth * TILE) as isize + (d * TILE) as isize;
                                let from = pixels.as_ptr().wrapping_offset(pixel);
                                // SAFETY: source pixels `start` plus those `inside` are of this row, whose tiles are
                                // `depth` to a pixel; `taps` has a tile for each tap.
                                unsafe {
                                    tiles.correlate::<STEP, TAPS>(
                                        from.cast(),
                                        depth * TILE * size_of::<f32>(),
                                        inside.clone(),
                                        taps.as_ptr().cast(),
                                    );
                                }
                                output.write_some(rows);
                            }
                        }
                        tiles.store_below(output.empty(), (o - first) * SIDE);
                    }
                    output.begin(place, 0, first * SIDE);
                    place += PLACES;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::geometry;
    use super::*;

    /// Whether the forward pass and the first class of the gradient of the input are stacked.
    fn stacked(side: usize, channels: usize, kernel: usize, stride: usize) -> (bool, bool) {
        let g = geometry(1, side, side, channels, channels, (kernel, kernel), stride, kernel / 2);
        (pays(&Class::forward(&g)), pays(&Class::input(&g, 0, 0)))
    }

    #[test]
    fn small_images_are_stacked() {
        assert_eq!(stacked(4, 512, 3, 1), (true, true));
        assert_eq!(stacked(7, 512, 3, 1), (true, true));
        assert_eq!(stacked(8, 256, 3, 1), (true, true));
        assert_eq!(stacked(8, 256, 3, 2), (true, false));
        assert_eq!(stacked(16, 128, 3, 1), (false, false), "few zeros");
        assert_eq!(stacked(4, 512, 1, 1), (false, false), "no zeros");
        assert_eq!(stacked(4, 512, 5, 1), (false, false), "too many taps in a row");
        assert_eq!(stacked(4, 48, 3, 1), (false, false), "channels that fill no tile");
        assert_eq!(stacked(8, 4096, 3, 1), (false, false), "too large for the cache");
    }
}
