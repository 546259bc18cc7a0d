//! Decoding files of any supported format to 8-bit RGB.
//!
//! A format is recognised by its first bytes, never by the name of the file. The declared size is checked before memory
//! is allocated for the pixels. Grey becomes three equal channels, and the EXIF orientation is applied;
//! [`DecodeOptions`] say how 16 bits become 8 and what background shows through transparency.

mod format;
mod gif;
mod jpeg;
mod jpeg_header;
mod options;
mod orientation;
mod raster;
mod region;
mod room;
pub(crate) mod shrink;

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use format::Format;
pub(crate) use format::{MAGIC_BYTES, READ};
pub use options::{DecodeOptions, Window};
pub(crate) use options::{range, thousandth};
pub(crate) use region::Greedy;
pub use region::Region;

use crate::caught::caught;
use crate::dataset::Decoded;
use crate::error::{DataError, inert, shown};
use crate::positioned::read_range;
pub(crate) use room::Claim;

/// The most pixels an image may declare: 2^27, enough for the 108-megapixel cameras, and 400 MB decoded.
pub const MAX_PIXELS: u64 = 1 << 27;

/// The largest file that is read as an image: 512 MiB.
pub const MAX_FILE_BYTES: u64 = 512 << 20;

/// Buffers larger than this, in bytes, are freed before the next image is decoded, so that one huge image does not
/// occupy memory for the rest of the run. Photos of 20 megapixels stay below.
const KEPT_BYTES: usize = 64 << 20;

/// The buffers that decoding needs, which each reading thread keeps between images.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    pub(crate) file: Vec<u8>,
    pub(crate) pixels: Vec<u8>,
    turned: Vec<u8>,
    deep: Vec<u16>,
    stored: Option<StoredAs>,
    thorough: bool,
    jpeg: simclr_jpeg::Scratch,
}

/// How an image is stored in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAs {
    /// The format of its file.
    pub format: Format,
    /// Width in pixels, as stored.
    pub width: u32,
    /// Height in pixels, as stored.
    pub height: u32,
    /// Bits per channel, 8 or 16.
    pub bits: u8,
    /// Whether it has a single channel, apart from transparency.
    pub grey: bool,
    /// Whether some of its pixels are transparent, at least in part; looked for only with [`DecodeScratch::thorough`].
    pub transparent: bool,
    /// Whether the file has more pages than the one that is read. Only those of TIFF are known, and smaller copies of
    /// the first are none. Looked for only with [`DecodeScratch::thorough`].
    pub has_pages: bool,
    /// The darkest and the brightest of its values where they have 16 bits, as stored: before the window, over all
    /// channels but opacity, without the outliers that [`Values`](crate::Values) leaves out. Looked for only with
    /// [`DecodeScratch::thorough`].
    pub range: Option<[u16; 2]>,
}

impl DecodeScratch {
    /// Scratch space with which [`StoredAs`] is whole, which costs time.
    pub fn thorough() -> Self {
        Self { thorough: true, ..Self::default() }
    }

    /// How the image last read with this scratch space is stored; `None` if it was no image file.
    pub fn stored(&self) -> Option<StoredAs> {
        self.stored
    }

    /// Frees what a huge image took, once its pixels are no longer needed.
    pub(crate) fn give_back(&mut self) {
        self.give_back_file();
        [&mut self.pixels, &mut self.turned].into_iter().for_each(free_if_huge);
        free_if_huge(&mut self.deep);
    }

    /// Frees a huge file, once it is decoded.
    pub(crate) fn give_back_file(&mut self) {
        if self.file.capacity() > KEPT_BYTES {
            self.file = Vec::new();
            // It holds copies of the coded data.
            self.jpeg = simclr_jpeg::Scratch::default();
        }
    }

    /// For data sets whose images are not decoded from files.
    pub(crate) fn unfiled(&mut self) -> &mut Self {
        self.stored = None;
        self
    }
}

/// Reads the image file at `path`.
///
/// # Errors
/// [`DataError::Image`] naming the path, if it cannot be read as an image.
pub fn decode_file<'a>(
    path: &Path,
    options: &DecodeOptions,
    scratch: &'a mut DecodeScratch,
) -> Result<Decoded<'a>, DataError> {
    decode_from(|file| read_file(path, file), || shown(path), options, &Region::whole, scratch)
}

/// Decodes an image held in memory; errors call it `name`.
///
/// # Errors
/// [`DataError::Image`] if the bytes are not an image that can be read.
pub fn decode_bytes<'a>(
    name: &str,
    bytes: &[u8],
    options: &DecodeOptions,
    scratch: &'a mut DecodeScratch,
) -> Result<Decoded<'a>, DataError> {
    decode_part(name, bytes, options, &Region::whole, scratch)
}

/// Like [`decode_bytes`], but decodes only the part that `needed` returns for the width and height after the EXIF
/// orientation and the shrinking. Pixels outside it are unspecified. For formats that are only decoded whole, `needed`
/// is not called. If decoding the part fails, `needed` is called again, and another part that it then returns is
/// decoded.
///
/// # Errors
/// As [`decode_bytes`]; damage outside the part may go unnoticed.
pub fn decode_part<'a>(
    name: &str,
    bytes: &[u8],
    options: &DecodeOptions,
    needed: &dyn Fn(u32, u32) -> Region,
    scratch: &'a mut DecodeScratch,
) -> Result<Decoded<'a>, DataError> {
    scratch.give_back();
    let decoded = decode_into(bytes, options, needed, scratch);
    finish(decoded, || inert(name), scratch)
}

/// Decodes the bytes that `read` puts into the buffer, for which it returns the room; errors call the image `name`,
/// which must be inert.
pub(crate) fn decode_from<'a>(
    read: impl FnOnce(&mut Vec<u8>) -> Result<Claim, String>,
    name: impl Fn() -> String,
    options: &DecodeOptions,
    needed: &dyn Fn(u32, u32) -> Region,
    scratch: &'a mut DecodeScratch,
) -> Result<Decoded<'a>, DataError> {
    scratch.stored = None;
    scratch.give_back();
    let mut file = std::mem::take(&mut scratch.file);
    let room = read(&mut file);
    let decoded = room.as_ref().map_err(String::clone);
    let decoded = decoded.and_then(|_| decode_into(&file, options, needed, scratch));
    scratch.file = file;
    scratch.give_back_file();
    drop(room);
    finish(decoded, name, scratch)
}

fn finish(
    decoded: Result<(u32, u32), String>,
    name: impl Fn() -> String,
    scratch: &DecodeScratch,
) -> Result<Decoded<'_>, DataError> {
    match decoded {
        Ok((width, height)) => Ok(Decoded { width, height, pixels: &scratch.pixels }),
        Err(reason) => Err(DataError::Image { name: name(), reason: inert(reason.trim_end()) }),
    }
}

/// Refuses a file that is too large to be one image.
pub(crate) fn check_file_bytes(bytes: u64) -> Result<(), String> {
    match bytes > MAX_FILE_BYTES {
        true => Err(format!(
            "the file has {bytes} bytes, more than the {MAX_FILE_BYTES} that are read as one image"
        )),
        false => Ok(()),
    }
}

/// Waits until there is room for a file of this many bytes, unless it is too large to be one image.
pub(crate) fn room_for_file(bytes: u64) -> Result<Claim, String> {
    check_file_bytes(bytes).map(|()| Claim::of_file(bytes))
}

/// Reads a file that may be an image into `out`, and returns the room that it takes.
pub(crate) fn read_file(path: &Path, out: &mut Vec<u8>) -> Result<Claim, String> {
    out.clear();
    let metadata = std::fs::metadata(path).map_err(|e| e.to_string())?;
    // Opening a pipe would wait for a writer.
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    let bytes = metadata.len();
    let room = room_for_file(bytes)?;
    out.try_reserve(bytes as usize + 1).map_err(|_| format!("no memory for its {bytes} bytes"))?;
    let file = File::open(path).map_err(|e| e.to_string())?;
    // One byte more than allowed, to notice a file that has grown meanwhile.
    file.take(MAX_FILE_BYTES + 1).read_to_end(out).map_err(|e| e.to_string())?;
    if out.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("the file is larger than the {MAX_FILE_BYTES} bytes that are read as one image"));
    }
    Ok(room)
}

/// The size of a sample of a file, in bytes.
const SAMPLE: u64 = 4096;
/// Files of up to this many bytes are read as quickly as a sample of them.
const SAMPLED: u64 = 32 * 1024;

/// Reads some bytes from the middle of the `len` bytes at `start` of a file into `out`; returns false if they are so
/// few that reading all of them is as quick. The same bytes give the same sample, wherever they are.
pub(crate) fn read_sample(file: &File, start: u64, len: u64, out: &mut Vec<u8>) -> Result<bool, String> {
    if len <= SAMPLED {
        return Ok(false);
    }
    read_range(file, start + len / 2, SAMPLE, out).map(|()| true)
}

/// Decodes into the scratch space's pixels and returns (width, height) after the EXIF orientation and the shrinking.
/// Where that fails, `needed` is asked again: a caller who wanted more than it needs then says what it needs.
fn decode_into(
    bytes: &[u8],
    options: &DecodeOptions,
    needed: &dyn Fn(u32, u32) -> Region,
    scratch: &mut DecodeScratch,
) -> Result<(u32, u32), String> {
    let asked = Cell::new(None);
    let noted = |width, height| {
        let region = needed(width, height);
        asked.set(Some((width, height, region)));
        region
    };
    decode_once(bytes, options, &noted, scratch).or_else(|reason| match asked.get() {
        Some((width, height, before)) => match needed(width, height) {
            region if region == before => Err(reason),
            region => decode_once(bytes, options, &|_, _| region, scratch),
        },
        None => Err(reason),
    })
}

fn decode_once(
    bytes: &[u8],
    options: &DecodeOptions,
    needed: &dyn Fn(u32, u32) -> Region,
    scratch: &mut DecodeScratch,
) -> Result<(u32, u32), String> {
    let DecodeScratch { pixels, turned, deep, stored: stored_as, thorough, jpeg, .. } = scratch;
    *stored_as = None;
    let format = Format::of(bytes).ok_or_else(|| match bytes {
        [] => "the file is empty".to_owned(),
        _ => "not an image: its first bytes are those of no known format".to_owned(),
    })?;
    let stored = caught(&format_args!("the {format} decoder"), || match format {
        Format::Jpeg => jpeg::decode(bytes, options, needed, jpeg, turned, pixels),
        Format::Png | Format::WebP | Format::Bmp | Format::Tiff | Format::Gif | Format::Pnm => {
            raster::decode(bytes, format, options, *thorough, (turned, deep), pixels)
        }
        Format::Heif => Err(format!("{format} is not read; convert it to {READ}")),
    })?;
    let Stored { width, height, orientation, bits, grey, transparent, has_pages, range, claim: _claim } =
        stored;
    *stored_as = Some(StoredAs { format, width, height, bits, grey, transparent, has_pages, range });
    let mut size = (width, height);
    if let Some(smaller) = options.shrink.and_then(|side| shrink::target(size, side)) {
        shrink::shrink(pixels, size, smaller, turned)?;
        std::mem::swap(pixels, turned);
        size = smaller;
    }
    if orientation != image::metadata::Orientation::NoTransforms {
        size = orientation::apply(orientation, pixels, size.0, size.1, turned)?;
        std::mem::swap(pixels, turned);
    }
    Ok(size)
}

/// The bytes that an image of `size` takes beside its pixels when it is shrunk and turned after decoding.
fn bytes_after(options: &DecodeOptions, size: (u32, u32), orientation: image::metadata::Orientation) -> u64 {
    let smaller = options.shrink.and_then(|side| shrink::target(size, side));
    match smaller {
        // What it is shrunk to is turned into the buffer that it was decoded to.
        Some(smaller) => shrink::bytes(size, smaller),
        None if orientation == image::metadata::Orientation::NoTransforms => 0,
        None => 3 * u64::from(size.0) * u64::from(size.1),
    }
}

/// What a format's decoder returns beside the pixels: the stored size, and how to turn the image.
struct Stored {
    width: u32,
    height: u32,
    orientation: image::metadata::Orientation,
    bits: u8,
    grey: bool,
    transparent: bool,
    has_pages: bool,
    range: Option<[u16; 2]>,
    /// Room for the image, until it is as the caller gets it.
    claim: Claim,
}

/// Checks a declared size before memory is allocated for it.
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

/// Makes `pixels` exactly `len` long without zeroing what it already holds; refuses instead of aborting.
pub(crate) fn resize<T: Clone + Default>(pixels: &mut Vec<T>, len: usize) -> Result<(), String> {
    if pixels.len() < len {
        pixels
            .try_reserve_exact(len - pixels.len())
            .map_err(|_| format!("no memory for its {} bytes of pixels", len * size_of::<T>()))?;
    }
    pixels.resize(len, T::default());
    Ok(())
}

/// Frees a buffer of more than [`KEPT_BYTES`].
fn free_if_huge<T>(buffer: &mut Vec<T>) {
    if buffer.capacity() * size_of::<T>() > KEPT_BYTES {
        *buffer = Vec::new();
    }
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
    fn what_a_huge_image_took_is_given_back() {
        let (options, mut scratch) = (DecodeOptions::default(), DecodeScratch::default());
        for (side, kept) in [(4800, 3 * 4800 * 4800), (10, 300)] {
            let header = format!("P5 {side} {side} 255\n").into_bytes();
            let image = [header, vec![7; side * side]].concat();
            assert_eq!(decode_bytes("x", &image, &options, &mut scratch).unwrap().pixels.len(), kept);
            assert!((kept..2 * kept).contains(&scratch.pixels.capacity()), "{}", scratch.pixels.capacity());
        }
    }

    #[test]
    fn pixels_as_stored_are_read_into_the_buffers_of_earlier_images() {
        let (options, mut scratch) = (DecodeOptions::default(), DecodeScratch::default());
        let mut decode = |side: usize, most: usize, bytes: usize| {
            let header = format!("P5 {side} {side} {most}\n").into_bytes();
            let image = [header, vec![7; bytes * side * side]].concat();
            decode_bytes("x", &image, &options, &mut scratch).unwrap();
            (
                scratch.turned.as_ptr(),
                scratch.turned.capacity(),
                scratch.deep.as_ptr(),
                scratch.deep.capacity(),
            )
        };
        decode(64, 255, 1);
        let buffers = decode(64, 65535, 2);
        assert!(buffers.1 >= 64 * 64 && buffers.3 >= 64 * 64);
        for side in [63, 64] {
            assert_eq!((decode(side, 255, 1), decode(side, 65535, 2)), (buffers, buffers));
        }
        // A huge one is freed at once, as nobody has use for it.
        assert_eq!(decode(8200, 255, 1).1, 0);
    }

    #[test]
    fn turning_and_shrinking_take_room_too() {
        use image::metadata::Orientation::{NoTransforms, Rotate90};
        let bytes = |shrink, orientation| {
            bytes_after(&DecodeOptions { shrink, ..DecodeOptions::default() }, (4000, 2000), orientation)
        };
        assert_eq!((bytes(None, NoTransforms), bytes(None, Rotate90)), (0, 3 * 4000 * 2000));
        assert_eq!((bytes(Some(2000), NoTransforms), bytes(Some(5000), Rotate90)), (0, 3 * 4000 * 2000));
        // Rows of four floating-point values, and twice what comes of them.
        let shrunk = 16 * 4000 * 1000 + 2 * 3 * 2000 * 1000;
        assert_eq!((bytes(Some(1000), NoTransforms), bytes(Some(1000), Rotate90)), (shrunk, shrunk));
    }

    #[test]
    fn empty_and_unknown_bytes_are_named() {
        let (options, mut scratch) = (DecodeOptions::default(), DecodeScratch::default());
        let empty = decode_bytes("a.jpg", &[], &options, &mut scratch).unwrap_err().to_string();
        assert_eq!(empty, "a.jpg: the file is empty");
        let text =
            decode_bytes("a\u{1b}[2J.jpg", b"Dear diary", &options, &mut scratch).unwrap_err().to_string();
        assert!(text.starts_with("a\\u{1b}[2J.jpg: not an image"), "{text}");
    }
}
