//! Shrinking large images once, so that the cached copies are small.

use image::imageops::{FilterType, resize as resized};
use image::{ImageBuffer, Rgb};

use super::resize;

/// The (width, height) at which the shorter side has `side` pixels and the aspect ratio is kept; `None` if the shorter
/// side is no longer than that.
pub(crate) fn target((width, height): (u32, u32), side: u32) -> Option<(u32, u32)> {
    let shorter = width.min(height);
    if shorter <= side || side == 0 {
        return None;
    }
    let scaled = |length: u32| {
        let (length, side, shorter) = (u64::from(length), u64::from(side), u64::from(shorter));
        ((length * side + shorter / 2) / shorter) as u32
    };
    Some((scaled(width), scaled(height)))
}

/// The bytes that [`shrink`] takes beside its source: the rows that are left with four floating-point values a pixel,
/// and the result twice.
pub(crate) fn bytes((width, _): (u32, u32), smaller: (u32, u32)) -> u64 {
    let (left, height) = (u64::from(smaller.0), u64::from(smaller.1));
    (16 * u64::from(width) + 6 * left) * height
}

/// Writes `source` (height, width, 3), resized to `smaller` with an antialiasing triangle filter, into `out`.
pub(crate) fn shrink(
    source: &[u8],
    (width, height): (u32, u32),
    smaller: (u32, u32),
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let whole: ImageBuffer<Rgb<u8>, &[u8]> =
        ImageBuffer::from_raw(width, height, source).ok_or("its pixels do not fill its size")?;
    let small = resized(&whole, smaller.0, smaller.1, FilterType::Triangle);
    resize(out, small.as_raw().len())?;
    out.copy_from_slice(small.as_raw());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_large_are_shrunk_and_keep_their_shape() {
        assert_eq!(target((4000, 3000), 600), Some((800, 600)));
        assert_eq!(target((600, 9000), 600), None);
        assert_eq!(target((3, 10), 2), Some((2, 7)));
    }

    #[test]
    fn a_checkerboard_becomes_its_mean() {
        let pixels: Vec<u8> =
            (0..64 * 64).flat_map(|i| [if (i / 64 + i) % 2 == 0 { 0 } else { 200 }; 3]).collect();
        let mut out = Vec::new();
        shrink(&pixels, (64, 64), (8, 8), &mut out).unwrap();
        assert_eq!(out.len(), 8 * 8 * 3);
        assert!(out.iter().all(|value| value.abs_diff(100) <= 2), "{out:?}");
    }
}
