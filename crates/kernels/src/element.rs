//! The storage types of activations and their gradients: f32, or bf16 to move half as many bytes.
//!
//! Arithmetic is in f32 for both: values are widened as they are read and rounded to nearest as they are written.
//! Only direct convolutions multiply bf16 values unwidened, two products a lane, and accumulate in f32.

use bytemuck::Pod;
use half::bf16;

use crate::simd::Simd;

/// The type of stored values.
pub trait Element: Pod + Default + PartialEq + Send + Sync + std::fmt::Debug + private::Sealed {
    /// Values in a unit of 32 bits, the operand of a convolution's register tile.
    const PER_UNIT: usize;
    /// Whether the type is bf16: see `Kernel::BF16`.
    const BF16: bool;

    /// The value in f32, exactly.
    fn widen(self) -> f32;
    /// The nearest value, ties to even. NaN stays NaN.
    fn narrow(x: f32) -> Self;
    /// The bits of a unit of the first `PER_UNIT` of the given values.
    fn unit(values: [Self; 2]) -> f32;
    /// `acc` plus the product of two units: for units of two values, the sum of both products.
    fn multiply_units<S: Simd>(simd: S, a: S::V, b: S::V, acc: S::V) -> S::V;

    /// Reads and widens a vector.
    ///
    /// # Safety
    ///
    /// `from` must be valid for reading `S::LANES` values.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::V;
    /// Reads and widens the first `lanes <= S::LANES` values; the other lanes are 0.
    ///
    /// # Safety
    ///
    /// `from` must be valid for reading `lanes` values.
    unsafe fn load_first<S: Simd>(simd: S, from: *const Self, lanes: usize) -> S::V;
    /// Like [`Element::load_first`], but faster where `lanes` is `S::LANES`.
    ///
    /// # Safety
    ///
    /// `from` must be valid for reading `lanes` values.
    #[inline(always)]
    unsafe fn load_some<S: Simd>(simd: S, from: *const Self, lanes: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            if lanes == S::LANES { Self::load(simd, from) } else { Self::load_first(simd, from, lanes) }
        }
    }
    /// Rounds and writes a vector.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writing `S::LANES` values.
    unsafe fn store<S: Simd>(simd: S, to: *mut Self, v: S::V);
    /// Rounds and writes a vector past the caches: see `Simd::finish_streams`.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writing `S::LANES` values, and aligned to their total size.
    unsafe fn stream<S: Simd>(simd: S, to: *mut Self, v: S::V);
    /// Rounds and writes the first `lanes <= S::LANES` values.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writing `lanes` values.
    unsafe fn store_first<S: Simd>(simd: S, to: *mut Self, v: S::V, lanes: usize);
    /// Like [`Element::store_first`], but faster where `lanes` is `S::LANES`.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writing `lanes` values.
    #[inline(always)]
    unsafe fn store_some<S: Simd>(simd: S, to: *mut Self, v: S::V, lanes: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            if lanes == S::LANES { Self::store(simd, to, v) } else { Self::store_first(simd, to, v, lanes) }
        }
    }
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
}

impl Element for f32 {
    const PER_UNIT: usize = 1;
    const BF16: bool = false;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn unit(values: [f32; 2]) -> f32 {
        values[0]
    }
    #[inline(always)]
    fn multiply_units<S: Simd>(simd: S, a: S::V, b: S::V, acc: S::V) -> S::V {
        simd.mul_add(a, b, acc)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const f32) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { simd.load(from) }
    }
    #[inline(always)]
    unsafe fn load_first<S: Simd>(simd: S, from: *const f32, lanes: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { simd.load_first(from, lanes) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(simd: S, to: *mut f32, v: S::V) {
        // SAFETY: the caller's promise.
        unsafe { simd.store(to, v) }
    }
    #[inline(always)]
    unsafe fn stream<S: Simd>(simd: S, to: *mut f32, v: S::V) {
        // SAFETY: the caller's promise.
        unsafe { simd.stream(to, v) }
    }
    #[inline(always)]
    unsafe fn store_first<S: Simd>(simd: S, to: *mut f32, v: S::V, lanes: usize) {
        // SAFETY: the caller's promise.
        unsafe { simd.store_first(to, v, lanes) }
    }
}

impl Element for bf16 {
    const PER_UNIT: usize = 2;
    const BF16: bool = true;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> bf16 {
        bf16::from_bits(narrow_bits(x) as u16)
    }
    #[inline(always)]
    fn unit(values: [bf16; 2]) -> f32 {
        let [low, high] = values.map(|v| u32::from(v.to_bits()));
        f32::from_bits(low | (high << 16))
    }
    #[inline(always)]
    fn multiply_units<S: Simd>(simd: S, a: S::V, b: S::V, acc: S::V) -> S::V {
        simd.dot_pairs(a, b, acc)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const bf16) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { simd.load_bf16(from) }
    }
    #[inline(always)]
    unsafe fn load_first<S: Simd>(simd: S, from: *const bf16, lanes: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { simd.load_first_bf16(from, lanes) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(simd: S, to: *mut bf16, v: S::V) {
        // SAFETY: the caller's promise.
        unsafe { simd.store_bf16(to, v) }
    }
    #[inline(always)]
    unsafe fn stream<S: Simd>(simd: S, to: *mut bf16, v: S::V) {
        // SAFETY: the caller's promise.
        unsafe { simd.stream_bf16(to, v) }
    }
    #[inline(always)]
    unsafe fn store_first<S: Simd>(simd: S, to: *mut bf16, v: S::V, lanes: usize) {
        // SAFETY: the caller's promise.
        unsafe { simd.store_first_bf16(to, v, lanes) }
    }
}

/// The upper 16 bits of x, rounded to nearest, ties to even. Written so that loops over it vectorise.
#[inline(always)]
fn narrow_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    // Rounding would carry a NaN over into infinity or zero, and some NaNs beyond 32 bits.
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded }
}

/// The two bf16 values of a unit, widened: for vectors without conversion instructions of their own.
#[inline(always)]
pub(crate) fn halves(unit: f32) -> [f32; 2] {
    let bits = unit.to_bits();
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_rounds_as_the_half_crate_does() {
        let special = [0.0, -0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-40];
        let spread = (0..200_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b1)));
        for x in special.into_iter().chain(spread) {
            let (got, expected) = (bf16::narrow(x), bf16::from_f32(x));
            assert!(got.to_bits() == expected.to_bits() || x.is_nan() && got.widen().is_nan(), "{x:e}");
            assert_eq!(got.widen().to_bits(), got.to_f32().to_bits());
        }
        for bits in [0x7fff_ffff, 0xffff_ffff, 0x7f80_0001, 0xff80_0001] {
            assert!(bf16::narrow(f32::from_bits(bits)).widen().is_nan());
        }
    }

    #[test]
    fn a_unit_holds_its_values() {
        assert_eq!(halves(bf16::unit([1.5, -3.0].map(bf16::narrow))), [1.5, -3.0]);
        assert_eq!(f32::unit([1.5, -3.0]), 1.5);
    }
}
