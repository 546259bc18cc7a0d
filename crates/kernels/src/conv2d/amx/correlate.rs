//! The forward pass and the gradient of the input: pixels are the rows of the tiles, output channels their columns.
//! Pixels lie on a lattice; where that has many zeros, [`super::stacked`] is faster.

use super::super::class::Class;
use super::super::epilogue::{self, Epilogue, PieceEpilogue};
use super::super::images::{Cut, Images, Piece};
use super::super::pack::Source;
use super::lattice::{Columns, Lattice, NOWHERE};
use super::output::{self, Output};
use super::pack::{self, Order, TILE, Weights};
use super::stacked;
use crate::scratch::{self, Scratch};
use crate::shared::SharedMut;
use crate::simd::amx::{Amx, ROW, SIDE, Side, Tiles};
use crate::{Cpu, Element, Write};
use half::bf16;

/// Places of a block: two tiles.
const PLACES: usize = 2 * SIDE;
/// About the most bytes of weights that pass by a block of places: they stay in the second-level cache.
const GROUP_BYTES: usize = 256 << 10;

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
    if stacked::pays(class) {
        return stacked::run(cpu, amx, class, src, weights, dst, write, epilogue);
    }
    let weights = &Weights::new(cpu, amx, class, weights, Order::Runs);
    let cut = cut(class);
    let src = bytemuck::cast_slice(src);
    let dst = SharedMut::new(bytemuck::cast_slice_mut(dst));
    epilogue::over(cpu, cut.pieces(), epilogue.cast::<bf16>(), |index, epilogue| {
        let kernel = PieceKernel { amx, class, weights, piece: cut.piece(index), src, dst, write, epilogue };
        // SAFETY: the level of `Amx` includes AVX-512 with AVX512_BF16.
        unsafe { kernel.run() }
    });
}

/// Cuts a class into pieces, depending on the shapes alone.
fn cut(class: &Class) -> Cut {
    // Enough pixels to make streaming the weights past them cheap, few enough to stay in the second-level cache.
    let pixels = ((512 << 10) / class.from.channels.max(class.to.channels)).clamp(256, 2048);
    // A small batch must leave work for all threads.
    let fair = (class.batch * class.rows * class.columns).div_ceil(16);
    Cut::new(class.batch, class.rows, class.columns, pixels.min(fair.max(128)))
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
        let (class, piece, from) = (self.class, &self.piece, &self.class.from);
        let units = from.channels.div_ceil(2);
        let lattice = Lattice::new(&class.taps, class.step, from, piece, class.columns, units);
        let images = &self.src[piece.image * from.len()..][..piece.images * from.len()];
        let places = places(class, piece, &lattice);
        let (to, write, channels) = (self.dst, self.write, class.to.channels);
        // SAFETY: the places are those of pixels of this class and piece, which belong to this thread until `run` ends.
        let mut output = unsafe { Output::<PLACES>::new(to, write, channels, &places, &self.epilogue) };
        if as_they_lie(class, units) && lattice.places() >= PLACES {
            let first = piece.row * from.width * from.channels;
            let pixels = &images[first..][..lattice.places() * from.channels];
            self.products(pixels, &lattice, places.len(), &mut output);
        } else {
            // The last places may be none, and the last tile of a run may reach beyond the run.
            let slack = PLACES * lattice.pitch() + SIDE;
            let mut copy = scratch::take::<f32>(lattice.len() + slack);
            let (inside, beyond) = copy.split_at_mut(lattice.len());
            beyond.fill(0.0);
            lattice.fill(from, piece, inside, |image, row, columns, to| {
                let row = &images[image * from.len() + row * from.width * from.channels..];
                copy_columns(row, from.channels, columns, units * 2, bytemuck::cast_slice_mut(to));
            });
            self.products(bytemuck::cast_slice(&copy), &lattice, places.len(), &mut output);
        }
        let totals = output.end();
        if let (PieceEpilogue::Sum(sums), Some(totals)) = (self.epilogue, totals) {
            output::unpack(&totals, sums);
        }
    }
}

/// Whether the source's pixels already lie as on the lattice, without gaps between channels, rows and images.
fn as_they_lie(class: &Class, units: usize) -> bool {
    let one = matches!(&class.taps[..], [tap] if (tap.row, tap.column) == (0, 0));
    let all = (class.rows, class.columns) == (class.from.height, class.from.width);
    one && class.step == 1 && all && class.from.channels == 2 * units && units.is_multiple_of(SIDE)
}

/// Where each place's result belongs in the destination, or [`NOWHERE`].
fn places(class: &Class, piece: &Piece, lattice: &Lattice) -> Scratch<usize> {
    let mut places = scratch::take(lattice.places().max(PLACES));
    let Images { width, channels, .. } = class.to;
    let rows = class.first.0 + piece.row * class.to_step;
    lattice.map(&mut places, NOWHERE, |n, i, j| {
        let pixel = (rows + i * class.to_step) * width + class.first.1 + j * class.to_step;
        (piece.image + n) * class.to.len() + pixel * channels
    });
    places
}

/// Copies `columns` of a row of pixels of `channels` values, each padded with zeros to `width` values.
#[inline(always)]
fn copy_columns(row: &[bf16], channels: usize, columns: &Columns, width: usize, to: &mut [bf16]) {
    if columns.step == 1 && channels == width {
        return to.copy_from_slice(&row[columns.first * channels..][..to.len()]);
    }
    let pixels = row[columns.first * channels..].chunks(channels).step_by(columns.step);
    for (to, from) in to.chunks_exact_mut(width).zip(pixels) {
        to[..channels].copy_from_slice(from);
        to[channels..].fill(bf16::ZERO);
    }
}

impl PieceKernel<'_> {
    /// Computes all `places` places of the piece from its `lattice`, whose pixels are `src`.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn products(&self, src: &[bf16], lattice: &Lattice, places: usize, output: &mut Output<PLACES>) {
        // SAFETY: the only tiles of this thread, which does nothing else while they live.
        let mut tiles = unsafe { Tiles::new(self.amx) };
        let (weights, pitch) = (self.weights, lattice.pitch());
        let (blocks, block) = (weights.blocks(), weights.block_len());
        let runs = pack::runs(&self.class.taps, lattice.width(), &lattice.offsets(&self.class.taps));
        let steps: usize = runs.iter().map(pack::tiles).sum();
        assert_eq!(block, steps * TILE, "weights of all runs");
        let reach = runs.iter().map(|run| run.offset + pack::tiles(run) * SIDE).max().unwrap_or(0);
        assert!(places >= PLACES, "places are computed {PLACES} at a time");
        let (end, len) = ((places - 1) * pitch + reach, src.len() / 2);
        assert!(end <= len, "a piece reads {end} units of {len}");
        // The rows of the block before that are written after each step.
        let rows = PLACES.div_ceil(steps).max(2);
        let group = (GROUP_BYTES / 4 / (2 * block)).max(1) * 2;
        for first in (0..blocks).step_by(group) {
            for start in (0..places).step_by(PLACES) {
                // The last places lie within the lattice too, computed once more instead of any beyond it.
                let begin = start.min(places - PLACES);
                for o in (first..blocks.min(first + group)).step_by(2) {
                    let mut b = Side {
                        start: weights.from(o).as_ptr().cast(),
                        pitch: ROW,
                        neighbour: 4 * block,
                        step: SIDE * ROW,
                    };
                    tiles.clear();
                    for run in &runs {
                        let mut a = Side {
                            start: src.as_ptr().wrapping_add(2 * (begin * pitch + run.offset)).cast(),
                            pitch: 4 * pitch,
                            neighbour: 4 * SIDE * pitch,
                            step: ROW,
                        };
                        for _ in 0..pack::tiles(run) {
                            // SAFETY: `begin + PLACES <= places`, so that the assertions cover both sides.
                            unsafe {
                                match blocks - o {
                                    1 => tiles.multiply::<1>(a, b, 1),
                                    _ => tiles.multiply::<2>(a, b, 1),
                                }
                            }
                            a.start = a.start.wrapping_add(a.step);
                            b.start = b.start.wrapping_add(b.step);
                            output.write_some(rows);
                        }
                    }
                    tiles.store(bytemuck::cast_mut(output.empty()));
                    output.begin(begin, start - begin, o * SIDE);
                }
            }
        }
    }
}
