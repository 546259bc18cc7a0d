//! The forward pass and the gradient of the input: pixels are the rows of the tiles, output channels their columns.

use super::super::class::{Class, PerTap, Tap};
use super::super::images::{Cut, Images, Piece};
use super::super::pack::{Packing, Source};
use super::super::sums;
use super::super::tile::Run;
use super::lattice::{Columns, Lattice, NOWHERE};
use crate::scratch::{self, Scratch};
use crate::shared::SharedMut;
use crate::simd::amx::{Amx, ROW, SIDE, Side, Tiles};
use crate::simd::{Kernel, Simd, dispatch};
use crate::{Cpu, Element, Write};
use smallvec::SmallVec;

/// Places computed at a time: two tiles.
const PLACES: usize = 2 * SIDE;

/// Computes a class of pixels; see [`super::super::direct`].
pub fn run<E: Element>(
    cpu: &Cpu,
    amx: Amx,
    class: &Class,
    src: &[E],
    weights: Source,
    dst: &mut [E],
    write: Write,
    sums: Option<&mut [f64]>,
) {
    let channels = class.from.channels;
    let packing =
        Packing::whole(class.to.channels, channels.div_ceil(E::PER_UNIT), class.taps.len(), SIDE, 1);
    let offsets: PerTap<usize> = class.taps.iter().map(|tap| tap.offset).collect();
    let mut packed = scratch::take(packing.len());
    packing.pack::<E>(cpu, weights, channels, &offsets, &mut packed);
    let cut = cut(class);
    let packed = in_whole_tiles(&packing, &runs(&class.taps, packing.inner, &offsets), packed);
    let (packed, dst) = (&packed[..], SharedMut::new(dst));
    sums::over(cpu, cut.pieces(), sums, |index, sums| {
        let piece = cut.piece(index);
        dispatch(cpu.isa, PieceKernel { amx, class, packing: &packing, packed, piece, src, dst, write, sums })
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

fn lattice(class: &Class, packing: &Packing, piece: &Piece) -> Lattice {
    Lattice::new(&class.taps, class.step, &class.from, piece, class.columns, packing.inner)
}

/// What a place reads: a run of units for each row of taps that are neighbours, from the taps' `offsets` on.
fn runs(taps: &[Tap], units: usize, offsets: &[usize]) -> SmallVec<[Run; 49]> {
    let mut runs: SmallVec<[Run; 49]> = SmallVec::new();
    let mut before: Option<&Tap> = None;
    for (tap, &offset) in taps.iter().zip(offsets) {
        let joined = before.is_some_and(|before| (before.row, before.column + 1) == (tap.row, tap.column));
        match runs.last_mut() {
            Some(last) if joined => last.len += units,
            _ => runs.push(Run { offset, len: units }),
        }
        before = Some(tap);
    }
    runs
}

/// The tiles of a run.
fn tiles(run: &Run) -> usize {
    run.len.div_ceil(SIDE)
}

/// The packed weights with zeros after each run, so that each is a whole number of tiles.
fn in_whole_tiles(packing: &Packing, runs: &[Run], packed: Scratch<f32>) -> Scratch<f32> {
    if runs.iter().all(|run| run.len.is_multiple_of(SIDE)) {
        return packed;
    }
    let tiles: usize = runs.iter().map(tiles).sum();
    let mut whole = scratch::take(packing.outer_blocks() * tiles * SIDE * SIDE);
    let (mut to, mut from) = (&mut whole[..], &packed[..]);
    for run in runs.iter().cycle().take(packing.outer_blocks() * runs.len()) {
        let (units, rest) = from.split_at(run.len * SIDE);
        let (run, others) = to.split_at_mut(tiles_of(run));
        let (known, beyond) = run.split_at_mut(units.len());
        known.copy_from_slice(units);
        beyond.fill(0.0);
        (to, from) = (others, rest);
    }
    whole
}

/// The values of a run's tiles of weights.
fn tiles_of(run: &Run) -> usize {
    tiles(run) * SIDE * SIDE
}

struct PieceKernel<'a, E> {
    amx: Amx,
    class: &'a Class,
    packing: &'a Packing,
    packed: &'a [f32],
    piece: Piece,
    src: &'a [E],
    dst: SharedMut<E>,
    write: Write,
    sums: &'a mut [f64],
}

impl<E: Element> Kernel for PieceKernel<'_, E> {
    type Output = ();
    const BF16: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (class, piece, from) = (self.class, &self.piece, &self.class.from);
        let units = self.packing.inner;
        let lattice = lattice(class, self.packing, piece);
        let images = &self.src[piece.image * from.len()..][..piece.images * from.len()];
        let places = places(class, piece, &lattice);
        if as_they_lie::<E>(class, units) && lattice.places() >= PLACES {
            let first = piece.row * from.width * from.channels;
            let pixels = &images[first..][..lattice.places() * from.channels];
            self.products(simd, pixels.as_ptr().cast(), lattice.places() * units, &lattice, &places);
        } else {
            // The last places may be none, and the last tile of a run may reach beyond the run.
            let slack = PLACES * lattice.pitch() + SIDE;
            let mut copy = scratch::take::<f32>(lattice.len() + slack);
            let (inside, beyond) = copy.split_at_mut(lattice.len());
            beyond.fill(0.0);
            lattice.fill(from, piece, inside, |image, row, columns, to| {
                let row = &images[image * from.len() + row * from.width * from.channels..];
                copy_columns(row, from.channels, columns, units * E::PER_UNIT, bytemuck::cast_slice_mut(to));
            });
            self.products(simd, copy.as_ptr(), copy.len(), &lattice, &places);
        }
        // SAFETY: only the forward pass takes sums, and its piece is a stretch of whole rows, which this thread has
        // just written.
        unsafe { sums::of_piece(simd, class, piece, self.dst, self.sums) };
    }
}

/// Whether the source's pixels already lie as on the lattice, without gaps between channels, rows and images.
fn as_they_lie<E: Element>(class: &Class, units: usize) -> bool {
    let one = matches!(&class.taps[..], [tap] if (tap.row, tap.column) == (0, 0));
    let all = (class.rows, class.columns) == (class.from.height, class.from.width);
    one && class.step == 1 && all && class.from.channels == units * E::PER_UNIT && units.is_multiple_of(SIDE)
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
fn copy_columns<E: Element>(row: &[E], channels: usize, columns: &Columns, width: usize, to: &mut [E]) {
    if columns.step == 1 && channels == width {
        return to.copy_from_slice(&row[columns.first * channels..][..to.len()]);
    }
    let pixels = row[columns.first * channels..].chunks(channels).step_by(columns.step);
    for (to, from) in to.chunks_exact_mut(width).zip(pixels) {
        to[..channels].copy_from_slice(from);
        to[channels..].fill(E::default());
    }
}

impl<E: Element> PieceKernel<'_, E> {
    /// Computes all places of the piece from the `len` units of the lattice at `src`, and writes those that are pixels.
    #[inline(always)]
    fn products<S: Simd>(&self, simd: S, src: *const f32, len: usize, lattice: &Lattice, places: &[usize]) {
        // SAFETY: the only tiles of this thread, which does nothing else while they live.
        let mut tiles = unsafe { Tiles::new(self.amx) };
        let pitch = lattice.pitch();
        let runs = runs(&self.class.taps, self.packing.inner, &lattice.offsets(&self.class.taps));
        let block: usize = runs.iter().map(tiles_of).sum();
        let last = places.len() - PLACES;
        let reach = runs.iter().map(|run| run.offset + self::tiles(run) * SIDE).max().unwrap_or(0);
        let end = (places.len() - 1) * pitch + reach;
        assert!(end <= len, "a piece reads {end} units of {len}");
        assert!(self.packed.len() >= self.packing.outer_blocks() * block, "packed weights are too short");
        let mut out = Out([0.0; 2 * SIDE * PLACES]);
        for o in (0..self.packing.outer_blocks()).step_by(2) {
            let weights = &self.packed[o * block..];
            let both = o + 1 < self.packing.outer_blocks();
            let first = o * SIDE;
            let channels = (self.class.to.channels - first).min(2 * SIDE);
            for start in (0..places.len()).step_by(PLACES) {
                // The last places lie within the lattice too, computed once more instead of any beyond it.
                let begin = start.min(last);
                tiles.clear();
                let mut b = Side {
                    start: weights.as_ptr().cast(),
                    pitch: ROW,
                    neighbour: 4 * block,
                    step: SIDE * ROW,
                };
                for run in &runs {
                    let a = Side {
                        start: src.wrapping_add(begin * pitch + run.offset).cast(),
                        pitch: 4 * pitch,
                        neighbour: 4 * SIDE * pitch,
                        step: ROW,
                    };
                    let steps = self::tiles(run);
                    // SAFETY: `begin + PLACES <= places.len()`, so that the assertions cover both sides.
                    unsafe {
                        if both {
                            tiles.multiply::<2>(a, b, steps);
                        } else {
                            tiles.multiply::<1>(a, b, steps);
                        }
                    }
                    b.start = b.start.wrapping_add(steps * b.step);
                }
                tiles.store(&mut out.0);
                let done = start - begin;
                for (values, &place) in out.0.as_chunks().0.iter().zip(&places[begin..]).skip(done) {
                    if place != NOWHERE {
                        // SAFETY: the places of this class and piece belong to this thread, and each pixel has
                        // `channels` values from `first` on.
                        unsafe { self.write(simd, values, place + first, channels) };
                    }
                }
            }
        }
    }

    /// Writes `channels` of the 32 `values` of a pixel at `place` of the destination.
    ///
    /// # Safety
    ///
    /// Nothing else may use these values of the destination.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, simd: S, values: &[f32; 2 * SIDE], place: usize, channels: usize) {
        // SAFETY: the caller's promise.
        let to = unsafe { self.dst.slice(place, channels) };
        let whole = to.len() == values.len();
        for first in (0..to.len()).step_by(S::LANES) {
            let lanes = if whole { S::LANES } else { S::LANES.min(to.len() - first) };
            // SAFETY: LANES divides 32, so that `values` has LANES numbers from `first` on; `to` has `lanes` numbers.
            unsafe {
                let to = to.as_mut_ptr().add(first);
                let mut sum = simd.load(values.as_ptr().add(first));
                if self.write == Write::Add {
                    sum = simd.add(sum, E::load_some(simd, to, lanes));
                }
                E::store_some(simd, to, sum, lanes);
            }
        }
    }
}

/// Sums of two by two tiles, on their own cache lines.
#[repr(align(64))]
struct Out([f32; 2 * SIDE * PLACES]);
