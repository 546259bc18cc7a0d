//! Sharpness: towards or away from a smoothed view.

use crate::planes::Planes;

/// `clip(smooth + factor * (value - smooth))`, smooth being the mean of a pixel (weight 5) and its eight neighbours
/// (weight 1). The outermost pixels stay as they are, as in torchvision.
pub(crate) fn sharpness(planes: &mut Planes, factor: f32, spare: &mut Vec<f32>) {
    let (side, pitch) = (planes.side(), planes.pitch());
    for plane in planes.split_mut() {
        spare.clear();
        spare.extend_from_slice(plane);
        for y in 1..side.saturating_sub(1) {
            for x in 1..side - 1 {
                let sum =
                    |y: usize| spare[y * pitch + x - 1] + spare[y * pitch + x] + spare[y * pitch + x + 1];
                let value = spare[y * pitch + x];
                let smooth = (sum(y - 1) + sum(y) + sum(y + 1) + 4.0 * value) / 13.0;
                plane[y * pitch + x] = (smooth + factor * (value - smooth)).clamp(0.0, 1.0);
            }
        }
    }
}
