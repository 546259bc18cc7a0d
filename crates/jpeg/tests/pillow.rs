//! Compares pixels with those of libjpeg-turbo.

mod common;

use common::golden;
use simclr_jpeg::{Header, Isa, Rect, Scratch};

/// Every pixel of every kind of file is equal, on every instruction set.
#[test]
fn every_pixel_is_that_of_libjpeg() {
    for isa in Isa::all() {
        // One scratch space for all files: nothing of one image may leak into the next.
        let mut scratch = Scratch::with_isa(isa);
        for file in golden() {
            let header = Header::read(&file.file).unwrap();
            assert_eq!((header.width, header.height), (file.width, file.height), "{}", file.name);
            let mut pixels = vec![0; 3 * (file.width * file.height) as usize];
            header.decode(&[Rect::whole(file.width, file.height)], &mut scratch, &mut pixels).unwrap();
            assert_eq!(crc32(&pixels), file.crc32, "{} on {isa:?}", file.name);
        }
    }
}

#[test]
fn headers_tell_of_grey_and_exif() {
    for file in golden() {
        let header = Header::read(&file.file).unwrap();
        assert_eq!(header.grey, file.name.contains("grey"));
        assert_eq!(header.exif, None);
        let exif = [&[0xff, 0xd8, 0xff, 0xe1, 0, 12], &b"Exif\0\0tiff"[..], &file.file[2..]].concat();
        assert_eq!(Header::read(&exif).unwrap().exif, Some(&b"tiff"[..]));
        let wrong = header.decode(&[], &mut Scratch::default(), &mut [0; 4]).unwrap_err();
        assert!(wrong.to_string().starts_with("4 bytes for pixels: the image needs"), "{wrong}");
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}
