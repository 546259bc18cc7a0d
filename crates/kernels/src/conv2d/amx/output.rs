//! What becomes of a block of sums: they are rounded to bf16 and written, and their sums per channel are taken, or they
//! are normalised before, while they are in registers. This happens a few rows at a time between the products of the
//! next block, which take as long: the processor's window is too short to overlap whole blocks.

use super::super::epilogue::{Normalize, PieceEpilogue};
use super::lattice::NOWHERE;
use crate::Write;
use crate::scratch::{self, Scratch};
use crate::shared::SharedMut;
use crate::simd::amx::SIDE;
use half::bf16;
use std::arch::x86_64::*;
use std::ops::Range;

/// Channels of a block: two tiles.
pub const CHANNELS: usize = 2 * SIDE;
/// Sums of a block of channels.
const SUMS: usize = 4 * SIDE;

/// The destination of a piece's sums, which come in blocks of `PLACES` places, whole tiles.
pub struct Output<'a, const PLACES: usize> {
    to: SharedMut<bf16>,
    write: Write,
    channels: usize,
    /// For each place of the piece the index of its pixel's first channel in `to`, or [`NOWHERE`].
    places: &'a [usize],
    /// Sums of the values written, if wanted: for each block of channels the sums of even and of odd channels, then
    /// those of their squares.
    totals: Option<Scratch<f64>>,
    /// How to normalise, if wanted.
    norm: Option<Normalize<'a, bf16>>,
    /// The block that is being written: its values, its rows that are not written yet, the place of row 0, and its
    /// first channel.
    block: Block<PLACES>,
    rows: Range<usize>,
    place: usize,
    first: usize,
    /// The sums of the rows of this block that are written, in the order of `totals`.
    sums: [__m512; 4],
}

/// Places by 32 channels, on their own cache lines.
#[repr(align(64))]
struct Block<const PLACES: usize>([[f32; CHANNELS]; PLACES]);

impl<'a, const PLACES: usize> Output<'a, PLACES> {
    /// The destination of at least a block of `places`, each of `channels` channels.
    ///
    /// # Safety
    ///
    /// While this value lives, nothing else may use the `channels` values in `to` from each of the `places` on, nor may
    /// `to` end.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn new(
        to: SharedMut<bf16>,
        write: Write,
        channels: usize,
        places: &'a [usize],
        epilogue: &PieceEpilogue<'a, bf16>,
    ) -> Output<'a, PLACES> {
        assert!(places.len() >= PLACES);
        // The last pixel, too, must end within the destination.
        let pixels = places.iter().filter(|&&place| place != NOWHERE);
        let end = pixels.max().map_or(0, |last| last + channels);
        to.from(end);
        let (mut totals, mut norm) = (None, None);
        match epilogue {
            PieceEpilogue::Keep => {}
            PieceEpilogue::Sum(_) => {
                let totals = totals.insert(scratch::take(channels.div_ceil(CHANNELS) * SUMS));
                totals.fill(0.0);
            }
            PieceEpilogue::Normalize(prepared) => {
                let norm = norm.insert(prepared.norm);
                assert!(norm.residual.is_none_or(|residual| residual.len() >= end));
                assert!(norm.scale.len() == channels && norm.shift.len() == channels);
            }
        }
        let sums = [_mm512_setzero_ps(); 4];
        let block = Block([[0.0; CHANNELS]; PLACES]);
        Output { to, write, channels, places, totals, norm, block, rows: 0..0, place: 0, first: 0, sums }
    }

    /// Writes what is left of the block before. Returns where the next block's sums belong, for [`Output::begin`].
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub fn empty(&mut self) -> &mut [[f32; CHANNELS]; PLACES] {
        self.end_block();
        &mut self.block.0
    }

    /// Begins to write the block: the sums of the places from `place` on, without the first `skip`, and of the channels
    /// from `first` on, a multiple of 32.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub fn begin(&mut self, place: usize, skip: usize, first: usize) {
        assert!(place + PLACES <= self.places.len() && first < self.channels);
        (self.rows, self.place, self.first) = (skip..PLACES, place, first);
        if let Some(residual) = self.norm.and_then(|norm| norm.residual) {
            // They are read between the products of the next block, from as many lines as there are places.
            for &place in &self.places[place + skip..place + PLACES] {
                let line = residual.as_ptr().wrapping_add(place.wrapping_add(first));
                _mm_prefetch::<_MM_HINT_T0>(line.cast());
            }
        }
    }

    /// Writes the next `rows` rows of the block that was begun last.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub fn write_some(&mut self, rows: usize) {
        if self.rows.is_empty() {
            return;
        }
        let rows = self.rows.start..self.rows.end.min(self.rows.start + rows);
        self.rows.start = rows.end;
        let whole = self.channels - self.first >= CHANNELS;
        match (self.write, whole, self.norm) {
            (Write::Over, true, Some(norm)) => self.write_normalized::<true>(rows, &norm),
            (Write::Over, false, Some(norm)) => self.write_normalized::<false>(rows, &norm),
            (Write::Add, ..) => self.write_rows::<true, false>(rows),
            (Write::Over, true, None) => self.write_rows::<false, true>(rows),
            (Write::Over, false, None) => self.write_rows::<false, false>(rows),
        }
    }

    /// How many of the block's channels a pixel has, and a bit for each.
    #[inline(always)]
    fn known<const WHOLE: bool>(&self) -> (usize, u32) {
        let known = (self.channels - self.first).min(CHANNELS);
        (known, if WHOLE { u32::MAX } else { ((1u64 << known) - 1) as u32 })
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn write_rows<const ADD: bool, const WHOLE: bool>(&mut self, rows: Range<usize>) {
        let (_, mask) = self.known::<WHOLE>();
        let mut sums = self.sums;
        let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        let places = &self.places[self.place..][rows.clone()];
        for (values, &place) in self.block.0[rows].iter().zip(places) {
            if place == NOWHERE {
                continue;
            }
            let to = self.to.at(place + self.first);
            // SAFETY: `values` has 32 numbers; the mask lets the channels through that the pixel has from `first` on,
            // which exist, as `new` has checked, and belong to `self`.
            unsafe {
                let mut low = _mm512_loadu_ps(values.as_ptr());
                let mut high = _mm512_loadu_ps(values.as_ptr().add(SIDE));
                if ADD {
                    let before = widened(_mm512_maskz_loadu_epi16(mask, to.cast()));
                    low = _mm512_add_ps(low, before[0]);
                    high = _mm512_add_ps(high, before[1]);
                }
                let rounded = store::<WHOLE>(to, mask, [low, high]);
                let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(rounded));
                let odd = _mm512_castsi512_ps(_mm512_and_si512(rounded, upper));
                sums[0] = _mm512_add_ps(sums[0], even);
                sums[1] = _mm512_add_ps(sums[1], odd);
                sums[2] = _mm512_fmadd_ps(even, even, sums[2]);
                sums[3] = _mm512_fmadd_ps(odd, odd, sums[3]);
            }
        }
        self.sums = sums;
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn write_normalized<const WHOLE: bool>(&mut self, rows: Range<usize>, norm: &Normalize<bf16>) {
        let (known, mask) = self.known::<WHOLE>();
        let of_channels = |values: &[f32]| {
            let from = values[self.first..][..known].as_ptr();
            // SAFETY: the mask lets the `known` numbers of the slice through.
            unsafe {
                [
                    _mm512_maskz_loadu_ps(mask as u16, from),
                    _mm512_maskz_loadu_ps((mask >> SIDE) as u16, from.wrapping_add(SIDE)),
                ]
            }
        };
        let (scale, shift) = (of_channels(norm.scale), of_channels(norm.shift));
        let floor = _mm512_set1_ps(norm.floor());
        let places = &self.places[self.place..][rows.clone()];
        for (values, &place) in self.block.0[rows].iter().zip(places) {
            if place == NOWHERE {
                continue;
            }
            let to = self.to.at(place + self.first);
            // SAFETY: `values` has 32 numbers; the mask lets the channels through that the pixel has from `first` on,
            // which exist in the destination and in the residual, as `new` has checked, and belong to `self`.
            unsafe {
                let mut halves = [0, SIDE].map(|at| _mm512_loadu_ps(values.as_ptr().add(at)));
                let mut residual = [_mm512_setzero_ps(); 2];
                if let Some(from) = norm.residual {
                    let from = from.as_ptr().add(place + self.first);
                    residual = widened(_mm512_maskz_loadu_epi16(mask, from.cast()));
                }
                for i in 0..2 {
                    let v = _mm512_add_ps(_mm512_fmadd_ps(halves[i], scale[i], shift[i]), residual[i]);
                    halves[i] = _mm512_max_ps(floor, v);
                }
                store::<WHOLE>(to, mask, halves);
            }
        }
    }

    /// Writes what is left of the block, and adds its sums to the totals.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn end_block(&mut self) {
        self.write_some(PLACES);
        let sums = std::mem::replace(&mut self.sums, [_mm512_setzero_ps(); 4]);
        let Some(totals) = &mut self.totals else { return };
        let totals = totals[self.first / CHANNELS * SUMS..][..SUMS].as_chunks_mut::<SIDE>().0;
        for (total, sum) in totals.iter_mut().zip(sums) {
            let (low, high) = total.split_at_mut(SIDE / 2);
            // SAFETY: both halves have eight numbers.
            unsafe {
                let low_sum = _mm512_cvtps_pd(_mm512_castps512_ps256(sum));
                let high_sum = _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(sum));
                _mm512_storeu_pd(low.as_mut_ptr(), _mm512_add_pd(_mm512_loadu_pd(low.as_ptr()), low_sum));
                _mm512_storeu_pd(high.as_mut_ptr(), _mm512_add_pd(_mm512_loadu_pd(high.as_ptr()), high_sum));
            }
        }
    }

    /// Ends the piece. Returns its sums, if they are wanted, for [`unpack`].
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub fn end(mut self) -> Option<Scratch<f64>> {
        self.end_block();
        self.totals
    }
}

/// Writes a piece's `totals` as [sum per channel, sum of squares per channel].
pub fn unpack(totals: &[f64], to: &mut [f64]) {
    let (plain, squares) = to.split_at_mut(to.len() / 2);
    for (channel, (plain, square)) in plain.iter_mut().zip(squares).enumerate() {
        let (block, within) = (channel / CHANNELS, channel % CHANNELS);
        let at = block * SUMS + within % 2 * SIDE + within / 2;
        (*plain, *square) = (totals[at], totals[at + 2 * SIDE]);
    }
}

/// 32 values of bf16 as two vectors of f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn widened(values: __m512i) -> [__m512; 2] {
    [_mm512_castsi512_si256(values), _mm512_extracti64x4_epi64::<1>(values)]
        .map(|half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))))
}

/// Rounds the two halves of 32 values and stores those of the mask, which is full if `WHOLE`. Returns all of them.
///
/// # Safety
///
/// `to` must be valid for writing the values of the mask.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn store<const WHOLE: bool>(to: *mut bf16, mask: u32, [low, high]: [__m512; 2]) -> __m512i {
    // SAFETY: both types are 512 bits of any values; the caller's promise.
    unsafe {
        let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        match WHOLE {
            true => _mm512_storeu_si512(to.cast(), rounded),
            false => _mm512_mask_storeu_epi16(to.cast(), mask, rounded),
        }
        rounded
    }
}
