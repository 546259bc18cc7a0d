//! Which stored values become black and white, the background of transparent images, and shrinking.

mod common;

use common::encoded::{crc32, encoded, golden};
use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba,
    RgbaImage,
};
use simclr_data::{DecodeOptions, DecodeScratch, Window, decode_bytes};
use std::io::Write;

#[test]
fn window_background_and_shrinking_are_obeyed() {
    let mut scratch = DecodeScratch::default();
    let mut first = |bytes: Vec<u8>, options: DecodeOptions| {
        let image = decode_bytes("x", &bytes, &options, &mut scratch).unwrap();
        ([image.pixels[0], image.pixels[1], image.pixels[2]], image.width, image.height)
    };
    let twelve_bits = DecodeOptions { window: Window::Values { low: 0, high: 4095 }, ..Default::default() };
    let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(2, 2, Luma([2048]));
    assert_eq!(first(encoded(deep, ImageFormat::Tiff), twelve_bits).0, [128; 3]);
    // The window leaves 8-bit colour as it is and changes 8-bit grey, both in PNG and in JPEG.
    let narrow = DecodeOptions { window: Window::Values { low: 50, high: 150 }, ..Default::default() };
    let color = RgbImage::from_pixel(2, 2, Rgb([100; 3]));
    assert_eq!(first(encoded(color, ImageFormat::Png), narrow).0, [100; 3]);
    let grey = GrayImage::from_pixel(2, 2, Luma([100]));
    assert_eq!(first(encoded(grey, ImageFormat::Png), narrow).0, [128; 3]);
    assert_eq!(first(std::fs::read(golden("grey.jpg")).unwrap(), narrow).0, [0; 3]);
    let blue = DecodeOptions { background: [0, 0, 200], ..Default::default() };
    let clear = RgbaImage::from_pixel(2, 2, image::Rgba([200, 0, 0, 51]));
    assert_eq!(first(encoded(clear, ImageFormat::Png), blue).0, [40, 0, 160]);
    let deep_clear = ImageBuffer::from_pixel(2, 2, Rgba([200 * 257, 0, 0, 51 * 257u16]));
    assert_eq!(first(encoded(deep_clear, ImageFormat::Png), blue).0, [40, 0, 160]);
    let small = DecodeOptions { shrink: Some(10), ..Default::default() };
    let large = RgbImage::from_pixel(60, 40, Rgb([7, 8, 9]));
    assert_eq!(first(encoded(large, ImageFormat::Bmp), small), ([7, 8, 9], 15, 10));
    // The orientation is applied after shrinking.
    let (_, width, height) = first(std::fs::read(golden("orientation-6.jpg")).unwrap(), small);
    assert_eq!((width, height), (15, 10));
}

#[test]
fn windows_act_on_the_values_and_not_on_the_opacity() {
    let mut scratch = DecodeScratch::default();
    let mut pixels = |image: DynamicImage, window: Window| {
        let options = DecodeOptions { window, ..Default::default() };
        let bytes = encoded(image, ImageFormat::Png);
        decode_bytes("x", &bytes, &options, &mut scratch).unwrap().pixels.to_vec()
    };
    let two = |x: u32| 1000 + 1000 * x as u16;
    let color = ImageBuffer::from_fn(2, 1, |x, _| Rgba([two(x), two(x), two(x), 65535]));
    let grey = ImageBuffer::from_fn(2, 1, |x, _| LumaA([two(x), 65535]));
    for deep in [DynamicImage::from(color), grey.into()] {
        assert_eq!(pixels(deep, Window::Image), [0, 0, 0, 255, 255, 255]);
    }
    let grey = GrayAlphaImage::from_fn(2, 1, |x, _| LumaA([100 + 10 * x as u8, 255]));
    assert_eq!(pixels(grey.clone().into(), Window::Image), [0, 0, 0, 255, 255, 255]);
    let narrow = Window::Values { low: 50, high: 150 };
    assert_eq!(pixels(grey.into(), narrow), [128, 128, 128, 153, 153, 153]);
}

/// A grey JPEG of blocks of 8 x 8 equal pixels.
fn jpeg_of_blocks(width: u16, height: u16, value: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    // In steps of 8, the first coefficient of a block is its value.
    bytes.extend([8; 64]);
    let ([top, bottom], [left, right]) = (height.to_be_bytes(), width.to_be_bytes());
    bytes.extend([0xff, 0xc0, 0, 11, 8, top, bottom, left, right, 1, 1, 0x11, 0]);
    // Differences of up to 8 bits have codes of 4 bits; the only other code, of one bit, ends a block.
    bytes.extend([0xff, 0xc4, 0, 28, 0, 0, 0, 0, 9].into_iter().chain([0; 12]).chain(0..9));
    bytes.extend([0xff, 0xc4, 0, 20, 0x10, 1].into_iter().chain([0; 16]));
    bytes.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
    let (mut bits, mut before) = (Vec::new(), 128);
    for block in 0..usize::from(width.div_ceil(8)) * usize::from(height.div_ceil(8)) {
        let difference = i32::from(value(block)) - before;
        let len = 32 - difference.unsigned_abs().leading_zeros();
        let written = if difference < 0 { difference + (1 << len) - 1 } else { difference };
        bits.extend((0..4).rev().map(|bit| len >> bit & 1 == 1));
        bits.extend((0..len).rev().map(|bit| written >> bit & 1 == 1));
        bits.push(false);
        before += difference;
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    for byte in bits.chunks(8) {
        let byte = byte.iter().fold(0, |byte, &bit| 2 * byte + u8::from(bit));
        bytes.push(byte);
        bytes.extend((byte == 0xff).then_some(0));
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

#[test]
fn outliers_are_as_many_in_jpeg_as_in_png() {
    // The 64 brightest of 63,600 pixels are one in a thousand, rounded.
    let value = |block: usize| if block == 400 { 255 } else { 40 + (block % 21) as u8 };
    let image = GrayImage::from_fn(240, 265, |x, y| Luma([value(y as usize / 8 * 30 + x as usize / 8)]));
    let (png, jpeg) = (encoded(image, ImageFormat::Png), jpeg_of_blocks(240, 265, value));
    let pixels = |bytes: &[u8], window| {
        let options = DecodeOptions { window, ..Default::default() };
        decode_bytes("x", bytes, &options, &mut DecodeScratch::default()).unwrap().pixels.to_vec()
    };
    assert!(pixels(&jpeg, Window::Full) == pixels(&png, Window::Full));
    let seen = pixels(&png, Window::Image);
    assert_eq!([seen[0], seen[3 * 8 * 20]], [0, 255]);
    assert!(pixels(&jpeg, Window::Image) == seen);
}

#[test]
fn windows_are_of_the_values_that_a_pnm_stores() {
    let first = |head: &str, values: &[u16], [low, high]: [u16; 2]| {
        let is_deep = head.contains("4095") || head.contains("1023");
        let bytes = values.iter().flat_map(|value| match is_deep {
            true => value.to_be_bytes().to_vec(),
            false => vec![*value as u8],
        });
        let image: Vec<u8> = head.bytes().chain(bytes).collect();
        let options = DecodeOptions { window: Window::Values { low, high }, ..Default::default() };
        let mut scratch = DecodeScratch::default();
        decode_bytes("x", &image, &options, &mut scratch).unwrap().pixels[..3].to_vec()
    };
    let pam = |depth, most, kind| {
        format!("P7\nWIDTH 1\nHEIGHT 1\nDEPTH {depth}\nMAXVAL {most}\nTUPLTYPE {kind}\nENDHDR\n")
    };
    for window in [[0, 4095], [1000, 3096]] {
        assert_eq!(first("P5 1 1 4095\n", &[2048], window), [128; 3]);
        assert_eq!(first(&pam(2, 4095, "GRAYSCALE_ALPHA"), &[2048, 4095], window), [128; 3]);
    }
    assert_eq!(first("P2 1 1 4095\n 2048\n", &[], [0, 4095]), [128; 3]);
    assert_eq!(first("P6 1 1 1023\n", &[100, 300, 500], [100, 500]), [0, 128, 255]);
    assert_eq!(first("P5 1 1 100\n", &[25], [0, 50]), [128; 3]);
    assert_eq!(first(&pam(2, 100, "GRAYSCALE_ALPHA"), &[25, 100], [0, 50]), [128; 3]);
    assert_eq!(first("P5 1 1 255\n", &[100], [50, 150]), [128; 3]);
    // Black and white are so on the scale of 8 bits.
    assert_eq!(first("P1 1 1\n0\n", &[], [0, 255]), [255; 3]);
}

#[test]
fn grey_of_few_bits_is_on_the_scale_of_8() {
    // Optimisers of PNG store grey images of 16 levels, a multiple of 17 each, with 4 bits.
    let chunk = |kind: &[u8], data: &[u8]| {
        let named = [kind, data].concat();
        [&(data.len() as u32).to_be_bytes()[..], &named, &crc32(&named).to_be_bytes()].concat()
    };
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(&[0, 0x6c]).unwrap();
    let bytes = [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 1, 4, 0, 0, 0, 0]),
        chunk(b"IDAT", &zlib.finish().unwrap()),
        chunk(b"IEND", &[]),
    ]
    .concat();
    let whole = GrayImage::from_fn(2, 1, |x, _| Luma([17 * if x == 0 { 6 } else { 12 }]));
    let options = DecodeOptions { window: Window::Values { low: 52, high: 252 }, ..Default::default() };
    let pixels = |bytes: &[u8]| {
        decode_bytes("x", bytes, &options, &mut DecodeScratch::default()).unwrap().pixels.to_vec()
    };
    assert_eq!(pixels(&bytes), [64, 64, 64, 194, 194, 194]);
    assert_eq!(pixels(&encoded(whole, ImageFormat::Png)), pixels(&bytes));
}
