//! Helpers for the tests of data sets: small pictures and archives of them, made in memory.
#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod encoded;
pub mod numbered;

use std::io::{Cursor, Write};
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use simclr_augment::{ViewConfig, ViewFamily};
use simclr_data::{
    Batch, Dataset, DecodeScratch, Loader, LoaderConfig, Position, Reading, Share, Source, open,
};

/// A picture of 4 x 3 pixels of one value, as PNG.
pub fn png(value: u8) -> Vec<u8> {
    encoded::encoded(RgbImage::from_pixel(4, 3, Rgb([value; 3])), ImageFormat::Png)
}

/// Writes a picture of one value.
pub fn picture(path: &Path, value: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(4, 3, Rgb([value; 3])).save(path).unwrap();
}

/// A folder of JPEG files, whole ones of 24 x 16 pixels and some that end early: they declare more rows than they have.
pub fn damaged_jpegs() -> tempfile::TempDir {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folder = tempfile::tempdir().unwrap();
    for name in ["colour", "grey", "restarts", "subsampled"] {
        let mut jpeg = std::fs::read(golden.join(format!("{name}.jpg"))).unwrap();
        let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
        for (number, rows) in [16, 16, 20, 24, 24, 32].into_iter().enumerate() {
            jpeg[frame + 6] = rows;
            std::fs::write(folder.path().join(format!("{name} {number}.jpg")), &jpeg).unwrap();
        }
    }
    folder
}

/// The values of the pictures of a set.
pub fn colors(set: &dyn Dataset) -> Vec<u8> {
    let mut scratch = DecodeScratch::default();
    (0..set.len()).map(|index| set.read(index, &mut scratch).unwrap().pixels[0]).collect()
}

pub fn names(set: &dyn Dataset) -> Vec<String> {
    (0..set.len()).map(|index| set.name(index)).collect()
}

pub fn error(path: &Path) -> String {
    open(path).unwrap_err().to_string()
}

/// A tar archive of files.
pub fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: Vec<u8>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap()
}

/// Two frames, as parallel compressors make.
pub fn zstd(bytes: Vec<u8>) -> Vec<u8> {
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let compress =
        |part: &[u8]| ruzstd::encoding::compress_to_vec(part, ruzstd::encoding::CompressionLevel::Fastest);
    [compress(first), compress(second)].concat()
}

pub fn zip(members: &[(String, Vec<u8>)], deflated: bool) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let method = if deflated { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in members {
        writer.start_file(name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Batches of pairs of views of 8 x 8 pixels.
pub fn loading(batch: usize, seed: u64, threads: usize) -> LoaderConfig {
    let family = ViewFamily::first_branch(&ViewConfig::default(), 8).unwrap();
    LoaderConfig {
        batch,
        share: Share::WHOLE,
        seed,
        reading: Reading { threads, strict: false },
        views: vec![family.clone(), family],
    }
}

/// `count` batches of 10 images from `start` on.
pub fn batches(source: &Source, threads: usize, start: Position, count: usize) -> Vec<Batch> {
    let mut loader = Loader::new(source.to_pretrain(), loading(10, 5, threads), start);
    (0..count).map(|_| loader.next_batch().unwrap()).collect()
}
