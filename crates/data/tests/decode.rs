//! Decoding: formats, orientation, and files that are not what they claim to be.

mod common;

use common::encoded::{crc32, encoded, golden};
use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage,
};
use simclr_data::{DecodeOptions, DecodeScratch, decode_bytes, decode_file};
use std::io::Cursor;
use tiff::TiffError;
use tiff::decoder::Decoder;
use tiff::encoder::colortype::{ColorType, RGB32Float, RGBA8, RGBA16, YCbCr8};
use tiff::encoder::{TiffEncoder, TiffValue};
use tiff::tags::Tag;

/// The middle pixels of the four quadrants of a 24 x 16 picture.
fn quadrants(name: &str) -> [[u8; 3]; 4] {
    let mut scratch = DecodeScratch::default();
    let image = decode_file(&golden(name), &DecodeOptions::default(), &mut scratch).unwrap();
    assert_eq!((image.width, image.height), (24, 16), "{name}");
    assert_eq!(image.pixels.len(), 24 * 16 * 3);
    [(6, 4), (18, 4), (6, 12), (18, 12)].map(|(x, y)| {
        let at = 3 * (y * 24 + x);
        [image.pixels[at], image.pixels[at + 1], image.pixels[at + 2]]
    })
}

fn assert_near(name: &str, expected: [[u8; 3]; 4], tolerance: u8) {
    let seen = quadrants(name);
    let near = seen.iter().flatten().zip(expected.iter().flatten()).all(|(a, &b)| a.abs_diff(b) <= tolerance);
    assert!(near, "{name}: {seen:?} instead of {expected:?}");
}

const COLOURS: [[u8; 3]; 4] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]];

#[test]
fn jpeg_kinds() {
    for name in ["colour.jpg", "progressive.jpg", "subsampled.jpg", "restarts.jpg", "cmyk.jpg"] {
        assert_near(name, COLOURS, 24);
    }
    assert_near("grey.jpg", [[40; 3], [100; 3], [160; 3], [220; 3]], 3);
}

#[test]
fn every_exif_orientation_is_obeyed() {
    for orientation in 1..=8 {
        assert_near(&format!("orientation-{orientation}.jpg"), COLOURS, 24);
    }
}

#[test]
fn lossless_formats_keep_every_pixel() {
    let picture = RgbImage::from_fn(13, 7, |x, y| Rgb([x as u8 * 19, y as u8 * 36, (x * y) as u8]));
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Pnm]
    {
        // The name says JPEG, but the content decides.
        let mut scratch = DecodeScratch::default();
        let bytes = encoded(picture.clone(), format);
        let image = decode_bytes("a.jpg", &bytes, &DecodeOptions::default(), &mut scratch).unwrap();
        assert_eq!((image.width, image.height), (13, 7), "{format:?}");
        assert_eq!(image.pixels, picture.as_raw(), "{format:?}");
    }
}

#[test]
fn grey_depth_and_transparency() {
    let mut scratch = DecodeScratch::default();
    let mut first = |bytes: Vec<u8>| {
        let image = decode_bytes("x", &bytes, &DecodeOptions::default(), &mut scratch).unwrap();
        [image.pixels[0], image.pixels[1], image.pixels[2]]
    };
    let grey = GrayImage::from_pixel(3, 3, Luma([77]));
    assert_eq!(first(encoded(grey, ImageFormat::Png)), [77; 3]);
    let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(2, 2, Luma([40 * 257 + 100]));
    assert_eq!(first(encoded(deep, ImageFormat::Png)), [40; 3]);
    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_pixel(2, 2, Rgb([0, 200 * 257, 65535]));
    assert_eq!(first(encoded(deep, ImageFormat::Png)), [0, 200, 255]);
    // Transparent is white, half transparent half way there.
    let clear = RgbaImage::from_pixel(2, 2, image::Rgba([10, 20, 30, 0]));
    assert_eq!(first(encoded(clear, ImageFormat::Png)), [255; 3]);
    let half = RgbaImage::from_pixel(2, 2, image::Rgba([0, 100, 255, 51]));
    assert_eq!(first(encoded(half, ImageFormat::WebP)), [204, 224, 255]);
    let grey = GrayAlphaImage::from_pixel(2, 2, image::LumaA([0, 102]));
    assert_eq!(first(encoded(grey, ImageFormat::Png)), [153; 3]);
}

#[derive(serde::Deserialize)]
struct Golden {
    width: u32,
    height: u32,
    tolerance: u8,
    rgb: String,
}

/// `tools/golden/formats.py` made the files and their pixels.
#[test]
fn every_format_has_the_pixels_of_pillow() {
    let json = std::fs::read(golden("formats/pixels.json")).unwrap();
    let files: std::collections::BTreeMap<String, Golden> = serde_json::from_slice(&json).unwrap();
    assert_eq!(files.len(), 29);
    let mut scratch = DecodeScratch::default();
    for (name, expected) in files {
        let path = golden("formats").join(&name);
        let image = decode_file(&path, &DecodeOptions::default(), &mut scratch).unwrap();
        assert_eq!((image.width, image.height), (expected.width, expected.height), "{name}");
        let bytes: Vec<u8> = (0..expected.rgb.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&expected.rgb[at..at + 2], 16).unwrap())
            .collect();
        let furthest = image.pixels.iter().zip(&bytes).map(|(a, &b)| a.abs_diff(b)).max();
        assert!(
            image.pixels.len() == bytes.len() && furthest <= Some(expected.tolerance),
            "{name}: off by {furthest:?}: {:?} instead of {bytes:?}",
            image.pixels
        );
    }
}

#[test]
fn how_an_image_was_stored_is_known() {
    let mut scratch = DecodeScratch::default();
    for (name, format, bits, grey) in [
        ("formats/grey16.png", "PNG", 16, true),
        ("formats/color16.tif", "TIFF", 16, false),
        ("formats/text.pgm", "PNM", 8, true),
        ("formats/animated.gif", "GIF", 8, false),
        ("grey.jpg", "JPEG", 8, true),
        ("colour.jpg", "JPEG", 8, false),
    ] {
        decode_file(&golden(name), &DecodeOptions::default(), &mut scratch).unwrap();
        let stored = scratch.stored().unwrap();
        assert_eq!(
            (stored.format.to_string().as_str(), stored.bits, stored.grey),
            (format, bits, grey),
            "{name}"
        );
    }
    assert!(decode_bytes("x", b"no image", &DecodeOptions::default(), &mut scratch).is_err());
    assert_eq!(scratch.stored(), None);
}

#[test]
fn transparency_and_further_pages_are_known() {
    let stored_with = |mut scratch: DecodeScratch, bytes: &[u8]| {
        decode_bytes("x", bytes, &DecodeOptions::default(), &mut scratch).unwrap();
        let stored = scratch.stored().unwrap();
        (stored.transparent, stored.has_pages)
    };
    let stored = |bytes: &[u8]| {
        assert_eq!(stored_with(DecodeScratch::default(), bytes), (false, false));
        stored_with(DecodeScratch::thorough(), bytes)
    };
    // The last of four pixels is a little transparent, or none is.
    let image = |alpha: u16| {
        ImageBuffer::from_fn(2, 2, move |x, y| Rgba([9, 9, 9, if x + y == 2 { alpha } else { u16::MAX }]))
    };
    for (alpha, transparent) in [(0, true), (254 * 257, true), (u16::MAX, false)] {
        let deep = DynamicImage::from(image(alpha));
        let grey = [deep.to_luma_alpha8().into(), deep.to_luma_alpha16().into()];
        for image in grey.into_iter().chain([deep.to_rgba8().into(), deep]) {
            assert_eq!(stored(&encoded(image, ImageFormat::Png)), (transparent, false), "{alpha}");
        }
    }
    assert_eq!(stored(&std::fs::read(golden("colour.jpg")).unwrap()), (false, false));
    // The kind of each page but the first: bit 0 a smaller copy, bit 1 a page of several, bit 2 a mask.
    for (kinds, has_pages) in [
        (&[][..], false),
        (&[None], true),
        (&[Some(2)], true),
        (&[Some(1), Some(5), Some(4)], false),
        (&[Some(1), Some(0)], true),
    ] {
        let mut file = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut file).unwrap();
        encoder.write_image::<RGBA8>(2, 2, &[255; 16]).unwrap();
        for kind in kinds {
            let mut image = encoder.new_image::<RGBA8>(1, 1).unwrap();
            kind.iter().for_each(|kind: &u32| image.encoder().write_tag(Tag::NewSubfileType, *kind).unwrap());
            image.write_data(&[255; 4]).unwrap();
        }
        assert_eq!(stored(&file.into_inner()), (false, has_pages), "{kinds:?}");
    }
    // A page of a kind that is not read.
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file).unwrap();
    encoder.write_image::<RGBA8>(2, 2, &[255; 16]).unwrap();
    encoder.write_image::<RGBA8>(1, 1, &[255; 4]).unwrap();
    let mut file = file.into_inner();
    let photometric = [&262_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes(), &1_u32.to_ne_bytes()].concat();
    let entry = file.windows(8).rposition(|bytes| bytes == photometric).unwrap();
    file[entry + 8..entry + 10].copy_from_slice(&99_u16.to_ne_bytes());
    let next = Decoder::new(Cursor::new(&file)).unwrap().next_image();
    assert!(matches!(next, Err(TiffError::UnsupportedError(_))), "{next:?}");
    assert_eq!(stored(&file), (false, true));
}

#[test]
fn tiny_and_wide_images_are_read() {
    let mut scratch = DecodeScratch::default();
    for (width, height) in [(1, 1), (30_000, 3), (1, 2000)] {
        let bytes = encoded(RgbImage::new(width, height), ImageFormat::Png);
        let image = decode_bytes("x", &bytes, &DecodeOptions::default(), &mut scratch).unwrap();
        assert_eq!((image.width, image.height), (width, height));
    }
}

fn refusal(bytes: &[u8]) -> String {
    let mut scratch = DecodeScratch::default();
    decode_bytes("picture.jpg", bytes, &DecodeOptions::default(), &mut scratch).unwrap_err().to_string()
}

#[test]
fn truncated_jpegs_are_refused_wherever_they_are_cut() {
    for name in ["colour.jpg", "progressive.jpg", "grey.jpg", "restarts.jpg", "orientation-6.jpg"] {
        let whole = std::fs::read(golden(name)).unwrap();
        for cut in (3..whole.len()).step_by(7).chain([whole.len() - 1, whole.len() - 2]) {
            let error = refusal(&whole[..cut]);
            assert!(
                error.starts_with("picture.jpg: ") && error.contains("JPEG"),
                "{name} cut at {cut}: {error}"
            );
        }
    }
    let whole = std::fs::read(golden("colour.jpg")).unwrap();
    assert!(refusal(&whole[..whole.len() - 40]).contains("truncated"));
}

#[test]
fn a_jpeg_of_which_half_is_missing_is_refused_whatever_follows() {
    for name in ["colour.jpg", "grey.jpg", "subsampled.jpg", "restarts.jpg"] {
        let whole = std::fs::read(golden(name)).unwrap();
        let scan = whole.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
        let half = (scan + whole.len()) / 2;
        let half = if whole[half - 1] == 0xff { half - 1 } else { half };
        for end in [&[0xff, 0xd9][..], &[0xff, 0xd9, 0, 0, 0, 0xff, 0xd9]] {
            let error = refusal(&[&whole[..half], end].concat());
            assert!(error.contains("truncated JPEG: its coded data end early"), "{name}: {error}");
        }
    }
    // Nothing is coded of an image whose data end at once.
    let whole = std::fs::read(golden("grey.jpg")).unwrap();
    let scan = whole.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    let header = 2 + usize::from(u16::from_be_bytes([whole[scan + 2], whole[scan + 3]]));
    let error = refusal(&[&whole[..scan + header], &[0xff, 0xd9]].concat());
    assert!(error.contains("end early, after 0 of "), "{error}");
}

#[test]
fn a_jpeg_cut_within_its_header_is_truncated() {
    for name in ["colour.jpg", "progressive.jpg", "cmyk.jpg"] {
        let whole = std::fs::read(golden(name)).unwrap();
        let scan = whole.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        for len in 4..scan + 4 {
            let error = refusal(&whole[..len]);
            assert_eq!(error, "picture.jpg: truncated JPEG: it ends within its header", "{name}: {len}");
        }
    }
}

#[test]
fn truncated_lossless_files_are_refused() {
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Pnm]
    {
        let picture = RgbImage::from_fn(40, 40, |x, y| Rgb([(x * y) as u8, x as u8, y as u8]));
        let whole = encoded(picture, format);
        let error = refusal(&whole[..whole.len() / 2]);
        assert!(error.starts_with("picture.jpg: damaged"), "{format:?}: {error}");
    }
}

/// A TIFF of 2 x 2 pixels of a kind that the `image` crate does not write.
fn tiff<C: ColorType>(pixel: &[C::Inner], tags: &[(Tag, u16)]) -> Vec<u8>
where
    [C::Inner]: TiffValue,
    C::Inner: Copy,
{
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut bytes).unwrap();
    let mut image = encoder.new_image::<C>(2, 2).unwrap();
    for (tag, value) in tags {
        image.encoder().write_tag(*tag, *value).unwrap();
    }
    image.write_data(&pixel.repeat(4)).unwrap();
    bytes.into_inner()
}

#[test]
fn tiffs_that_store_colours_times_opacity_are_understood() {
    let mut scratch = DecodeScratch::default();
    let mut first = |bytes: Vec<u8>| {
        let image = decode_bytes("x", &bytes, &DecodeOptions::default(), &mut scratch).unwrap();
        [image.pixels[0], image.pixels[1], image.pixels[2]]
    };
    // Black at half opacity is grey over white either way; values of 128 are white where stored times the opacity.
    for (kind, expected) in [(2, [191, 191, 127]), (1, [255, 255, 127])] {
        let bytes = tiff::<RGBA8>(&[128, 128, 0, 128], &[(Tag::ExtraSamples, kind)]);
        assert_eq!(first(bytes), expected, "{kind}");
        let deep = tiff::<RGBA16>(&[32896, 32896, 0, 32896], &[(Tag::ExtraSamples, kind)]);
        assert_eq!(first(deep), expected, "{kind}");
    }
}

#[test]
fn tiffs_of_a_kind_that_is_not_read_are_named() {
    let float = refusal(&tiff::<RGB32Float>(&[12.0, 200.0, 255.0], &[]));
    assert!(float.contains("floating-point values"), "{float}");
    let converted = refusal(&tiff::<YCbCr8>(&[12, 200, 255], &[]));
    for message in [float, converted] {
        assert!(message.contains("8 or 16 bits per channel, grey or RGB, are expected"), "{message}");
    }
}

#[test]
fn the_second_channel_of_a_grey_tiff_is_named() {
    let mut bytes = Cursor::new(Vec::new());
    let mut directory = TiffEncoder::new(&mut bytes).unwrap();
    let mut image = directory.image_directory().unwrap();
    let at = image.write_data(&[9u8; 8][..]).unwrap() as u16;
    for (tag, value) in [
        (Tag::ImageWidth, 2),
        (Tag::ImageLength, 2),
        (Tag::PhotometricInterpretation, 1),
        (Tag::SamplesPerPixel, 2),
        (Tag::ExtraSamples, 2),
        (Tag::StripOffsets, at),
        (Tag::StripByteCounts, 8),
        (Tag::RowsPerStrip, 2),
    ] {
        image.write_tag(tag, value).unwrap();
    }
    image.write_tag(Tag::BitsPerSample, &[8u16, 8][..]).unwrap();
    image.finish().unwrap();
    let message = refusal(&bytes.into_inner());
    assert!(
        message.contains("(grey with a second channel, which may be its opacity, of 8 bits)"),
        "{message}"
    );
}

#[test]
fn jpegs_of_a_kind_that_is_not_read_are_named() {
    let whole = std::fs::read(golden("colour.jpg")).unwrap();
    let frame = whole.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    for (place, value, kind) in [
        (1, 0xc9, "arithmetic coding"),
        (1, 0xca, "arithmetic coding"),
        (1, 0xc3, "lossless"),
        (1, 0xc5, "hierarchical"),
        (4, 12, "12 bits a channel"),
    ] {
        let mut bytes = whole.clone();
        bytes[frame + place] = value;
        let message = refusal(&bytes);
        let expected =
            format!("picture.jpg: JPEG of a kind that is not read ({kind}); baseline or progressive");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn a_gif_that_shows_nothing_of_its_image_is_refused() {
    let picture = RgbaImage::from_pixel(3, 2, image::Rgba([10, 20, 30, 255]));
    let whole = encoded(picture, ImageFormat::Gif);
    let at = whole.windows(9).position(|bytes| bytes == [0x2c, 0, 0, 0, 0, 3, 0, 2, 0]).unwrap();
    let moved = |left: u16, top: u16| {
        let mut bytes = whole.clone();
        bytes[at + 1..at + 3].copy_from_slice(&left.to_le_bytes());
        bytes[at + 3..at + 5].copy_from_slice(&top.to_le_bytes());
        bytes
    };
    for (left, top) in [(3, 0), (2048, 0), (0, 2)] {
        let message = refusal(&moved(left, top));
        assert_eq!(
            message, "picture.jpg: damaged GIF: its first image lies outside of its 3 x 2 pixels",
            "{left} {top}"
        );
    }
    let mut scratch = DecodeScratch::default();
    let image = decode_bytes("x", &moved(2, 1), &DecodeOptions::default(), &mut scratch).unwrap();
    assert_eq!((&image.pixels[..3], &image.pixels[15..]), (&[255; 3][..], &[10, 20, 30][..]));
}

#[test]
fn bombs_are_refused_from_their_header() {
    // The size of the frame, in a file of a few hundred bytes.
    let mut bytes = std::fs::read(golden("colour.jpg")).unwrap();
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    let error = refusal(&bytes);
    assert!(error.contains("65500 x 65500"), "{error}");

    let mut png = encoded(RgbImage::new(4, 4), ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    let error = refusal(&png);
    assert!(error.contains("65536 x 65536"), "{error}");
}

#[test]
fn noise_and_other_formats_are_named() {
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(refusal(&noise).contains("not an image"));
    assert!(refusal(b"BM is how this text begins").contains("not an image"));
    assert!(refusal(b"GIF89a\x04\0\x04\0.........").contains("damaged GIF"));
    assert!(refusal(b"II*\0...............").contains("TIFF"));
    assert!(refusal(b"\0\0\0\x20ftypheic....").contains("HEIC/AVIF is not read; convert it"));
    assert!(refusal(b"P5 is a label").contains("not an image"));
    assert!(refusal(b"").contains("the file is empty"));
    let header =
        [&b"BM\x64\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0"[..], &(-5i32).to_le_bytes(), &[0, 0, 0, 128, 1, 0, 24]];
    let bmp = [&header.concat()[..], &[0; 25]].concat();
    assert_eq!(refusal(&bmp), "picture.jpg: damaged BMP: Negative width (-5)");
    // A pixel of three CIELab channels.
    let tags: [[u32; 3]; 9] = [
        [256, 1, 1],
        [257, 1, 1],
        [258, 3, 122],
        [259, 1, 1],
        [262, 1, 8],
        [273, 1, 128],
        [277, 1, 3],
        [278, 1, 1],
        [279, 1, 3],
    ];
    let entry = |[tag, count, value]: [u32; 3]| {
        [&(tag as u16).to_le_bytes()[..], &[3, 0], &count.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    let head = b"II*\0\x08\0\0\0\x09\0".to_vec();
    let tiff =
        [head, tags.into_iter().flat_map(entry).collect(), vec![0; 4], [8, 0].repeat(3), vec![1; 3]].concat();
    let told = refusal(&tiff);
    assert!(
        told.starts_with(
            "picture.jpg: TIFF of a kind that is not read (Photometric interpretation CIELab with"
        ),
        "{told}"
    );
    assert!(!told.contains("unsupported") && told.contains("); 8 or 16 bits per channel"), "{told}");
    let mut headed = vec![0xff, 0xd8, 0xff, 0xe0];
    headed.extend(&noise);
    assert!(refusal(&headed).contains("JPEG"));
    let mut scratch = DecodeScratch::default();
    let missing =
        decode_file(&golden("missing.jpg"), &DecodeOptions::default(), &mut scratch).unwrap_err().to_string();
    assert!(missing.contains("missing.jpg"), "{missing}");
}

proptest::proptest! {
    /// Decoding returns, whatever is damaged.
    #[test]
    fn damaged_files_never_panic(which in 0usize..4, at in 0usize..4000, to: u8) {
        let mut bytes = match which {
            0 => std::fs::read(golden("colour.jpg")).unwrap(),
            1 => std::fs::read(golden("progressive.jpg")).unwrap(),
            2 => encoded(RgbImage::from_fn(20, 20, |x, y| Rgb([x as u8, y as u8, 9])), ImageFormat::WebP),
            _ => encoded(RgbImage::from_fn(20, 20, |x, y| Rgb([x as u8, y as u8, 9])), ImageFormat::Png),
        };
        let at = at % bytes.len();
        bytes[at] = to;
        let mut scratch = DecodeScratch::default();
        if let Ok(image) = decode_bytes("x", &bytes, &DecodeOptions::default(), &mut scratch) {
            proptest::prop_assert_eq!(image.pixels.len(), image.width as usize * image.height as usize * 3);
        }
    }
}
