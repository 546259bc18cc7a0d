//! RGB pixels as an inline PNG.

use image::ExtendedColorType;
use image::ImageEncoder;
use image::codecs::png::PngEncoder;

use crate::base64::base64;

/// A small picture on the page, with the class it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(super) width: u32,
    /// The PNG in base64.
    pub(super) png: String,
    /// The name of the image, without folders.
    pub(super) name: String,
    pub(crate) class: Option<String>,
}

/// Pixels that cannot be made into a picture.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The number of bytes is not width x height x 3, or is 0.
    #[error(
        "a picture of {width} x {height} RGB pixels needs {expected} bytes and at least one pixel, got {got}"
    )]
    Size {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes needed.
        expected: u64,
        /// Bytes given.
        got: usize,
    },
    /// The PNG encoder failed.
    #[error("cannot encode a picture of {width} x {height} pixels: {reason}")]
    Encode {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// The encoder's message.
        reason: String,
    },
}

impl Picture {
    /// Encodes `pixels`: RGB, 8 bits, row-major, `width * height * 3` bytes. `name` is shown on hover. `class`, `None`
    /// without labels, is shown below the picture, and tells whether a neighbour is of the same class.
    ///
    /// # Errors
    /// [`PictureError`] when the pixels do not fit the size.
    pub(crate) fn new(
        width: u32,
        height: u32,
        pixels: &[u8],
        name: String,
        class: Option<String>,
    ) -> Result<Self, PictureError> {
        let expected = (u64::from(width) * u64::from(height)).saturating_mul(3);
        if pixels.is_empty() || pixels.len() as u64 != expected {
            return Err(PictureError::Size { width, height, expected, got: pixels.len() });
        }
        let mut png = Vec::new();
        PngEncoder::new(&mut png)
            .write_image(pixels, width, height, ExtendedColorType::Rgb8)
            .map_err(|error| PictureError::Encode { width, height, reason: error.to_string() })?;
        Ok(Picture { width, png: base64(&png), name, class })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_checked() {
        assert!(Picture::new(2, 1, &[0; 6], String::new(), None).is_ok());
        assert!(Picture::new(2, 2, &[0; 6], String::new(), None).is_err());
        assert!(Picture::new(0, 0, &[], String::new(), None).is_err());
        assert!(Picture::new(u32::MAX, u32::MAX, &[0; 6], String::new(), None).is_err());
    }

    #[test]
    fn png_holds_the_pixels() {
        let pixels: Vec<u8> = (0..30).collect();
        let png = Picture::new(5, 2, &pixels, String::new(), None).unwrap().png;
        // The signature of a PNG, in base64.
        assert!(png.starts_with("iVBORw0KGgo"));
    }
}
