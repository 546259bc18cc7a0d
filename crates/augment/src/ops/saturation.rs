//! Saturation: towards or away from each pixel's own grey value.

use super::grayscale::luma;
use crate::simd::{Vector, each};

/// `clip(grey + factor * (value - grey))`, as in torchvision. (TensorFlow scales the S of HSV instead.)
#[inline(always)]
pub(crate) fn saturation<V: Vector>(pixels: [V; 3], factor: f32) -> [V; 3] {
    let shift = V::splat(1.0 - factor) * luma(pixels);
    let factor = V::splat(factor);
    each!(pixels, value => (factor * value + shift).clip())
}
