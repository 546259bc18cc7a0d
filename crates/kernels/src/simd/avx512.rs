//! Vectors of sixteen numbers, for AVX-512, with bf16 products where the processor has them.

use half::bf16;
use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the processor has AVX-512 F, BW, DQ and VL, and with `BF16` also AVX512_BF16.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const BF16: bool>(());

/// Runs `kernel` compiled for AVX-512.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<false>(()))
}

/// Runs `kernel` compiled for AVX-512 with AVX512_BF16.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) fn run_bf16<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<true>(()))
}

/// A mask of the first `lanes` of 16 lanes.
#[inline(always)]
pub(crate) fn first_lanes(lanes: usize) -> __mmask16 {
    ((1u32 << lanes) - 1) as __mmask16
}

/// Sixteen f32 values rounded to bf16. With `BF16`, subnormal numbers become 0, since the instruction flushes them.
///
/// # Safety
///
/// The processor must have AVX-512 F and BW, and with `BF16` also AVX512_BF16.
#[inline(always)]
unsafe fn narrow16<const BF16: bool>(v: __m512) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        if BF16 {
            return std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
        }
        let bits = _mm512_castps_si512(v);
        let upper = _mm512_srli_epi32::<16>(bits);
        let odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
        let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        let chosen = _mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x40));
        _mm512_cvtepi32_epi16(chosen)
    }
}

/// Sixteen bf16 values widened to f32.
///
/// # Safety
///
/// The processor must have AVX-512 F.
#[inline(always)]
unsafe fn widen16(v: __m256i) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(v))) }
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type V = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the token proves AVX-512 F, the caller vouches for sixteen numbers.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m512) {
        // SAFETY: the token proves AVX-512 F, the caller vouches for sixteen numbers.
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, lanes: usize) -> __m512 {
        // SAFETY: the token proves AVX-512 F, the caller vouches for the lanes that the mask lets through.
        unsafe { _mm512_maskz_loadu_ps(first_lanes(lanes), from) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, v: __m512, lanes: usize) {
        // SAFETY: the token proves AVX-512 F, the caller vouches for the lanes that the mask lets through.
        unsafe { _mm512_mask_storeu_ps(to, first_lanes(lanes), v) }
    }
    #[inline(always)]
    fn where_positive(self, gate: __m512, v: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_ps()), v) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512 F.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, v: __m512) {
        // SAFETY: the token proves AVX-512 F, the caller vouches for sixteen aligned numbers.
        unsafe { _mm512_stream_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn stream_bf16(self, to: *mut bf16, v: __m512) {
        // SAFETY: the token proves AVX-512 F, the caller vouches for sixteen aligned numbers.
        unsafe { _mm256_stream_si256(to.cast(), narrow16::<BF16>(v)) }
    }
    #[inline(always)]
    fn finish_streams(self) {
        // SAFETY: every x86-64 processor has SSE.
        unsafe { _mm_sfence() }
    }
    #[inline(always)]
    fn dot_pairs(self, a: __m512, b: __m512, acc: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512 F, and AVX512_BF16 where it is used; any bits make a vector of either type.
        unsafe {
            if BF16 {
                let pairs = |v| std::mem::transmute::<__m512, __m512bh>(v);
                return _mm512_dpbf16_ps(acc, pairs(a), pairs(b));
            }
            let low = |v| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(v)));
            let high = _mm512_castsi512_ps(_mm512_set1_epi32(0xffff_0000_u32 as i32));
            let acc = _mm512_fmadd_ps(low(a), low(b), acc);
            _mm512_fmadd_ps(_mm512_and_ps(a, high), _mm512_and_ps(b, high), acc)
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m512 {
        // SAFETY: the token proves AVX-512 F, the caller vouches for sixteen numbers.
        unsafe { widen16(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_first_bf16(self, from: *const bf16, lanes: usize) -> __m512 {
        // SAFETY: the token proves AVX-512 BW and VL, the caller vouches for the lanes that the mask lets through.
        unsafe { widen16(_mm256_maskz_loadu_epi16(first_lanes(lanes), from.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, v: __m512) {
        // SAFETY: the token proves AVX-512 F, the caller vouches for sixteen numbers.
        unsafe { _mm256_storeu_si256(to.cast(), narrow16::<BF16>(v)) }
    }
    #[inline(always)]
    unsafe fn store_first_bf16(self, to: *mut bf16, v: __m512, lanes: usize) {
        // SAFETY: the token proves AVX-512 BW and VL, the caller vouches for the lanes that the mask lets through.
        unsafe { _mm256_mask_storeu_epi16(to.cast(), first_lanes(lanes), narrow16::<BF16>(v)) }
    }
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}
