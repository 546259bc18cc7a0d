//! Eight lanes, AVX2.
//!
//! The functions below use AVX2 instructions without checking for them: they are private to [`super`], which reaches
//! them only through an [`simclr_isa::Isa`] whose level proves AVX2.

use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Sub};

use super::{Vector, each};

const LANES: usize = 8;

#[derive(Clone, Copy, Debug)]
pub(super) struct F32x8(__m256);

macro_rules! arithmetic {
    ($trait:ident, $method:ident, $intrinsic:ident) => {
        impl $trait for F32x8 {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: AVX2 is proven by the `Isa` through which alone this type is reached.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    };
}

arithmetic!(Add, add, _mm256_add_ps);
arithmetic!(Sub, sub, _mm256_sub_ps);
arithmetic!(Mul, mul, _mm256_mul_ps);
arithmetic!(Div, div, _mm256_div_ps);

/// Lanes 0, 3, 6 of the first vector, 1, 4, 7 of the second and 2, 5 of the third, permuted by `order`.
#[inline(always)]
fn deal(first: __m256, second: __m256, third: __m256, order: __m256i) -> __m256 {
    // SAFETY: AVX2 is proven by the `Isa`.
    unsafe {
        let two = _mm256_blend_ps::<0b1001_0010>(first, second);
        _mm256_permutevar8x32_ps(_mm256_blend_ps::<0b0010_0100>(two, third), order)
    }
}

impl Vector for F32x8 {
    const LANES: usize = LANES;

    type Index = __m256i;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`; the values are there by the caller's promise.
        Self(unsafe { _mm256_loadu_ps(source) })
    }

    #[inline(always)]
    unsafe fn store(self, out: *mut f32) {
        // SAFETY: AVX2 is proven by the `Isa`; there is room by the caller's promise.
        unsafe { _mm256_storeu_ps(out, self.0) }
    }

    #[inline(always)]
    unsafe fn load_bytes(source: *const u8) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`; the bytes are there by the caller's promise.
        Self(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(source.cast()))) })
    }

    #[inline(always)]
    unsafe fn load_pixels(source: *const f32) -> [Self; 3] {
        // SAFETY: AVX2 is proven by the `Isa`; the values are there by the caller's promise.
        unsafe {
            let [a, b, c] = each!([0, 1, 2], part => Self::load(source.add(part * LANES)).0);
            // Channel k of pixel i is value 3 i + k, in lane (3 i + k) mod 8 of one of the three vectors. The eight
            // pixels of a channel use eight different lanes.
            [
                Self(deal(a, b, c, _mm256_setr_epi32(0, 3, 6, 1, 4, 7, 2, 5))),
                Self(deal(c, a, b, _mm256_setr_epi32(1, 4, 7, 2, 5, 0, 3, 6))),
                Self(deal(b, c, a, _mm256_setr_epi32(2, 5, 0, 3, 6, 1, 4, 7))),
            ]
        }
    }

    #[inline(always)]
    unsafe fn store_pixels(pixels: [Self; 3], out: *mut u8) {
        // SAFETY: AVX2 is proven by the `Isa`; there is room for the 16 + 8 bytes by the caller's promise.
        unsafe {
            let scale = _mm256_set1_ps(255.0);
            let [red, green, blue] = each!(pixels, v => _mm256_cvtps_epi32(_mm256_mul_ps(v.0, scale)));
            let words = _mm256_or_si256(
                red,
                _mm256_or_si256(_mm256_slli_epi32::<8>(green), _mm256_slli_epi32::<16>(blue)),
            );
            // Move three bytes of every four to the front of each half, then join the halves.
            let front = _mm256_setr_epi8(
                0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13,
                14, -1, -1, -1, -1,
            );
            let bytes = _mm256_shuffle_epi8(words, front);
            let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7));
            _mm_storeu_si128(out.cast(), _mm256_castsi256_si128(bytes));
            _mm_storel_epi64(out.add(16).cast(), _mm256_extracti128_si256::<1>(bytes));
        }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn if_equal(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0)) })
    }

    #[inline(always)]
    fn if_less(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0)) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`.
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    unsafe fn index(source: *const u32) -> Self::Index {
        // SAFETY: AVX2 is proven by the `Isa`; the values are there by the caller's promise.
        unsafe { _mm256_loadu_si256(source.cast()) }
    }

    #[inline(always)]
    unsafe fn lookup(source: *const f32, index: Self::Index) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`; the values are there by the caller's promise.
        unsafe { Self(_mm256_permutevar8x32_ps(_mm256_loadu_ps(source), index)) }
    }

    #[inline(always)]
    unsafe fn lookup_wide(source: *const f32, index: Self::Index) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`; the values are there by the caller's promise.
        unsafe {
            let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(source), index);
            let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(source.add(LANES)), index);
            // The sign bit chooses: bit 3 of the index, shifted there.
            Self(_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index))))
        }
    }

    #[inline(always)]
    unsafe fn gather(source: *const f32, index: Self::Index) -> Self {
        // SAFETY: AVX2 is proven by the `Isa`; the values are there by the caller's promise.
        unsafe { Self(_mm256_i32gather_ps::<4>(source, index)) }
    }
}
