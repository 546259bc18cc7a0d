//! PNG, WebP and BMP, through the `image` crate.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{Format, MAX_PIXELS, Stored, check_size, resize};

/// What transparent pixels are laid over.
const BACKGROUND: u8 = 255;

pub(super) fn decode(bytes: &[u8], format: Format, pixels: &mut Vec<u8>) -> Result<Stored, String> {
    let damaged = |e: image::ImageError| format!("damaged {format}: {e}");
    let mut reader = ImageReader::with_format(
        Cursor::new(bytes),
        match format {
            Format::WebP => ImageFormat::WebP,
            Format::Bmp => ImageFormat::Bmp,
            _ => ImageFormat::Png,
        },
    );
    let mut limits = Limits::no_limits();
    // Eight bytes a pixel is RGBA of 16 bits, the widest there is; as much again for the decoders' own rows.
    limits.max_alloc = Some(MAX_PIXELS * 16);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let area = width as usize * height as usize;

    if decoder.color_type() == ColorType::Rgb8 {
        resize(pixels, area * 3)?;
        decoder.read_image(pixels).map_err(damaged)?;
    } else {
        let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
        resize(pixels, area * 3)?;
        to_rgb(image, pixels);
    }
    Ok(Stored { width, height, orientation })
}

fn to_rgb(image: DynamicImage, out: &mut [u8]) {
    let rgb = out.as_chunks_mut::<3>().0;
    match image {
        DynamicImage::ImageLuma8(grey) => {
            for (out, &value) in rgb.iter_mut().zip(grey.as_raw()) {
                *out = [value; 3];
            }
        }
        other if !other.color().has_alpha() => {
            out.copy_from_slice(other.into_rgb8().as_raw());
        }
        other => {
            for (out, rgba) in rgb.iter_mut().zip(other.into_rgba8().as_raw().as_chunks::<4>().0) {
                let [r, g, b, alpha] = *rgba;
                *out = [r, g, b].map(|value| over_background(value, alpha));
            }
        }
    }
}

/// `value` with opacity `alpha`, laid over the background and rounded.
fn over_background(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + u32::from(BACKGROUND) * (255 - alpha) + 127) / 255) as u8
}
