//! Turning and mirroring an image as its EXIF orientation asks.

use image::metadata::Orientation;
use simclr_augment::CropBox;

use super::resize;

/// Writes `source` (height, width, 3) into `out` the way it should be seen; returns the new (width, height).
pub(super) fn apply(
    orientation: Orientation,
    source: &[u8],
    width: u32,
    height: u32,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), String> {
    resize(out, source.len())?;
    let (w, h) = (width as usize, height as usize);
    // Each case walks the output in order and reads pixel `start + x * step_x + y * step_y` of the source, in signed
    // arithmetic because two thirds of them walk backwards.
    let (w_, h_) = (w as isize, h as isize);
    let (transposed, start, step_x, step_y) = match orientation {
        Orientation::NoTransforms => (false, 0, 1, w_),
        Orientation::FlipHorizontal => (false, w_ - 1, -1, w_),
        Orientation::Rotate180 => (false, w_ * h_ - 1, -1, -w_),
        Orientation::FlipVertical => (false, w_ * (h_ - 1), 1, -w_),
        Orientation::Rotate90FlipH => (true, 0, w_, 1),
        Orientation::Rotate90 => (true, w_ * (h_ - 1), -w_, 1),
        Orientation::Rotate270FlipH => (true, w_ * h_ - 1, -w_, -1),
        Orientation::Rotate270 => (true, w_ - 1, w_, -1),
    };
    let (out_w, out_h) = if transposed { (h, w) } else { (w, h) };
    let from = source.as_chunks::<3>().0;
    for (y, row) in out.as_chunks_mut::<3>().0.chunks_exact_mut(out_w).enumerate().take(out_h) {
        let mut at = start + y as isize * step_y;
        for pixel in row {
            *pixel = from[at as usize];
            at += step_x;
        }
    }
    Ok((out_w as u32, out_h as u32))
}

/// The stored box that becomes `seen` when an image of `width` x `height` stored pixels is turned as `orientation`
/// asks.
pub(super) fn stored_box(orientation: Orientation, seen: CropBox, width: u32, height: u32) -> CropBox {
    // How far a box is from the other end of a side.
    let from_end = |start: u32, length: u32, side: u32| side.saturating_sub(start).saturating_sub(length);
    let CropBox { left: x, top: y, width: w, height: h } = seen;
    let (mirrored_x, mirrored_y) = match transposes(orientation) {
        true => (from_end(y, h, width), from_end(x, w, height)),
        false => (from_end(x, w, width), from_end(y, h, height)),
    };
    let (left, top) = match orientation {
        Orientation::NoTransforms => (x, y),
        Orientation::FlipHorizontal => (mirrored_x, y),
        Orientation::Rotate180 => (mirrored_x, mirrored_y),
        Orientation::FlipVertical => (x, mirrored_y),
        Orientation::Rotate90FlipH => (y, x),
        Orientation::Rotate90 => (y, mirrored_y),
        Orientation::Rotate270FlipH => (mirrored_x, mirrored_y),
        Orientation::Rotate270 => (mirrored_x, x),
    };
    match transposes(orientation) {
        true => CropBox { left, top, width: h, height: w },
        false => CropBox { left, top, width: w, height: h },
    }
}

/// The (width, height) of an image of `width` x `height` stored pixels after it is turned.
pub(super) fn seen_size(orientation: Orientation, width: u32, height: u32) -> (u32, u32) {
    if transposes(orientation) { (height, width) } else { (width, height) }
}

/// Whether rows become columns.
fn transposes(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, RgbImage};

    /// Sets only the stored pixels of each box, and checks that turning the image sets exactly that box.
    fn every_box_is_found(orientation: Orientation, width: u32, height: u32) {
        let (w, h) = seen_size(orientation, width, height);
        let boxes = (0..w).flat_map(|left| (0..h).map(move |top| (left, top))).flat_map(|(left, top)| {
            (1..=w - left)
                .flat_map(move |width| (1..=h - top).map(move |height| CropBox { left, top, width, height }))
        });
        let inside = |crop: CropBox, x: u32, y: u32| {
            (crop.left..crop.left + crop.width).contains(&x)
                && (crop.top..crop.top + crop.height).contains(&y)
        };
        let mut out = Vec::new();
        for seen in boxes {
            let stored = stored_box(orientation, seen, width, height);
            let source: Vec<u8> = (0..width * height)
                .flat_map(|at| [u8::from(inside(stored, at % width, at / width)); 3])
                .collect();
            apply(orientation, &source, width, height, &mut out).unwrap();
            let expected = (0..w * h).flat_map(|at| [u8::from(inside(seen, at % w, at / w)); 3]);
            assert!(out.iter().copied().eq(expected), "{orientation:?}: {stored:?} for {seen:?}");
        }
    }

    #[test]
    fn all_eight_agree_with_the_image_crate() {
        let (width, height) = (5, 3);
        let source: Vec<u8> = (0..width * height * 3).map(|i| (i * 7 % 251) as u8).collect();
        let mut out = Vec::new();
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut expected =
                DynamicImage::ImageRgb8(RgbImage::from_raw(width, height, source.clone()).unwrap());
            expected.apply_orientation(orientation);
            let size = apply(orientation, &source, width, height, &mut out).unwrap();
            assert_eq!(size, (expected.width(), expected.height()), "orientation {exif}");
            assert_eq!(&out, expected.as_bytes(), "orientation {exif}");
            assert_eq!(size, seen_size(orientation, width, height));
            every_box_is_found(orientation, width, height);
        }
    }
}
