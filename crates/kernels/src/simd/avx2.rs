//! Vectors of eight numbers, for AVX2 and FMA.

use half::bf16;
use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Runs `kernel` compiled for AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// All bits set in the first `lanes` lanes.
#[inline(always)]
fn mask8(lanes: usize) -> __m256i {
    const BITS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    let window = &BITS[8 - lanes..][..8];
    // SAFETY: `window` holds eight integers; AVX is proven by the token of every caller.
    unsafe { _mm256_loadu_si256(window.as_ptr().cast()) }
}

/// Eight bf16 values widened to f32.
///
/// # Safety
///
/// The processor must have AVX2.
#[inline(always)]
unsafe fn widen8(v: __m128i) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(v))) }
}

/// Eight f32 values rounded to bf16, as by `Element::narrow`.
///
/// # Safety
///
/// The processor must have AVX2.
#[inline(always)]
unsafe fn narrow8(v: __m256) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let upper = _mm256_srli_epi32::<16>(bits);
        let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half));
        let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let chosen = _mm256_blendv_epi8(rounded, quiet, nan);
        let packed = _mm256_packus_epi32(chosen, chosen);
        _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed))
    }
}

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: the token proves AVX, the caller vouches for eight numbers.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m256) {
        // SAFETY: the token proves AVX, the caller vouches for eight numbers.
        unsafe { _mm256_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, lanes: usize) -> __m256 {
        // SAFETY: the token proves AVX, the caller vouches for the lanes that the mask lets through.
        unsafe { _mm256_maskload_ps(from, mask8(lanes)) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, v: __m256, lanes: usize) {
        // SAFETY: the token proves AVX, the caller vouches for the lanes that the mask lets through.
        unsafe { _mm256_maskstore_ps(to, mask8(lanes), v) }
    }
    #[inline(always)]
    fn where_positive(self, gate: __m256, v: __m256) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(gate, _mm256_setzero_ps()), v) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, v: __m256) {
        // SAFETY: the token proves AVX, the caller vouches for eight aligned numbers.
        unsafe { _mm256_stream_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn stream_bf16(self, to: *mut bf16, v: __m256) {
        // SAFETY: the token proves AVX2, the caller vouches for eight aligned numbers.
        unsafe { _mm_stream_si128(to.cast(), narrow8(v)) }
    }
    #[inline(always)]
    fn finish_streams(self) {
        // SAFETY: every x86-64 processor has SSE.
        unsafe { _mm_sfence() }
    }
    #[inline(always)]
    fn dot_pairs(self, a: __m256, b: __m256, acc: __m256) -> __m256 {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            let high = _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32));
            let low = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(v)));
            let acc = _mm256_fmadd_ps(low(a), low(b), acc);
            _mm256_fmadd_ps(_mm256_and_ps(a, high), _mm256_and_ps(b, high), acc)
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m256 {
        // SAFETY: the token proves AVX2, the caller vouches for eight numbers.
        unsafe { widen8(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_first_bf16(self, from: *const bf16, lanes: usize) -> __m256 {
        let mut numbers = [bf16::ZERO; 8];
        // SAFETY: the caller vouches for `lanes` numbers, and lanes <= 8.
        unsafe { std::ptr::copy_nonoverlapping(from, numbers.as_mut_ptr(), lanes) };
        // SAFETY: the token proves AVX2, and `numbers` has eight.
        unsafe { widen8(_mm_loadu_si128(numbers.as_ptr().cast())) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, v: __m256) {
        // SAFETY: the token proves AVX2, the caller vouches for eight numbers.
        unsafe { _mm_storeu_si128(to.cast(), narrow8(v)) }
    }
    #[inline(always)]
    unsafe fn store_first_bf16(self, to: *mut bf16, v: __m256, lanes: usize) {
        let mut numbers = [bf16::ZERO; 8];
        // SAFETY: the token proves AVX2; `numbers` has eight, of which the caller vouches for `lanes <= 8`.
        unsafe {
            _mm_storeu_si128(numbers.as_mut_ptr().cast(), narrow8(v));
            std::ptr::copy_nonoverlapping(numbers.as_ptr(), to, lanes);
        }
    }
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}
