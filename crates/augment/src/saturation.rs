//! Saturation: towards or away from each pixel's own grey value.

use crate::planes::{clip, luma, map_pixels};

/// `clip(grey + factor * (value - grey))`, as in torchvision. (TensorFlow scales the S of HSV instead.)
pub(crate) fn saturation(planes: &mut [f32], factor: f32) {
    map_pixels(planes, |red, green, blue| {
        let shift = (1.0 - factor) * luma(red, green, blue);
        [red, green, blue].map(|value| clip(factor * value + shift))
    });
}
