//! Files of any supported format to 8-bit RGB.
//!
//! A format is recognised by its first bytes, never by the name of the file. The declared size is checked before
//! memory is taken for the pixels. Grey becomes three equal channels, 16 bits are rounded to 8, transparency is laid
//! over white, and the EXIF orientation is obeyed.

mod format;
mod jpeg;
mod orientation;
mod raster;

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

pub use format::Format;
pub(crate) use format::MAGIC_BYTES;

use crate::dataset::Decoded;
use crate::error::{DataError, inert, shown};

/// The most pixels an image may declare: 2^27, enough for the 108-megapixel cameras, and 400 MB decoded.
pub const MAX_PIXELS: u64 = 1 << 27;

/// The largest file that is read as an image, in bytes: 512 MiB.
pub const MAX_FILE_BYTES: u64 = 512 << 20;

/// The buffers that decoding needs, kept between images by each thread that reads.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    file: Vec<u8>,
    pub(crate) pixels: Vec<u8>,
    turned: Vec<u8>,
}

/// Reads the image file at `path`.
///
/// # Errors
/// [`DataError::Image`] naming the path, if it cannot be read as an image.
pub fn decode_file<'a>(path: &Path, scratch: &'a mut DecodeScratch) -> Result<Decoded<'a>, DataError> {
    decode_named_file(path, || shown(path), scratch)
}

/// Decodes an image held in memory; `name` is how errors call it.
///
/// # Errors
/// [`DataError::Image`] if the bytes are not an image that can be read.
pub fn decode_bytes<'a>(
    name: &str,
    bytes: &[u8],
    scratch: &'a mut DecodeScratch,
) -> Result<Decoded<'a>, DataError> {
    match decode_into(bytes, &mut scratch.pixels, &mut scratch.turned) {
        Ok(size) => Ok(scratch.decoded(size)),
        Err(reason) => Err(DataError::Image { name: inert(name), reason: inert(&reason) }),
    }
}

/// Like [`decode_file`], with errors that call the image what its data set calls it.
pub(crate) fn decode_named_file<'a>(
    path: &Path,
    name: impl Fn() -> String,
    scratch: &'a mut DecodeScratch,
) -> Result<Decoded<'a>, DataError> {
    let DecodeScratch { file, pixels, turned } = scratch;
    let result = read_file(path, file).and_then(|()| decode_into(file, pixels, turned));
    match result {
        Ok(size) => Ok(scratch.decoded(size)),
        Err(reason) => Err(DataError::Image { name: name(), reason: inert(&reason) }),
    }
}

impl DecodeScratch {
    fn decoded(&self, (width, height): (u32, u32)) -> Decoded<'_> {
        Decoded { width, height, pixels: &self.pixels }
    }
}

fn read_file(path: &Path, out: &mut Vec<u8>) -> Result<(), String> {
    out.clear();
    let file = File::open(path).map_err(|e| e.to_string())?;
    let bytes = file.metadata().map_err(|e| e.to_string())?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(format!(
            "the file has {bytes} bytes, more than the {MAX_FILE_BYTES} that are read as one image"
        ));
    }
    out.try_reserve(bytes as usize + 1).map_err(|_| format!("no memory for its {bytes} bytes"))?;
    // One byte more than allowed, so that a file that grew meanwhile is noticed.
    file.take(MAX_FILE_BYTES + 1).read_to_end(out).map_err(|e| e.to_string())?;
    if out.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("the file is larger than the {MAX_FILE_BYTES} bytes that are read as one image"));
    }
    Ok(())
}

/// Decodes into `pixels` and returns (width, height) after the EXIF orientation.
fn decode_into(bytes: &[u8], pixels: &mut Vec<u8>, turned: &mut Vec<u8>) -> Result<(u32, u32), String> {
    let format = Format::of(bytes).ok_or_else(|| match bytes {
        [] => "the file is empty".to_owned(),
        _ => "not an image: its first bytes are those of no known format".to_owned(),
    })?;
    // A defect of a decoder on a malformed file must not take the training run with it.
    let decoded = catch_unwind(AssertUnwindSafe(|| match format {
        Format::Jpeg => jpeg::decode(bytes, pixels),
        Format::Png | Format::WebP | Format::Bmp => raster::decode(bytes, format, pixels),
        Format::Gif | Format::Tiff | Format::Heif => {
            Err(format!("{format} is not read; convert it to JPEG, PNG, WebP or BMP"))
        }
    }))
    .unwrap_or_else(|_| Err(format!("the {format} decoder failed on it")))?;
    let (width, height) = (decoded.width, decoded.height);
    if decoded.orientation == image::metadata::Orientation::NoTransforms {
        return Ok((width, height));
    }
    let size = orientation::apply(decoded.orientation, pixels, width, height, turned)?;
    std::mem::swap(pixels, turned);
    Ok(size)
}

/// What a format's decoder leaves beside the pixels: the stored size, and how to turn the image.
struct Stored {
    width: u32,
    height: u32,
    orientation: image::metadata::Orientation,
}

/// Checks a declared size before memory is taken for it.
fn check_size(width: u64, height: u64) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("declares an empty image of {width} x {height} pixels"));
    }
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(format!(
            "declares {width} x {height} pixels, more than the {MAX_PIXELS} allowed for one image"
        ));
    }
    Ok(())
}

/// Makes `pixels` exactly `bytes` long without zeroing what it already holds; refuses instead of aborting.
fn resize(pixels: &mut Vec<u8>, bytes: usize) -> Result<(), String> {
    if pixels.len() < bytes {
        pixels
            .try_reserve_exact(bytes - pixels.len())
            .map_err(|_| format!("no memory for its {bytes} bytes of pixels"))?;
    }
    pixels.resize(bytes, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_limited_by_area() {
        assert!(check_size(30_000, 4_000).is_ok());
        assert!(check_size(65_500, 65_500).unwrap_err().contains("65500 x 65500"));
        assert!(check_size(u64::MAX, u64::MAX).is_err());
        assert!(check_size(0, 5).is_err());
    }

    #[test]
    fn empty_and_unknown_bytes_are_named() {
        let mut scratch = DecodeScratch::default();
        let empty = decode_bytes("a.jpg", &[], &mut scratch).unwrap_err().to_string();
        assert_eq!(empty, "a.jpg: the file is empty");
        let text = decode_bytes("a\u{1b}[2J.jpg", b"Dear diary", &mut scratch).unwrap_err().to_string();
        assert!(text.starts_with("a\\u{1b}[2J.jpg: not an image"), "{text}");
    }
}
