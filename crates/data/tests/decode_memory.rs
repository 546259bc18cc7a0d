//! Decoding when there is not enough memory for an image.
#![cfg(target_os = "linux")]

use std::io::Cursor;
use std::process::Command;

use image::{DynamicImage, ImageFormat};
use simclr_data::{DecodeOptions, DecodeScratch, decode_bytes};

const LIMITED: &str = "SIMCLR_TEST_LIMITED";

/// The beginning of a PNG of 8192 x 8192 pixels: 64 bits each are 512 MiB.
fn large(image: DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    let mut bytes = bytes.into_inner();
    bytes[16..24].copy_from_slice(&[0, 0, 32, 0, 0, 0, 32, 0]);
    let mut checksum = flate2::Crc::new();
    checksum.update(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    bytes
}

/// Runs itself again with less memory than the image takes, as a program without memory may abort.
#[test]
fn an_image_that_memory_does_not_suffice_for_is_unreadable() {
    if std::env::var_os(LIMITED).is_none() {
        let own = std::env::current_exe().unwrap();
        let limited = Command::new("sh")
            .args(["-c", "ulimit -v 200000 && exec \"$0\" --test-threads=1"])
            .arg(own)
            .env(LIMITED, "1")
            .output()
            .unwrap();
        assert!(limited.status.success(), "{}", String::from_utf8_lossy(&limited.stderr));
        return;
    }
    let mut scratch = DecodeScratch::default();
    for (image, bytes) in [
        (DynamicImage::new_rgba16(1, 1), 512 << 20),
        (DynamicImage::new_rgba8(1, 1), 256 << 20),
        (DynamicImage::new_rgb8(1, 1), 192 << 20),
    ] {
        let decoded = decode_bytes("a.png", &large(image), &DecodeOptions::default(), &mut scratch);
        let expected = format!("a.png: no memory for its {bytes} bytes of pixels");
        assert_eq!(decoded.unwrap_err().to_string(), expected);
    }
}
