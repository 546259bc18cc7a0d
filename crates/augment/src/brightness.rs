//! Brightness: every channel times a factor, or plus a shift.

use crate::planes::clip;

/// `clip(factor * value)`.
pub(crate) fn multiply(planes: &mut [f32], factor: f32) {
    for value in planes {
        *value = clip(factor * *value);
    }
}

/// `clip(value + shift)`, the variant of SimCLR's first version.
pub(crate) fn add(planes: &mut [f32], shift: f32) {
    for value in planes {
        *value = clip(*value + shift);
    }
}
