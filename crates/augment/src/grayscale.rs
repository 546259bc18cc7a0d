//! Greyscale: three equal channels.

use crate::planes::{luma, map_pixels};

/// Replaces each channel by the pixel's grey value, 0.299 R + 0.587 G + 0.114 B.
pub(crate) fn grayscale(planes: &mut [f32]) {
    map_pixels(planes, |red, green, blue| [luma(red, green, blue); 3]);
}
