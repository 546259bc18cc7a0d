//! Turning and mirroring an image as its EXIF orientation asks.

use image::metadata::Orientation;

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

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, RgbImage};

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
        }
    }
}
