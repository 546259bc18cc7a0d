//! What becomes of a block of sums: they are rounded to bf16 and written, and their sums per channel are taken while
//! they are in registers. This happens a few rows at a time between the products of the next block, which take as long:
//! the processor's window is too short to overlap whole blocks.

use super::lattice::NOWHERE;
use crate::Write;
use crate::scratch::{self, Scratch};
use crate::shared::SharedMut;
use crate::simd::amx::{SIDE, Tiles};
use half::bf16;
use std::arch::x86_64::*;
use std::ops::Range;

/// Places of a block: two tiles.
pub const PLACES: usize = 2 * SIDE;
/// Channels of a block: two tiles.
const CHANNELS: usize = 2 * SIDE;
/// Sums of a block of channels.
const SUMS: usize = 4 * SIDE;

/// The destination of a piece's sums.
pub struct Output<'a> {
    to: SharedMut<bf16>,
    write: Write,
    channels: usize,
    /// For each place of the piece the index of its pixel's first channel in `to`, or [`NOWHERE`].
    places: &'a [usize],
    /// Sums of the values written, if wanted: for each block of channels the sums of even and of odd channels, then
    /// those of their squares.
    totals: Option<Scratch<f64>>,
    /// The block that is being written: its values, its rows that are not written yet, the place of row 0, and its
    /// first channel.
    block: Block,
    rows: Range<usize>,
    place: usize,
    first: usize,
    /// The sums of the rows of this block that are written, in the order of `totals`.
    sums: [__m512; 4],
}

/// 32 places by 32 channels, on their own cache lines.
#[repr(align(64))]
struct Block([[f32; CHANNELS]; PLACES]);

impl<'a> Output<'a> {
    /// The destination of at least 32 `places`, each of `channels` channels. `sums` tells whether sums per channel are
    /// wanted.
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
        sums: bool,
    ) -> Output<'a> {
        assert!(places.len() >= PLACES);
        // The last pixel, too, must end within the destination.
        let pixels = places.iter().filter(|&&place| place != NOWHERE);
        to.from(pixels.max().map_or(0, |last| last + channels));
        let totals = sums.then(|| {
            let mut totals = scratch::take(channels.div_ceil(CHANNELS) * SUMS);
            totals.fill(0.0);
            totals
        });
        let sums = [_mm512_setzero_ps(); 4];
        let block = Block([[0.0; CHANNELS]; PLACES]);
        Output { to, write, channels, places, totals, block, rows: 0..0, place: 0, first: 0, sums }
    }

    /// Takes the sums of the 32 places from `place` on, without the first `skip`, and of the channels from `first` on, a
    /// multiple of 32. Writes what is left of the block before.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub fn take(&mut self, tiles: &Tiles, place: usize, skip: usize, first: usize) {
        self.end_block();
        assert!(place + PLACES <= self.places.len() && first < self.channels);
        tiles.store(bytemuck::cast_mut(&mut self.block.0));
        (self.rows, self.place, self.first) = (skip..PLACES, place, first);
    }

    /// Writes the next `rows` rows of the block that was taken last.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub fn write_some(&mut self, rows: usize) {
        if self.rows.is_empty() {
            return;
        }
        let rows = self.rows.start..self.rows.end.min(self.rows.start + rows);
        self.rows.start = rows.end;
        match (self.write, self.channels - self.first >= CHANNELS) {
            (Write::Add, _) => self.write_rows::<true, false>(rows),
            (Write::Over, true) => self.write_rows::<false, true>(rows),
            (Write::Over, false) => self.write_rows::<false, false>(rows),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    fn write_rows<const ADD: bool, const WHOLE: bool>(&mut self, rows: Range<usize>) {
        let known = (self.channels - self.first).min(CHANNELS);
        let mask = if WHOLE { u32::MAX } else { ((1u64 << known) - 1) as u32 };
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
                    let before = _mm512_maskz_loadu_epi16(mask, to.cast());
                    let widen = |v| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(v)));
                    low = _mm512_add_ps(low, widen(_mm512_castsi512_si256(before)));
                    high = _mm512_add_ps(high, widen(_mm512_extracti64x4_epi64::<1>(before)));
                }
                let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                if WHOLE {
                    _mm512_storeu_si512(to.cast(), rounded);
                } else {
                    _mm512_mask_storeu_epi16(to.cast(), mask, rounded);
                }
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

    /// Ends the piece: `to` receives [sum per channel, sum of squares per channel] if they are wanted.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub fn finish(mut self, to: &mut [f64]) {
        self.end_block();
        let Some(totals) = self.totals else { return };
        let (plain, squares) = to.split_at_mut(self.channels);
        for (channel, (plain, square)) in plain.iter_mut().zip(squares).enumerate() {
            let (block, within) = (channel / CHANNELS, channel % CHANNELS);
            let at = block * SUMS + within % 2 * SIDE + within / 2;
            (*plain, *square) = (totals[at], totals[at + 2 * SIDE]);
        }
    }
}
