//! The specification of the vector operations, in plain Rust.

use std::array::from_fn;
use std::ops::{Add, Div, Mul, Sub};

use super::Vector;

const LANES: usize = 8;

/// Eight values, a number that the compiler turns into the vectors of any processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Array([f32; LANES]);

impl Array {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Add for Array {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Array {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul for Array {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
}

impl Div for Array {
    type Output = Self;

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
}

/// Adding 2^23 leaves no bits for a fraction, so the sum is rounded and its low byte is the integer.
#[inline(always)]
fn to_byte(value: f32) -> u8 {
    (value * 255.0 + 8_388_608.0).to_bits() as u8
}

impl Vector for Array {
    const LANES: usize = LANES;

    type Index = [u32; LANES];

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    unsafe fn load(source: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(from_fn(|i| unsafe { *source.add(i) }))
    }

    #[inline(always)]
    unsafe fn store(self, out: *mut f32) {
        for (i, value) in self.0.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *out.add(i) = value }
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(source: *const u8) -> Self {
        // SAFETY: the caller's promise.
        Self(from_fn(|i| f32::from(unsafe { *source.add(i) })))
    }

    #[inline(always)]
    unsafe fn load_pixels(source: *const f32) -> [Self; 3] {
        // SAFETY: the caller's promise.
        from_fn(|channel| Self(from_fn(|i| unsafe { *source.add(3 * i + channel) })))
    }

    #[inline(always)]
    unsafe fn store_pixels(pixels: [Self; 3], out: *mut u8) {
        for i in 0..LANES {
            for (channel, values) in pixels.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { *out.add(3 * i + channel) = to_byte(values.0[i]) }
            }
        }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn if_equal(self, other: Self, yes: Self, no: Self) -> Self {
        Self(from_fn(|i| if self.0[i] == other.0[i] { yes.0[i] } else { no.0[i] }))
    }

    #[inline(always)]
    fn if_less(self, other: Self, yes: Self, no: Self) -> Self {
        Self(from_fn(|i| if self.0[i] < other.0[i] { yes.0[i] } else { no.0[i] }))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    #[inline(always)]
    unsafe fn index(source: *const u32) -> Self::Index {
        // SAFETY: the caller's promise.
        from_fn(|i| unsafe { *source.add(i) })
    }

    #[inline(always)]
    unsafe fn lookup(source: *const f32, index: Self::Index) -> Self {
        // SAFETY: the caller's promise that every offset is below the number of readable values.
        unsafe { Self::gather(source, index) }
    }

    #[inline(always)]
    unsafe fn lookup_wide(source: *const f32, index: Self::Index) -> Self {
        // SAFETY: the caller's promise that every offset is below the number of readable values.
        unsafe { Self::gather(source, index) }
    }

    #[inline(always)]
    unsafe fn gather(source: *const f32, index: Self::Index) -> Self {
        // SAFETY: the caller's promise.
        Self(index.map(|i| unsafe { *source.add(i as usize) }))
    }
}
