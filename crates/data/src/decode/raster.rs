//! PNG, WebP, BMP, TIFF, GIF and PNM, through the `image` crate.

use std::error::Error;
use std::io::Cursor;

use image::error::{UnsupportedError, UnsupportedErrorKind};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits};
use tiff::decoder::Decoder;
use tiff::tags::{ExtraSamples, Tag};

use super::options::DecodeOptions;
use super::{Format, MAX_PIXELS, Stored, check_size, resize};

pub(super) fn decode(
    bytes: &[u8],
    format: Format,
    options: &DecodeOptions,
    pixels: &mut Vec<u8>,
) -> Result<Stored, String> {
    let refused = |error: image::ImageError| match error {
        image::ImageError::Unsupported(error) => unusual(format, &unsupported(&error)),
        // What stands around it names the format once more.
        error => match error.source() {
            Some(cause) => format!("damaged {format}: {cause}"),
            None => format!("damaged {format}: {error}"),
        },
    };
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
    // Eight bytes a pixel is RGBA of 16 bits, the widest there is; as much again for the decoders' own rows.
    limits.max_alloc = Some(MAX_PIXELS * 16);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(refused)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let color = decoder.color_type();
    if matches!(color, ColorType::Rgb32F | ColorType::Rgba32F) {
        // What is white in it is not known.
        return Err(unusual(format, "floating-point values"));
    }
    let area = width as usize * height as usize;

    if color == ColorType::Rgb8 {
        resize(pixels, area * 3)?;
        decoder.read_image(pixels).map_err(refused)?;
    } else {
        let mut image = DynamicImage::from_decoder(decoder).map_err(refused)?;
        if format == Format::Tiff && color.has_alpha() && is_premultiplied(bytes) {
            divide_by_opacity(&mut image);
        }
        resize(pixels, area * 3)?;
        to_rgb(image, options, pixels);
    }
    Ok(Stored {
        width,
        height,
        orientation,
        grey: !color.has_color(),
        bits: if color.bytes_per_pixel() > color.channel_count() { 16 } else { 8 },
    })
}

/// What it is that a decoder does not read.
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
        "{format} of a kind that is not read ({what}); 8 or 16 bits a channel, grey or RGB, would be right"
    )
}

/// Whether the colours of a TIFF are stored multiplied by their opacity.
fn is_premultiplied(bytes: &[u8]) -> bool {
    let kinds = Decoder::new(Cursor::new(bytes))
        .and_then(|mut decoder| decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples));
    kinds.is_ok_and(|kinds| {
        kinds.is_some_and(|kinds| kinds.first() == Some(&ExtraSamples::AssociatedAlpha.to_u16()))
    })
}

/// Undoes a multiplication of the colours by their opacity, the last value of each pixel.
fn divide_by_opacity(image: &mut DynamicImage) {
    fn each<const N: usize, T: Copy + Into<u32> + TryFrom<u32>>(values: &mut [T], full: u32) {
        for pixel in values.as_chunks_mut::<N>().0 {
            let opacity: u32 = pixel[N - 1].into();
            for value in &mut pixel[..N - 1] {
                let divided = ((*value).into() * full + opacity / 2).checked_div(opacity).unwrap_or(0);
                *value = T::try_from(divided.min(full)).unwrap_or(*value);
            }
        }
    }
    match image {
        DynamicImage::ImageLumaA8(image) => each::<2, u8>(image, 255),
        DynamicImage::ImageRgba8(image) => each::<4, u8>(image, 255),
        DynamicImage::ImageLumaA16(image) => each::<2, u16>(image, 65_535),
        DynamicImage::ImageRgba16(image) => each::<4, u16>(image, 65_535),
        _ => {}
    }
}

/// Brings any kind of pixels to 8-bit RGB: 16 bits through the window, transparency over the background.
fn to_rgb(image: DynamicImage, options: &DecodeOptions, out: &mut [u8]) {
    let window = options.window;
    let over = |value: u8, alpha: u8, channel: usize| over(value, alpha, options.background[channel]);
    let rgb = out.as_chunks_mut::<3>().0;
    match image {
        DynamicImage::ImageLuma8(grey) => {
            for (out, &value) in rgb.iter_mut().zip(grey.as_raw()) {
                *out = [value; 3];
            }
            window.apply_to_grey(out);
        }
        DynamicImage::ImageLumaA8(mut grey) => {
            let mut values: Vec<u8> = grey.pixels().map(|pixel| pixel.0[0]).collect();
            window.apply_to_grey(&mut values);
            for (pixel, value) in grey.pixels_mut().zip(values) {
                pixel.0[0] = value;
            }
            for (out, &[value, alpha]) in rgb.iter_mut().zip(grey.as_raw().as_chunks::<2>().0) {
                *out = std::array::from_fn(|channel| over(value, alpha, channel));
            }
        }
        DynamicImage::ImageLuma16(grey) => {
            let map = window.of_16_bits(grey.as_raw().iter().copied());
            for (out, &value) in rgb.iter_mut().zip(grey.as_raw()) {
                *out = [map(value); 3];
            }
        }
        DynamicImage::ImageLumaA16(grey) => {
            let pixels = grey.as_raw().as_chunks::<2>().0;
            let map = window.of_16_bits(pixels.iter().map(|pixel| pixel[0]));
            for (out, &[value, alpha]) in rgb.iter_mut().zip(pixels) {
                *out = std::array::from_fn(|channel| over(map(value), opacity(alpha), channel));
            }
        }
        DynamicImage::ImageRgb16(color) => {
            let map = window.of_16_bits(color.as_raw().iter().copied());
            for (out, pixel) in rgb.iter_mut().zip(color.as_raw().as_chunks::<3>().0) {
                *out = pixel.map(&map);
            }
        }
        DynamicImage::ImageRgba16(color) => {
            let pixels = color.as_raw().as_chunks::<4>().0;
            let map = window.of_16_bits(pixels.iter().flat_map(|pixel| pixel[..3].iter().copied()));
            for (out, pixel) in rgb.iter_mut().zip(pixels) {
                *out = std::array::from_fn(|channel| over(map(pixel[channel]), opacity(pixel[3]), channel));
            }
        }
        other if !other.color().has_alpha() => {
            out.copy_from_slice(other.into_rgb8().as_raw());
        }
        other => {
            for (out, rgba) in rgb.iter_mut().zip(other.into_rgba8().as_raw().as_chunks::<4>().0) {
                *out = std::array::from_fn(|channel| over(rgba[channel], rgba[3], channel));
            }
        }
    }
}

/// An opacity of 16 bits in 8.
fn opacity(alpha: u16) -> u8 {
    ((u32::from(alpha) + 128) / 257) as u8
}

/// `value` with opacity `alpha`, laid over `background` and rounded.
fn over(value: u8, alpha: u8, background: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + u32::from(background) * (255 - alpha) + 127) / 255) as u8
}
