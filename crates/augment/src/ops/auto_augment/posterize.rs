//! Posterization: fewer levels in each channel.

use crate::planes::{Planes, level};

/// Keeps the highest `bits` of the eight bits of every value.
pub(crate) fn posterize(planes: &mut Planes, bits: u32) {
    let mask = 0xff & !(0xff >> bits.min(8));
    for value in planes.rows_mut().flatten() {
        *value = (level(*value) & mask) as f32 / 255.0;
    }
}
