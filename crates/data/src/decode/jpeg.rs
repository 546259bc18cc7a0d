//! JPEG: grey, YCbCr, RGB, CMYK and YCCK; baseline and progressive.
//!
//! Files of the common kind are decoded by `simclr-jpeg`, only as far as needed. All others, and files that are odd in
//! any way, go to zune-jpeg, whose verdict counts, unless the coded data end early.

use image::metadata::Orientation;
use simclr_jpeg::{Error, Header, Rect, Scratch};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::jpeg_header::Frame;
use super::orientation::{seen_size, stored_box};
use super::room::{Claim, is_counted};
use super::{DecodeOptions, Region, Stored, Window, bytes_after, check_size, jpeg_header, resize};

/// Bytes per pixel that zune-jpeg takes beside the pixels for the kinds that it decodes whole: three channels of
/// coefficients in 16 bits.
const BYTES_OF_ANY: u64 = 6;

/// Decodes the part of the image that `needed` returns into `pixels`; `spare` holds a second decoding of a damaged one.
pub(super) fn decode(
    bytes: &[u8],
    options: &DecodeOptions,
    needed: &dyn Fn(u32, u32) -> Region,
    scratch: &mut Scratch,
    spare: &mut Vec<u8>,
    pixels: &mut Vec<u8>,
) -> Result<Stored, String> {
    let stored = match Header::read(bytes) {
        Ok(header) => decode_common(bytes, &header, options, needed, scratch, spare, pixels)?,
        Err(_) => decode_any(bytes, options, pixels, None)?,
    };
    if stored.grey {
        options.window.apply_to_grey_rgb(pixels);
    }
    Ok(stored)
}

/// Decodes a file of the common kind.
fn decode_common(
    bytes: &[u8],
    header: &Header,
    options: &DecodeOptions,
    needed: &dyn Fn(u32, u32) -> Region,
    scratch: &mut Scratch,
    spare: &mut Vec<u8>,
    pixels: &mut Vec<u8>,
) -> Result<Stored, String> {
    let &Header { width, height, grey, exif, .. } = header;
    check_size(width.into(), height.into())?;
    let orientation = exif.and_then(Orientation::from_exif_chunk);
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    let bytes_of_rgb = 3 * u64::from(width) * u64::from(height);
    let after = bytes_after(options, (width, height), orientation);
    let mut claim = Claim::of_pixels(bytes_of_rgb + after);
    resize(pixels, bytes_of_rgb as usize)?;
    let region = if options.shrink.is_some() || (grey && options.window != Window::Full) {
        // The result depends on every pixel.
        [Rect::whole(width, height); 2]
    } else {
        let (seen_width, seen_height) = seen_size(orientation, width, height);
        needed(seen_width, seen_height).boxes().map(|seen| {
            let stored = stored_box(orientation, seen, width, height);
            Rect { left: stored.left, top: stored.top, width: stored.width, height: stored.height }
        })
    };
    let mut decoded = header.decode(&region, scratch, pixels);
    let of_two = bytes_of_rgb + bytes_of_rgb.max(after);
    if matches!(decoded, Err(Error::Damaged { .. })) && is_counted(of_two) {
        // It takes room for two. Whoever waits for it must not hold what was decoded, which is soon decoded again.
        (*pixels, *scratch) = (Vec::new(), Scratch::default());
        drop(claim);
        claim = Claim::of_pixels(of_two);
        resize(pixels, bytes_of_rgb as usize)?;
        decoded = header.decode(&region, scratch, pixels);
    }
    let stored = |claim| Stored {
        width,
        height,
        orientation,
        bits: 8,
        grey,
        transparent: false,
        has_pages: false,
        range: None,
        claim,
    };
    match decoded {
        Ok(()) => Ok(stored(claim)),
        // Other decoders fill the missing rows with grey, which must not be trained on.
        Err(Error::EndsEarly { rows }) => {
            Err(format!("truncated JPEG: its coded data end early, after {rows} of {height} rows"))
        }
        // The decoded rows stay, as their pixels do not depend on how much was needed.
        Err(Error::Damaged { rows, .. }) => {
            let Stored { claim, .. } = decode_any(bytes, options, spare, Some(claim))?;
            let decoded = 3 * width as usize * rows as usize;
            pixels[decoded..].copy_from_slice(&spare[decoded..]);
            Ok(stored(claim))
        }
        // The others may take more room: see above.
        Err(_) => {
            if is_counted(bytes_of_rgb) {
                *pixels = Vec::new();
            }
            drop(claim);
            decode_any(bytes, options, pixels, None)
        }
    }
}

/// Decodes the whole of a file of any kind, for which there may be a `claim` already.
fn decode_any(
    bytes: &[u8],
    options: &DecodeOptions,
    pixels: &mut Vec<u8>,
    claim: Option<Claim>,
) -> Result<Stored, String> {
    let frame = jpeg_header::frame(bytes);
    if let Some(kind) = frame.and_then(Frame::unread_kind) {
        return Err(format!(
            "JPEG of a kind that is not read ({kind}); baseline or progressive, with 8 bits per channel, is expected"
        ));
    }
    // The side is bounded by the format itself (16 bits); the area is what costs memory and is checked below.
    let lenient = DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), lenient);
    decoder.decode_headers().map_err(|e| match jpeg_header::is_cut(bytes) {
        true => "truncated JPEG: it ends within its header".to_owned(),
        false => format!("damaged JPEG: {e}"),
    })?;
    let (width, height) = decoder.dimensions().ok_or("damaged JPEG: it declares no size")?;
    check_size(width as u64, height as u64)?;
    // The decoder is lenient, as slightly odd files from cameras need it to be, and fills what a truncated file lacks
    // with grey. A half-grey image must not be trained on: a file that stops before its end marker is broken.
    if !reaches_end_marker(bytes) {
        return Err("truncated JPEG: it ends before its end-of-image marker".to_owned());
    }
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    let claim = claim.unwrap_or_else(|| {
        let area = (width * height) as u64;
        let after = bytes_after(options, (width as u32, height as u32), orientation);
        Claim::of_pixels(3 * area + after.max(BYTES_OF_ANY * area))
    });
    resize(pixels, width * height * 3)?;
    decoder.decode_into(pixels).map_err(|e| format!("damaged JPEG: {e}"))?;
    Ok(Stored {
        width: width as u32,
        height: height as u32,
        orientation,
        bits: 8,
        transparent: false,
        has_pages: false,
        range: None,
        claim,
        grey: frame.is_some_and(|frame| frame.components == 1),
    })
}

/// Walks the markers of a JPEG, and returns whether its end-of-image marker is there.
fn reaches_end_marker(bytes: &[u8]) -> bool {
    if bytes.ends_with(&[0xff, 0xd9]) {
        return true;
    }
    let mut at = 2;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xff)) {
        let marker = at + found + 1;
        match bytes.get(marker) {
            None => return false,
            Some(0xd9) => return true,
            // Stuffed zeros, restarts and fill bytes within the coded data.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at = marker + 1,
            Some(0xff) => at = marker,
            // A segment with a length: thumbnails inside it have end markers of their own.
            Some(_) => match bytes.get(marker + 1..marker + 3) {
                Some(length) => {
                    at = marker + 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                }
                None => return false,
            },
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::reaches_end_marker;

    #[test]
    fn end_marker_inside_a_segment_does_not_count() {
        let thumbnail = [0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd9, 1, 2, 0xff, 0xda, 0, 2, 9, 0xff, 0x00, 9];
        assert!(!reaches_end_marker(&thumbnail));
        let mut whole = thumbnail.to_vec();
        whole.extend([0xff, 0xd0, 7, 0xff, 0xff, 0xd9, b'j', b'u', b'n', b'k']);
        assert!(reaches_end_marker(&whole));
    }
}
