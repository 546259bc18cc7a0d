//! A borrowed 8-bit RGB image.

use crate::AugmentError;

/// A borrowed 8-bit RGB image. [`ImageRef::new`] checks what its fields promise; functions that are given an image
/// that breaks these promises may panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageRef<'a> {
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
    /// `height * width * 3` bytes: rows from the top, pixels from the left, red, green, blue, each 0 to 255
    /// (sRGB as stored in files).
    pub pixels: &'a [u8],
}

impl<'a> ImageRef<'a> {
    /// Borrows `pixels` as an image.
    ///
    /// # Errors
    /// [`AugmentError::EmptyImage`] when a side is 0, [`AugmentError::PixelCount`] when `pixels` does not
    /// hold exactly `3 * width * height` bytes.
    pub fn new(width: u32, height: u32, pixels: &'a [u8]) -> Result<Self, AugmentError> {
        if width == 0 || height == 0 {
            return Err(AugmentError::EmptyImage { width, height });
        }
        // Two u32 sides times three channels need up to 66 bits; a saturated product is longer than any slice.
        let expected = u64::from(width).saturating_mul(u64::from(height)).saturating_mul(3);
        let got = pixels.len() as u64;
        if got != expected {
            return Err(AugmentError::PixelCount { width, height, expected, got });
        }
        Ok(Self { width, height, pixels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked() {
        assert!(ImageRef::new(2, 3, &[0; 18]).is_ok());
        let short = ImageRef::new(2, 3, &[0; 17]).unwrap_err();
        assert_eq!(short.to_string(), "image of 2 x 3 pixels in 17 bytes: 8-bit RGB needs exactly 18 bytes");
        assert!(matches!(ImageRef::new(0, 3, &[]), Err(AugmentError::EmptyImage { .. })));
        assert!(ImageRef::new(u32::MAX, u32::MAX, &[0; 3]).is_err());
    }
}
