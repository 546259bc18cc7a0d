//! Vectors of f32, written once: kernels are generic over [`Simd`] and instantiated by [`dispatch`].
//!
//! A value of a type that implements [`Simd`] is the proof that the processor has its instructions: the x86
//! tokens can only be had inside [`dispatch`], which makes them from an [`Isa`]. Arithmetic is therefore safe;
//! only reading and writing through pointers is not.

use crate::Isa;
#[cfg(target_arch = "x86_64")]
use crate::isa::Level;

/// Operations on vectors of [`Simd::LANES`] numbers.
pub trait Simd: Copy {
    /// A vector.
    type V: Copy;
    /// Numbers in a vector, a power of two.
    const LANES: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Reads `LANES` numbers, at any alignment.
    ///
    /// # Safety
    ///
    /// `from` must be valid for reading `LANES` numbers.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// Writes `LANES` numbers, at any alignment.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writing `LANES` numbers.
    unsafe fn store(self, to: *mut f32, v: Self::V);
    /// Reads the first `lanes <= LANES` numbers; the other lanes are 0.
    ///
    /// # Safety
    ///
    /// `from` must be valid for reading `lanes` numbers.
    unsafe fn load_first(self, from: *const f32, lanes: usize) -> Self::V;
    /// Writes the first `lanes <= LANES` numbers.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writing `lanes` numbers.
    unsafe fn store_first(self, to: *mut f32, v: Self::V, lanes: usize);
    /// Asks for the cache line at `from`, which may be any address.
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        let _ = from;
    }
}

/// Work to be done with the vectors of one instruction set.
pub trait Kernel {
    /// What the work returns.
    type Output;
    /// Does it. Mark the implementation, and all that it calls with `simd`, `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel`, compiled for `isa`.
#[inline]
pub fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    match isa.level() {
        Level::Portable => {}
        // SAFETY: an `Isa` of this level exists only where `Isa::detect` found AVX2 and FMA.
        Level::Avx2 => return unsafe { x86::run_avx2(kernel) },
        // SAFETY: an `Isa` of these levels exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL.
        Level::Avx512 | Level::Avx512Bf16 => return unsafe { x86::run_avx512(kernel) },
    }
    let _ = isa;
    kernel.run(Portable)
}

/// Four numbers in plain Rust, which every compiler turns into the 128-bit vectors of its processor.
#[derive(Clone, Copy)]
struct Portable;

#[derive(Clone, Copy)]
#[repr(align(16))]
struct Four([f32; 4]);

impl Simd for Portable {
    type V = Four;
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Four {
        Four([x; 4])
    }
    #[inline(always)]
    fn add(self, a: Four, b: Four) -> Four {
        Four(std::array::from_fn(|i| a.0[i] + b.0[i]))
    }
    #[inline(always)]
    fn sub(self, a: Four, b: Four) -> Four {
        Four(std::array::from_fn(|i| a.0[i] - b.0[i]))
    }
    #[inline(always)]
    fn mul(self, a: Four, b: Four) -> Four {
        Four(std::array::from_fn(|i| a.0[i] * b.0[i]))
    }
    #[inline(always)]
    fn mul_add(self, a: Four, b: Four, c: Four) -> Four {
        // Where the target has no fused form, `f32::mul_add` is a slow library call.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            Four(std::array::from_fn(|i| a.0[i].mul_add(b.0[i], c.0[i])))
        } else {
            self.add(self.mul(a, b), c)
        }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Four {
        // SAFETY: the caller vouches for four numbers, and the read is unaligned.
        Four(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Four) {
        // SAFETY: the caller vouches for four numbers, and the write is unaligned.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(v.0) }
    }
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, lanes: usize) -> Four {
        let mut v = [0.0; 4];
        for (i, v) in v.iter_mut().enumerate().take(lanes) {
            // SAFETY: the caller vouches for `lanes` numbers, and i < lanes.
            *v = unsafe { *from.add(i) };
        }
        Four(v)
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, v: Four, lanes: usize) {
        for (i, &v) in v.0.iter().enumerate().take(lanes) {
            // SAFETY: the caller vouches for `lanes` numbers, and i < lanes.
            unsafe { *to.add(i) = v };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Simd};
    use std::arch::x86_64::*;

    /// Proof of AVX2 and FMA.
    #[derive(Clone, Copy)]
    struct Avx2(());

    /// Proof of AVX-512 F, BW, DQ and VL.
    #[derive(Clone, Copy)]
    struct Avx512(());

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx2(()))
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512(()))
    }

    /// All bits set in the first `lanes` lanes.
    #[inline(always)]
    fn mask8(lanes: usize) -> __m256i {
        const BITS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        let window = &BITS[8 - lanes..][..8];
        // SAFETY: `window` holds eight integers; AVX is proven by the token of every caller.
        unsafe { _mm256_loadu_si256(window.as_ptr().cast()) }
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
        fn prefetch(self, from: *const f32) {
            // SAFETY: a prefetch of any address is harmless.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
    }

    /// The first `lanes` bits.
    #[inline(always)]
    fn mask16(lanes: usize) -> __mmask16 {
        ((1u32 << lanes) - 1) as __mmask16
    }

    impl Simd for Avx512 {
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
            unsafe { _mm512_maskz_loadu_ps(mask16(lanes), from) }
        }
        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, v: __m512, lanes: usize) {
            // SAFETY: the token proves AVX-512 F, the caller vouches for the lanes that the mask lets through.
            unsafe { _mm512_mask_storeu_ps(to, mask16(lanes), v) }
        }
        #[inline(always)]
        fn prefetch(self, from: *const f32) {
            // SAFETY: a prefetch of any address is harmless.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Roundtrip;

    impl Kernel for Roundtrip {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let from: Vec<f32> = (0..S::LANES + 1).map(|i| i as f32 + 1.0).collect();
            for lanes in 0..=S::LANES {
                let mut to = vec![-1.0; S::LANES + 2];
                // SAFETY: `from` and `to` hold LANES numbers from index 1 on.
                unsafe {
                    let v = simd.load_first(from.as_ptr().add(1), lanes);
                    simd.store(to.as_mut_ptr().add(1), v);
                }
                for i in 0..S::LANES {
                    assert_eq!(to[1 + i], if i < lanes { from[1 + i] } else { 0.0 });
                }
                to.fill(-1.0);
                // SAFETY: as above.
                unsafe {
                    let v = simd.load(from.as_ptr());
                    let v = simd.mul_add(v, simd.splat(2.0), simd.splat(1.0));
                    let v = simd.mul(simd.sub(simd.add(v, v), v), simd.splat(0.5));
                    simd.store_first(to.as_mut_ptr(), v, lanes);
                }
                for i in 0..S::LANES {
                    assert_eq!(to[i], if i < lanes { from[i] + 0.5 } else { -1.0 });
                }
            }
        }
    }

    #[test]
    fn partial_loads_stores_and_arithmetic() {
        for isa in Isa::all() {
            dispatch(isa, Roundtrip);
        }
    }
}
