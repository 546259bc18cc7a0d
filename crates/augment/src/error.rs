//! The one error type of the crate.

use thiserror::Error;

/// An invalid image, configuration or buffer given to this crate.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum AugmentError {
    /// The image has no pixels.
    #[error("image of {width} x {height} pixels: width and height must be at least 1")]
    EmptyImage {
        /// Width as given.
        width: u32,
        /// Height as given.
        height: u32,
    },
    /// The pixel buffer does not hold exactly one image.
    #[error("image of {width} x {height} pixels in {got} bytes: 8-bit RGB needs exactly {expected} bytes")]
    PixelCount {
        /// Width as given.
        width: u32,
        /// Height as given.
        height: u32,
        /// `3 * width * height`.
        expected: u64,
        /// Length of the buffer.
        got: u64,
    },
    /// A configuration key has an invalid value.
    #[error("{key} = {value}: must be {expected}")]
    OutOfRange {
        /// Dotted name of the key, such as `view.crop_area`.
        key: String,
        /// The offending value.
        value: String,
        /// What the key accepts.
        expected: &'static str,
    },
    /// The buffer for a view does not hold exactly one view.
    #[error("output of {got} bytes: a view of {size} x {size} needs exactly {expected} bytes")]
    OutputLength {
        /// Side of the view.
        size: u32,
        /// `3 * size * size`.
        expected: u64,
        /// Length of the buffer.
        got: u64,
    },
}

impl AugmentError {
    /// Replaces the key of an [`AugmentError::OutOfRange`] by `name(key)`; other errors stay as they are.
    pub(crate) fn renamed(self, name: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::OutOfRange { key, value, expected } => {
                Self::OutOfRange { key: name(&key), value, expected }
            }
            other => other,
        }
    }
}
