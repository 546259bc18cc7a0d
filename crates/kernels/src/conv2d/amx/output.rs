//! What becomes of a block of sums: they are rounded to bf16 and written, and their sums per channel are taken while
//! they are in registers.

use super::lattice::NOWHERE;
use crate::Write;
use crate::scratch::{self, Scratch};
use crate::shared::SharedMut;
use crate::simd::amx::SIDE;
use half::bf16;
use std::arch::x86_64::*;

/// Places of a block: two tiles.
pub const PLACES: usize = 2 * SIDE;
/// Channels of a block: two tiles.
pub const CHANNELS: usize = 2 * SIDE;

/// Sums of products of 32 places, each of 32 channels, on their own cache lines.
#[repr(align(64))]
pub struct Block(pub [[f32; CHANNELS]; PLACES]);

impl Block {
    pub fn new() -> Block {
        Block([[0.0; CHANNELS]; PLACES])
    }
}

/// The destination of a piece's sums.
pub struct Output {
    pub to: SharedMut<bf16>,
    pub write: Write,
    /// Whether to write past the caches: whole lines of 32 channels, aligned to their size.
    pub stream: bool,
    /// Sums of the values written, if wanted: for each block of channels the sums of even and of odd channels, then
    /// those of their squares.
    sums: Option<Scratch<f64>>,
}

/// Sums of a block of channels.
const SUMS: usize = 4 * SIDE;

impl Output {
    /// `sums` tells whether sums per channel are wanted, of how many `channels`.
    pub fn new(to: SharedMut<bf16>, write: Write, stream: bool, sums: bool, channels: usize) -> Output {
        let sums = sums.then(|| {
            let mut sums = scratch::take(channels.div_ceil(CHANNELS) * SUMS);
            sums.fill(0.0);
            sums
        });
        Output { to, write, stream, sums }
    }

    /// Writes the sums of `channels` channels from `first` on, a multiple of 32, of each of the `places`, where they
    /// are pixels.
    ///
    /// # Safety
    ///
    /// Nothing else may use these channels of the pixels, which exist, at any of the `places`.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub unsafe fn block(
        &mut self,
        block: &[[f32; CHANNELS]],
        places: &[usize],
        first: usize,
        channels: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.write, self.stream, channels == CHANNELS) {
                (Write::Add, _, _) => self.rows::<true, false, false>(block, places, first, channels),
                (Write::Over, true, _) => self.rows::<false, true, true>(block, places, first, channels),
                (Write::Over, false, true) => self.rows::<false, false, true>(block, places, first, channels),
                (Write::Over, false, false) => {
                    self.rows::<false, false, false>(block, places, first, channels);
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn rows<const ADD: bool, const STREAM: bool, const WHOLE: bool>(
        &mut self,
        block: &[[f32; CHANNELS]],
        places: &[usize],
        first: usize,
        channels: usize,
    ) {
        let mask = if WHOLE { u32::MAX } else { ((1u64 << channels) - 1) as u32 };
        let mut sums = [_mm512_setzero_ps(); 4];
        let odd = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        for (values, &place) in block.iter().zip(places) {
            if place == NOWHERE {
                continue;
            }
            let to = self.to.at(place + first);
            // SAFETY: `values` has 32 numbers; the mask lets the channels through for which the caller vouches, all 32
            // if the lines are written whole.
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
                if STREAM {
                    _mm512_stream_si512(to.cast(), rounded);
                } else if WHOLE {
                    _mm512_storeu_si512(to.cast(), rounded);
                } else {
                    _mm512_mask_storeu_epi16(to.cast(), mask, rounded);
                }
                let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(rounded));
                let odd = _mm512_castsi512_ps(_mm512_and_si512(rounded, odd));
                sums[0] = _mm512_add_ps(sums[0], even);
                sums[1] = _mm512_add_ps(sums[1], odd);
                sums[2] = _mm512_fmadd_ps(even, even, sums[2]);
                sums[3] = _mm512_fmadd_ps(odd, odd, sums[3]);
            }
        }
        let Some(totals) = &mut self.sums else { return };
        let totals = totals[first / CHANNELS * SUMS..][..SUMS].as_chunks_mut::<SIDE>().0;
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

    /// Ends the piece: what was written past the caches is visible to other threads, and `to` receives [sum per channel,
    /// sum of squares per channel] if they are wanted.
    pub fn finish(self, to: &mut [f64]) {
        if self.stream {
            // SAFETY: every x86-64 processor has SSE.
            unsafe { _mm_sfence() };
        }
        let Some(sums) = self.sums else { return };
        let (plain, squares) = to.split_at_mut(to.len() / 2);
        for (channel, (plain, square)) in plain.iter_mut().zip(squares).enumerate() {
            let (block, within) = (channel / CHANNELS, channel % CHANNELS);
            let at = block * SUMS + within % 2 * SIDE + within / 2;
            (*plain, *square) = (sums[at], sums[at + 2 * SIDE]);
        }
    }
}
