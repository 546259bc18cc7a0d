//! Brightness: every channel times a factor, or plus a shift.

use crate::simd::{Vector, each};

/// `clip(factor * value)`.
#[inline(always)]
pub(crate) fn multiply<V: Vector>(pixels: [V; 3], factor: f32) -> [V; 3] {
    let factor = V::splat(factor);
    each!(pixels, value => (factor * value).clip())
}

/// `clip(value + shift)`, the variant of SimCLR's first version.
#[inline(always)]
pub(crate) fn add<V: Vector>(pixels: [V; 3], shift: f32) -> [V; 3] {
    let shift = V::splat(shift);
    each!(pixels, value => (value + shift).clip())
}
