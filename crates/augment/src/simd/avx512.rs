//! Sixteen lanes, AVX-512.
//!
//! The functions below use AVX-512 instructions without checking for them: they are private to [`super`], which
//! reaches them only through an [`simclr_isa::Isa`] whose level proves AVX-512 F and BW.

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

use super::{Vector, each};

const LANES: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(super) struct F32x16(__m512);

macro_rules! arithmetic {
    ($trait:ident, $method:ident, $intrinsic:ident) => {
        impl $trait for F32x16 {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: AVX-512 is proven by the `Isa` through which alone this type is reached.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    };
}

arithmetic!(Add, add, _mm512_add_ps);
arithmetic!(Sub, sub, _mm512_sub_ps);
arithmetic!(Mul, mul, _mm512_mul_ps);
arithmetic!(Div, div, _mm512_div_ps);

/// The orders that find channel k of pixel i, value 3 i + k, in two steps: the first takes values below 32 from two
/// vectors, the second takes values from the result of the first and a third vector.
const DEAL: [[[i32; LANES]; 2]; 3] = {
    let mut deal = [[[0; LANES]; 2]; 3];
    let mut n = 0;
    while n < 3 * LANES {
        let (pixel, channel) = (n / 3, n % 3);
        let near = n < 2 * LANES;
        deal[channel][0][pixel] = if near { n as i32 } else { 0 };
        deal[channel][1][pixel] = if near { pixel as i32 } else { n as i32 - LANES as i32 };
        n += 1;
    }
    deal
};

impl Vector for F32x16 {
    const LANES: usize = LANES;

    type Index = __m512i;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`; the values are there by the caller's promise.
        Self(unsafe { _mm512_loadu_ps(source) })
    }

    #[inline(always)]
    unsafe fn store(self, out: *mut f32) {
        // SAFETY: AVX-512 is proven by the `Isa`; there is room by the caller's promise.
        unsafe { _mm512_storeu_ps(out, self.0) }
    }

    #[inline(always)]
    unsafe fn load_bytes(source: *const u8) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`; the bytes are there by the caller's promise.
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(source.cast()))) })
    }

    #[inline(always)]
    unsafe fn load_pixels(source: *const f32) -> [Self; 3] {
        // SAFETY: AVX-512 is proven by the `Isa`; the values are there by the caller's promise, and both orders
        // have the 16 indices that are read.
        unsafe {
            let [a, b, c] = each!([0, 1, 2], part => Self::load(source.add(part * LANES)).0);
            each!([0, 1, 2], k => {
                let near = _mm512_loadu_si512(DEAL[k][0].as_ptr().cast());
                let far = _mm512_loadu_si512(DEAL[k][1].as_ptr().cast());
                Self(_mm512_permutex2var_ps(_mm512_permutex2var_ps(a, near, b), far, c))
            })
        }
    }

    #[inline(always)]
    unsafe fn store_pixels(pixels: [Self; 3], out: *mut u8) {
        // SAFETY: AVX-512 is proven by the `Isa`; the mask keeps the twelve words, 48 bytes, that can be written by
        // the caller's promise.
        unsafe {
            let scale = _mm512_set1_ps(255.0);
            let [red, green, blue] = each!(pixels, v => _mm512_cvtps_epi32(_mm512_mul_ps(v.0, scale)));
            let words = _mm512_or_si512(
                red,
                _mm512_or_si512(_mm512_slli_epi32::<8>(green), _mm512_slli_epi32::<16>(blue)),
            );
            // Move three bytes of every four to the front of each quarter, then join the quarters.
            let front =
                _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
            let together = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
            let bytes = _mm512_permutexvar_epi32(together, _mm512_shuffle_epi8(words, front));
            _mm512_mask_storeu_epi32(out.cast(), 0x0fff, bytes);
        }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn if_equal(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`.
        unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0);
            Self(_mm512_mask_blend_ps(mask, no.0, yes.0))
        }
    }

    #[inline(always)]
    fn if_less(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`.
        unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0);
            Self(_mm512_mask_blend_ps(mask, no.0, yes.0))
        }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    unsafe fn index(source: *const u32) -> Self::Index {
        // SAFETY: AVX-512 is proven by the `Isa`; the values are there by the caller's promise.
        unsafe { _mm512_loadu_si512(source.cast()) }
    }

    #[inline(always)]
    unsafe fn lookup(source: *const f32, index: Self::Index) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`; the values are there by the caller's promise.
        unsafe { Self(_mm512_permutexvar_ps(index, _mm512_loadu_ps(source))) }
    }

    #[inline(always)]
    unsafe fn lookup_wide(source: *const f32, index: Self::Index) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`; the values are there by the caller's promise.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(source), _mm512_loadu_ps(source.add(LANES)));
            Self(_mm512_permutex2var_ps(low, index, high))
        }
    }

    #[inline(always)]
    unsafe fn gather(source: *const f32, index: Self::Index) -> Self {
        // SAFETY: AVX-512 is proven by the `Isa`; the values are there by the caller's promise.
        unsafe { Self(_mm512_i32gather_ps::<4>(index, source)) }
    }
}
