//! Operators that depend on the distribution of the values of each channel.

use crate::planes::{Planes, level};

/// Stretches each channel so that its smallest value is 0 and its largest 1; a constant channel stays as it is.
pub(crate) fn auto_contrast(planes: &mut Planes) {
    let (side, pitch) = (planes.side(), planes.pitch());
    for plane in planes.split_mut() {
        let values = plane.chunks_exact(pitch).flat_map(|row| &row[..side]);
        let (low, high) = values.fold((1.0f32, 0.0f32), |(low, high), &v| (low.min(v), high.max(v)));
        if high > low {
            let scale = 1.0 / (high - low);
            plane.iter_mut().for_each(|value| *value = ((*value - low) * scale).clamp(0.0, 1.0));
        }
    }
}

/// Makes the 256 levels of each channel about equally frequent, by the rule of Pillow and torchvision.
pub(crate) fn equalize(planes: &mut Planes) {
    let (side, pitch) = (planes.side(), planes.pitch());
    for plane in planes.split_mut() {
        let mut counts = [0usize; 256];
        for row in plane.chunks_exact(pitch) {
            row[..side].iter().for_each(|&value| counts[level(value)] += 1);
        }
        // The highest level that occurs is not counted.
        let last = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        let step = counts[..last].iter().sum::<usize>() / 255;
        if step == 0 {
            continue;
        }
        let mut below = step / 2;
        let table = counts.map(|count| {
            let new = (below / step).min(255);
            below += count;
            new as f32 / 255.0
        });
        for row in plane.chunks_exact_mut(pitch) {
            row[..side].iter_mut().for_each(|value| *value = table[level(*value)]);
        }
    }
}
