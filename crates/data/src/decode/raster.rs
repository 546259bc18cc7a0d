//! PNG, WebP, BMP, TIFF, GIF and PNM, through the `image` crate.

use std::error::Error;
use std::io::Cursor;

use image::codecs::pnm::PnmDecoder;
use image::error::{UnsupportedError, UnsupportedErrorKind};
use image::metadata::Orientation;
use image::{
    ColorType, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits,
};
use tiff::TiffError;
use tiff::decoder::Decoder;
use tiff::tags::{ExtraSamples, Tag};

use super::options::{DecodeOptions, as_stored, range, thousandth};
use super::room::Claim;
use super::{Format, MAX_PIXELS, Stored, bytes_after, check_size, free_if_huge, gif, resize};
use crate::tones::stride;

/// Decodes the whole image into `pixels`; `spare` holds pixels as they are stored, of 8 and of 16 bits. Whether the
/// image is transparent, and has further pages, is looked for only if `thorough`.
pub(super) fn decode(
    bytes: &[u8],
    format: Format,
    options: &DecodeOptions,
    thorough: bool,
    spare: (&mut Vec<u8>, &mut Vec<u16>),
    pixels: &mut Vec<u8>,
) -> Result<Stored, String> {
    let refused = |error| refused(error, bytes, format);
    let mut decoder = open_decoder(bytes, format).map_err(refused)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let color = decoder.color_type();
    if format == Format::Gif && gif::is_off_canvas(bytes, width, height) {
        return Err(format!("damaged GIF: its first image lies outside of its {width} x {height} pixels"));
    }
    let bytes_of_rgb = width as usize * height as usize * 3;
    // Rows of RGB are decoded in place.
    let stored_apart = if color == ColorType::Rgb8 { 0 } else { decoder.total_bytes() };
    let after = bytes_after(options, (width, height), orientation);
    let claim = Claim::of_pixels(bytes_of_rgb as u64 + stored_apart.max(after));
    let scale_is_wanted = thorough || options.window.is_of_values();
    let most = most_stored(bytes, format, scale_is_wanted, color);
    let premultiplied = format == Format::Tiff && color.has_alpha() && is_premultiplied(bytes);

    let mut range = None;
    let transparent = match color {
        ColorType::Rgb8 => {
            resize(pixels, bytes_of_rgb)?;
            decoder.read_image(pixels).map_err(refused)?;
            false
        }
        ColorType::L8 | ColorType::La8 | ColorType::Rgba8 => {
            let stored = spare.0;
            stored.clear();
            resize(stored, decoder.total_bytes() as usize)?;
            decoder.read_image(stored).map_err(refused)?;
            if premultiplied {
                divide_by_opacity(stored, color, u8::MAX.into());
            }
            let transparent = thorough && is_transparent(stored, color, u8::MAX);
            resize(pixels, bytes_of_rgb)?;
            to_rgb(stored, (color, most), options, pixels);
            free_if_huge(stored);
            transparent
        }
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => {
            let stored = spare.1;
            stored.clear();
            resize(stored, decoder.total_bytes() as usize / size_of::<u16>())?;
            decoder.read_image(bytemuck::cast_slice_mut(stored)).map_err(refused)?;
            if premultiplied {
                divide_by_opacity(stored, color, u16::MAX.into());
            }
            let transparent = thorough && is_transparent(stored, color, u16::MAX);
            range = thorough.then(|| range_stored(stored, color, width, most));
            resize(pixels, bytes_of_rgb)?;
            deep_to_rgb(stored, (color, most), options, pixels);
            free_if_huge(stored);
            transparent
        }
        // There is no telling which value is white.
        _ => return Err(unusual(format, "floating-point values")),
    };
    Ok(Stored {
        width,
        height,
        orientation,
        claim,
        grey: !color.has_color(),
        bits: if is_deep(color) { 16 } else { 8 },
        transparent,
        has_pages: thorough && format == Format::Tiff && has_pages(bytes),
        range,
    })
}

/// A decoder of `bytes` that takes no more memory than the largest image that is read.
fn open_decoder(bytes: &[u8], format: Format) -> ImageResult<impl ImageDecoder> {
    let mut reader = ImageReader::with_format(
        Cursor::new(bytes),
        match format {
            Format::WebP => ImageFormat::WebP,
            Format::Bmp => ImageFormat::Bmp,
            Format::Tiff => ImageFormat::Tiff,
            Format::Gif => ImageFormat::Gif,
            Format::Pnm => ImageFormat::Pnm,
            _ => ImageFormat::Png,
        },
    );
    let mut limits = Limits::no_limits();
    // Eight bytes per pixel for 16-bit RGBA, the widest pixels there are, and as much again for the decoders' own rows.
    limits.max_alloc = Some(MAX_PIXELS * 16);
    reader.limits(limits);
    reader.into_decoder()
}

/// Why `bytes` cannot be decoded.
fn refused(error: ImageError, bytes: &[u8], format: Format) -> String {
    match error {
        ImageError::Unsupported(error) => {
            let of_tiff = Some(bytes).filter(|_| format == Format::Tiff).and_then(channels_of_tiff);
            unusual(format, &of_tiff.unwrap_or_else(|| unsupported(&error)))
        }
        // The outer message names the format once more.
        error => match error.source() {
            Some(cause) => format!("damaged {format}: {cause}"),
            None => format!("damaged {format}: {error}"),
        },
    }
}

/// Describes the channels of a TIFF where they are not the usual ones.
fn channels_of_tiff(bytes: &[u8]) -> Option<String> {
    match Decoder::new(Cursor::new(bytes)).ok()?.colortype().ok()? {
        tiff::ColorType::Multiband { bit_depth, num_samples: 2 } => {
            Some(format!("grey with a second channel, which may be its opacity, of {bit_depth} bits"))
        }
        tiff::ColorType::Multiband { bit_depth, num_samples } => {
            Some(format!("{num_samples} channels of {bit_depth} bits"))
        }
        _ => None,
    }
}

/// Describes what a decoder does not support.
fn unsupported(error: &UnsupportedError) -> String {
    match error.kind() {
        UnsupportedErrorKind::Color(ExtendedColorType::Unknown(bits)) => format!("{bits} bits a pixel"),
        UnsupportedErrorKind::Color(color) => format!("pixels of the kind {color:?}"),
        UnsupportedErrorKind::GenericFeature(what) => {
            what.strip_suffix(" is unsupported").map_or(what.clone(), str::to_owned)
        }
        _ => error.to_string(),
    }
}

/// The message about a file of a kind that is not read.
fn unusual(format: Format, what: &str) -> String {
    format!(
        "{format} of a kind that is not read ({what}); 8 or 16 bits per channel, grey or RGB, are expected"
    )
}

/// Whether a pixel is transparent, at least in part; `full` means opaque.
fn is_transparent<T: Copy + Ord>(values: &[T], color: ColorType, full: T) -> bool {
    // All are looked at, many at once: most images are opaque.
    let least = match color {
        ColorType::La8 | ColorType::La16 => least_opacity::<2, T>(values, full),
        ColorType::Rgba8 | ColorType::Rgba16 => least_opacity::<4, T>(values, full),
        _ => full,
    };
    least < full
}

/// The least of the last values of all pixels of `N` channels; `full` if there are none.
fn least_opacity<const N: usize, T: Copy + Ord>(values: &[T], full: T) -> T {
    values.as_chunks::<N>().0.iter().fold(full, |least, pixel| least.min(pixel[N - 1]))
}

/// Directories of a TIFF that are looked at for another page. Smaller copies of the first page may come before it, each
/// half as wide as the one before.
const DIRECTORIES: usize = 20;

/// Whether a TIFF has pages beside the first; smaller copies of it, and masks, are none.
fn has_pages(bytes: &[u8]) -> bool {
    // Bits of `NewSubfileType`, and a value of the tag that older files have.
    const SMALLER: u32 = 1;
    const MASK: u32 = 4;
    const OLD_SMALLER: u32 = 2;
    let Ok(mut decoder) = Decoder::new(Cursor::new(bytes)) else { return false };
    for _ in 0..DIRECTORIES {
        if !decoder.more_images() {
            return false;
        }
        match decoder.next_image() {
            Ok(()) => {}
            // There is a page, though its tags are not to be had.
            Err(TiffError::UnsupportedError(_)) => return true,
            Err(_) => return false,
        }
        let mut tag = |tag| decoder.find_tag_unsigned::<u32>(tag).ok().flatten();
        let is_part = tag(Tag::NewSubfileType).is_some_and(|kind| kind & (SMALLER | MASK) != 0);
        if !is_part && tag(Tag::SubfileType) != Some(OLD_SMALLER) {
            return true;
        }
    }
    false
}

/// Whether the colours of a TIFF are stored multiplied by their opacity.
fn is_premultiplied(bytes: &[u8]) -> bool {
    let kinds = Decoder::new(Cursor::new(bytes))
        .and_then(|mut decoder| decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples));
    kinds.is_ok_and(|kinds| {
        kinds.is_some_and(|kinds| kinds.first() == Some(&ExtraSamples::AssociatedAlpha.to_u16()))
    })
}

/// Undoes the multiplication of the colours by their opacity, the last value of each pixel; `full` means opaque.
fn divide_by_opacity<T: Copy + Into<u32> + TryFrom<u32>>(values: &mut [T], color: ColorType, full: u32) {
    for pixel in values.chunks_exact_mut(color.channel_count().into()) {
        let Some((opacity, channels)) = pixel.split_last_mut() else { continue };
        let opacity: u32 = (*opacity).into();
        for value in channels {
            let divided = ((*value).into() * full + opacity / 2).checked_div(opacity).unwrap_or(0);
            *value = T::try_from(divided.min(full)).unwrap_or(*value);
        }
    }
}

/// The largest value that an image may store, of which its decoder makes the full range. It is looked up only where that
/// `is_wanted`.
fn most_stored(bytes: &[u8], format: Format, is_wanted: bool, color: ColorType) -> u16 {
    let full = if is_deep(color) { u16::MAX } else { u8::MAX.into() };
    if format != Format::Pnm || !is_wanted {
        return full;
    }
    let header = PnmDecoder::new(bytes).map(|decoder| decoder.into_inner().1);
    match header.map(|header| header.maximal_sample()) {
        // Black and white have no scale.
        Ok(most @ 2..) => u16::try_from(most).map_or(full, |most| most.min(full)),
        _ => full,
    }
}

/// The range of values that are scaled from 0 to `most`, as the image of `width` stores them, to 16 bits.
fn range_stored(values: &[u16], color: ColorType, width: u32, most: u16) -> [u16; 2] {
    let channels = usize::from(color.channel_count());
    let colours = channels - usize::from(color.has_alpha());
    let pixels = values.chunks_exact(channels);
    let counted = stride(pixels.len(), width as usize);
    let counted = pixels.step_by(counted);
    let beyond = colours as u64 * thousandth(counted.len() as u64);
    let mut counts = vec![0u32; 1 << 16];
    for pixel in counted {
        pixel[..colours].iter().for_each(|&value| counts[usize::from(value)] += 1);
    }
    let (least, most_used) = range(&counts, beyond);
    [least, most_used].map(|value| as_stored(value, u16::MAX, most))
}

fn is_deep(color: ColorType) -> bool {
    color.bytes_per_pixel() > color.channel_count()
}

/// Converts 8-bit values other than RGB to RGB: grey through the window, transparency over the background. The values
/// of a grey image are scaled from 0 to `most`, as it stores them.
fn to_rgb(stored: &mut [u8], (color, most): (ColorType, u16), options: &DecodeOptions, out: &mut [u8]) {
    let over = |value: u8, alpha: u8, channel: usize| over(value, alpha, options.background[channel]);
    match color {
        ColorType::L8 => {
            options.window.apply_to_scaled_grey(stored, most);
            for (out, &value) in out.as_chunks_mut::<3>().0.iter_mut().zip(&*stored) {
                *out = [value; 3];
            }
        }
        ColorType::La8 => {
            let stored = stored.as_chunks_mut::<2>().0;
            // The window looks at the grey values alone: gather them in the part of `out` that is still free.
            let grey = &mut out[..stored.len()];
            grey.iter_mut().zip(&*stored).for_each(|(value, pixel)| *value = pixel[0]);
            options.window.apply_to_scaled_grey(grey, most);
            stored.iter_mut().zip(grey).for_each(|(pixel, value)| pixel[0] = *value);
            for (out, &[value, alpha]) in out.as_chunks_mut::<3>().0.iter_mut().zip(&*stored) {
                *out = std::array::from_fn(|channel| over(value, alpha, channel));
            }
        }
        _ => {
            for (out, rgba) in out.as_chunks_mut::<3>().0.iter_mut().zip(stored.as_chunks::<4>().0) {
                *out = std::array::from_fn(|channel| over(rgba[channel], rgba[3], channel));
            }
        }
    }
}

/// Converts 16-bit values to 8-bit RGB: values through the window, transparency over the background. The values are
/// scaled from 0 to `most`, as the image stores them.
fn deep_to_rgb(stored: &[u16], (color, most): (ColorType, u16), options: &DecodeOptions, out: &mut [u8]) {
    let window = options.window;
    let over =
        |value: u8, alpha: u16, channel: usize| over(value, opacity(alpha), options.background[channel]);
    let rgb = out.as_chunks_mut::<3>().0;
    match color {
        ColorType::L16 => {
            let map = window.of_16_bits(stored.iter().copied(), most);
            for (out, &value) in rgb.iter_mut().zip(stored) {
                *out = [map(value); 3];
            }
        }
        ColorType::La16 => {
            let pixels = stored.as_chunks::<2>().0;
            let map = window.of_16_bits(pixels.iter().map(|pixel| pixel[0]), most);
            for (out, &[value, alpha]) in rgb.iter_mut().zip(pixels) {
                *out = std::array::from_fn(|channel| over(map(value), alpha, channel));
            }
        }
        ColorType::Rgb16 => {
            let map = window.of_16_bits(stored.iter().copied(), most);
            for (out, pixel) in rgb.iter_mut().zip(stored.as_chunks::<3>().0) {
                *out = pixel.map(&map);
            }
        }
        _ => {
            let pixels = stored.as_chunks::<4>().0;
            let map = window.of_16_bits(pixels.iter().flat_map(|pixel| pixel[..3].iter().copied()), most);
            for (out, pixel) in rgb.iter_mut().zip(pixels) {
                *out = std::array::from_fn(|channel| over(map(pixel[channel]), pixel[3], channel));
            }
        }
    }
}

/// Converts a 16-bit opacity to 8 bits.
fn opacity(alpha: u16) -> u8 {
    ((u32::from(alpha) + 128) / 257) as u8
}

/// `value` with opacity `alpha`, laid over `background` and rounded.
fn over(value: u8, alpha: u8, background: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + u32::from(background) * (255 - alpha) + 127) / 255) as u8
}
