//! Contrast: towards or away from the mean grey value of the whole image.

use crate::planes::{clip, mean_luma};

/// `clip(mean + factor * (value - mean))` with the mean of the grey image, as in torchvision.
///
/// (TensorFlow's `adjust_contrast` keeps a mean for each channel; on 8-bit images Pillow rounds the mean to a
/// whole number.)
pub(crate) fn contrast(planes: &mut [f32], factor: f32) {
    let shift = (1.0 - factor) * mean_luma(planes);
    for value in planes {
        *value = clip(factor * *value + shift);
    }
}
