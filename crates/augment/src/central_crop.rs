//! The evaluation view, in which nothing is random.

use crate::family::{check_size, view_len};
use crate::passes::{Input, Pass};
use crate::simd;
use crate::{AugmentError, CropBox, ImageRef, Scratch};

/// Fraction of the shorter side that the central crop keeps.
const KEPT: f64 = 0.875;

/// Views of at most this side are not cropped.
const UNCROPPED: u32 = 32;

/// Returns the part of an image of `width` x `height` pixels, both at least 1, that evaluation at `size` sees: the
/// central square with 87.5% of the shorter side, or the whole image, square or not, when `size` is at most 32.
pub fn central_crop_box(width: u32, height: u32, size: u32) -> CropBox {
    if size <= UNCROPPED {
        return CropBox::whole(width, height);
    }
    let shorter = width.min(height);
    let side = ((KEPT * f64::from(shorter)).round_ties_even().max(1.0) as u32).min(shorter);
    // An odd margin has its extra pixel at the top and at the left, as in the authors' code.
    CropBox { left: (width - side).div_ceil(2), top: (height - side).div_ceil(2), width: side, height: side }
}

/// Writes the evaluation view of `image` into `out` (`size * size * 3` bytes, row-major, interleaved):
/// [`central_crop_box`], resized bicubically with antialiasing.
///
/// # Errors
/// [`AugmentError::OutOfRange`] for a `size` outside of 1 to 16,384, [`AugmentError::OutputLength`] when
/// `out` does not hold exactly one view.
///
/// # Panics
/// May panic when the fields of `image` break the promises that [`ImageRef::new`] checks.
///
/// ```
/// use simclr_augment::{ImageRef, Scratch, central_crop};
///
/// # fn main() -> Result<(), simclr_augment::AugmentError> {
/// let pixels = [200; 100 * 80 * 3];
/// let mut out = [0; 64 * 64 * 3];
/// central_crop(ImageRef::new(100, 80, &pixels)?, 64, &mut Scratch::default(), &mut out)?;
/// assert_eq!(out, [200; 64 * 64 * 3]);
/// # Ok(())
/// # }
/// ```
pub fn central_crop(
    image: ImageRef<'_>,
    size: u32,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Result<(), AugmentError> {
    check_size(size)?;
    if out.len() != view_len(size) {
        return Err(AugmentError::OutputLength {
            size,
            expected: view_len(size) as u64,
            got: out.len() as u64,
        });
    }
    let crop = central_crop_box(image.width, image.height, size);
    let Scratch { isa, resizer, planes, .. } = scratch;
    planes.prepare(size as usize);
    resizer.prepare(crop, size, false);
    simd::run(
        *isa,
        Pass { planes, from: Input::Image(resizer, image, crop), ops: &[], out: Some(out), mean: false },
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_is_central_and_small_views_see_everything() {
        let crop = |left, top, side| CropBox { left, top, width: side, height: side };
        assert_eq!(central_crop_box(256, 256, 224), crop(16, 16, 224));
        assert_eq!(central_crop_box(500, 375, 224), crop(86, 24, 328));
        assert_eq!(central_crop_box(1, 30_000, 224), crop(0, 15_000, 1));
        assert_eq!(central_crop_box(40, 50, 32), CropBox::whole(40, 50));
        // An image without pixels has an empty crop.
        assert_eq!(central_crop_box(0, 5, 224), crop(0, 3, 0));
    }

    #[test]
    fn sizes_and_lengths_are_checked() {
        let image = ImageRef::new(1, 1, &[1, 2, 3]).unwrap();
        let mut scratch = Scratch::default();
        let message = central_crop(image, 0, &mut scratch, &mut []).unwrap_err();
        assert!(message.to_string().starts_with("size = 0"));
        let message = central_crop(image, 2, &mut scratch, &mut [0; 11]).unwrap_err();
        assert_eq!(message.to_string(), "output of 11 bytes: a view of 2 x 2 needs exactly 12 bytes");
        let mut out = [0; 12];
        central_crop(image, 2, &mut scratch, &mut out).unwrap();
        assert_eq!(out, [1, 2, 3].repeat(4)[..]);
    }
}
