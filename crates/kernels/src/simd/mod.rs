//! Vectors of f32 for kernels that are written once: generic over [`Simd`] and instantiated by [`dispatch`].
//!
//! A value of a type that implements [`Simd`] is the proof that the processor has its instructions: the x86
//! tokens exist only inside [`dispatch`], which makes them from an [`Isa`]. Arithmetic is therefore safe;
//! only reading and writing through pointers is not.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::first_lanes;
use half::bf16;

use crate::Isa;
#[cfg(target_arch = "x86_64")]
use crate::Level;

/// Bytes of a cache line, the unit of [`Simd::prefetch`] and the preferred alignment of streams.
pub(crate) const LINE: usize = 64;

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
    /// `a * b + c`, rounded once if the processor has a fused multiply-add.
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
    /// `v` where `gate` is above 0, else 0.
    fn where_positive(self, gate: Self::V, v: Self::V) -> Self::V;
    /// The greater of a and b, or b if either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Writes `LANES` numbers, bypassing the caches if the processor can: see [`Simd::finish_streams`].
    ///
    /// # Safety
    ///
    /// `to` must be valid for writing `LANES` numbers, and aligned to their total size.
    unsafe fn stream(self, to: *mut f32, v: Self::V);
    /// Rounds and writes `LANES` numbers as [`Simd::stream`] does.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writing `LANES` numbers, and aligned to their total size.
    unsafe fn stream_bf16(self, to: *mut bf16, v: Self::V);
    /// Orders streamed writes before all that follows. Must be called before another thread may read them.
    #[inline(always)]
    fn finish_streams(self) {}
    /// `acc` plus, in each lane, the sum of both products of the bf16 pairs that the lanes of a and b hold.
    fn dot_pairs(self, a: Self::V, b: Self::V, acc: Self::V) -> Self::V;
    /// Reads and widens `LANES` numbers.
    ///
    /// # Safety
    ///
    /// `from` must be valid for reading `LANES` numbers.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::V;
    /// Reads and widens the first `lanes <= LANES` numbers; the other lanes are 0.
    ///
    /// # Safety
    ///
    /// `from` must be valid for reading `lanes` numbers.
    unsafe fn load_first_bf16(self, from: *const bf16, lanes: usize) -> Self::V;
    /// Rounds and writes `LANES` numbers.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writing `LANES` numbers.
    unsafe fn store_bf16(self, to: *mut bf16, v: Self::V);
    /// Rounds and writes the first `lanes <= LANES` numbers.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writing `lanes` numbers.
    unsafe fn store_first_bf16(self, to: *mut bf16, v: Self::V, lanes: usize);
    /// Prefetches the cache line at `from`, which may be any address.
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        let _ = from;
    }
}

/// Work to be done with the vectors of one instruction set.
pub trait Kernel {
    /// What the work returns.
    type Output;
    /// Whether the kernel handles bf16. If not, AVX512_BF16 makes no difference, so it is compiled once for both.
    const BF16: bool;
    /// Does the work. Mark the implementation, and all that it calls with `simd`, `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Numbers in a vector of `isa`.
pub fn lanes(isa: Isa) -> usize {
    struct Lanes;

    impl Kernel for Lanes {
        type Output = usize;
        const BF16: bool = false;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            S::LANES
        }
    }

    dispatch(isa, Lanes)
}

/// Runs `kernel`, compiled for `isa`.
#[inline]
pub fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    match isa.level() {
        Level::Portable => {}
        // SAFETY: an `Isa` of this level exists only where `Isa::detect` found AVX2 and FMA.
        Level::Avx2 => return unsafe { avx2::run(kernel) },
        // SAFETY: an `Isa` of this level exists only where `Isa::detect` found AVX-512 F, BW, DQ and VL.
        Level::Avx512 => return unsafe { avx512::run(kernel) },
        // SAFETY: as for `Avx512`, and `Isa::detect` also found AVX512_BF16.
        Level::Avx512Bf16 | Level::Amx if K::BF16 => return unsafe { avx512::run_bf16(kernel) },
        // SAFETY: as for `Avx512`, which these levels include.
        Level::Avx512Bf16 | Level::Amx => return unsafe { avx512::run(kernel) },
    }
    let _ = isa;
    kernel.run(portable::Portable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Element;

    struct Roundtrip;

    impl Kernel for Roundtrip {
        type Output = ();
        const BF16: bool = true;
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

    struct Bf16Roundtrip;

    impl Kernel for Bf16Roundtrip {
        type Output = ();
        const BF16: bool = true;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let numbers = [1.003, -2.7, f32::MAX, f32::INFINITY, -0.0, 3.0e-38, 1.003_906_2, 1.011_718_7];
            let from: Vec<f32> = (0..S::LANES).map(|i| numbers[i % numbers.len()]).collect();
            for lanes in 0..=S::LANES {
                let mut to = vec![bf16::ONE; S::LANES];
                let mut back = vec![7.0f32; S::LANES];
                // SAFETY: all slices hold LANES numbers.
                unsafe {
                    simd.store_first_bf16(to.as_mut_ptr(), simd.load(from.as_ptr()), lanes);
                    simd.store(back.as_mut_ptr(), simd.load_first_bf16(to.as_ptr(), lanes));
                }
                for i in 0..S::LANES {
                    let rounded = bf16::from_f32(from[i]);
                    assert_eq!(to[i], if i < lanes { rounded } else { bf16::ONE });
                    assert_eq!(back[i], if i < lanes { rounded.to_f32() } else { 0.0 });
                }
            }
            let mut to = vec![bf16::ONE; S::LANES];
            let mut sums = vec![0.0f32; S::LANES];
            let pairs: Vec<f32> =
                (0..S::LANES).map(|i| bf16::unit([i as f32, 0.5].map(bf16::narrow))).collect();
            // SAFETY: all slices hold LANES numbers.
            unsafe {
                simd.store_bf16(to.as_mut_ptr(), simd.splat(f32::NAN));
                let pairs = simd.load(pairs.as_ptr());
                simd.store(sums.as_mut_ptr(), simd.dot_pairs(pairs, pairs, simd.splat(2.0)));
            }
            assert!(to.iter().all(|v| v.is_nan()));
            assert!(sums.iter().enumerate().all(|(i, &sum)| sum == (i * i) as f32 + 2.25));
        }
    }

    #[test]
    fn bf16_rounds_to_nearest_and_multiplies_in_pairs() {
        for isa in Isa::all() {
            dispatch(isa, Bf16Roundtrip);
        }
    }

    #[test]
    fn partial_loads_stores_and_arithmetic() {
        for isa in Isa::all() {
            dispatch(isa, Roundtrip);
        }
    }
}
