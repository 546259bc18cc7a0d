//! Contrast: towards or away from the mean grey value of the whole view.

use crate::simd::{Vector, each};

/// `clip(mean + factor * (value - mean))` with the mean of the grey view, as in torchvision.
///
/// (TensorFlow's `adjust_contrast` keeps a mean for each channel; on 8-bit images Pillow rounds the mean to a
/// whole number.)
#[inline(always)]
pub(crate) fn contrast<V: Vector>(pixels: [V; 3], factor: f32, mean: f32) -> [V; 3] {
    let shift = V::splat((1.0 - factor) * mean);
    let factor = V::splat(factor);
    each!(pixels, value => (factor * value + shift).clip())
}
