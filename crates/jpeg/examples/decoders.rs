//! Compares this decoder with zune-jpeg: microseconds per image, and how far their pixels differ.
//!
//! `cargo run --release -p simclr-jpeg --example decoders -- FOLDER` takes the first 256 JPEG files of a folder and
//! its subfolders.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use simclr_jpeg::{Header, Rect, Scratch};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

const IMAGES: usize = 256;
const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: decoders FOLDER")?;
    let mut paths = Vec::new();
    collect(Path::new(&folder), &mut paths)?;
    paths.sort();
    paths.truncate(IMAGES);
    let files: Vec<Vec<u8>> = paths.iter().map(fs::read).collect::<Result<_, _>>()?;
    let bytes: usize = files.iter().map(Vec::len).sum();
    println!("{} files, {} bytes each", files.len(), bytes / files.len().max(1));
    let (mut scratch, mut ours, mut theirs) = (Scratch::default(), Vec::new(), Vec::new());
    let (mut furthest, mut sum, mut count) = (0, 0u64, 0u64);
    for (path, file) in paths.iter().zip(&files) {
        with_zune(file, &mut theirs)?;
        match with_this(file, Rect::whole, &mut scratch, &mut ours) {
            Ok(()) => {
                for (a, &b) in ours.iter().zip(&theirs) {
                    furthest = furthest.max(a.abs_diff(b));
                    sum += u64::from(a.abs_diff(b));
                    count += 1;
                }
            }
            Err(error) => println!("{}: {error}", path.display()),
        }
    }
    println!(
        "against zune-jpeg: off by {:.4} on average, {furthest} at most",
        sum as f64 / count.max(1) as f64
    );
    time("zune-jpeg", &files, |file| with_zune(file, &mut theirs).is_ok());
    time("whole", &files, |file| with_this(file, Rect::whole, &mut scratch, &mut ours).is_ok());
    let quarter = |w, h| Rect { left: w / 4, top: h / 4, width: w / 2, height: h / 2 };
    time("central quarter", &files, |file| with_this(file, quarter, &mut scratch, &mut ours).is_ok());
    time("no pixel", &files, |file| {
        with_this(file, |_, _| Rect::whole(0, 0), &mut scratch, &mut ours).is_ok()
    });
    Ok(())
}

/// Prints the time per image of the fastest of several rounds.
fn time(name: &str, files: &[Vec<u8>], mut decode: impl FnMut(&[u8]) -> bool) {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let decoded = files.iter().filter(|file| decode(file)).count();
        best = best.min(start.elapsed().as_secs_f64() / decoded.max(1) as f64);
    }
    println!("{name}: {:.1} us", best * 1e6);
}

fn with_this(
    file: &[u8],
    needed: impl Fn(u32, u32) -> Rect,
    scratch: &mut Scratch,
    pixels: &mut Vec<u8>,
) -> Result<(), simclr_jpeg::Error> {
    let header = Header::read(file)?;
    pixels.resize(header.width as usize * header.height as usize * 3, 0);
    header.decode(&[needed(header.width, header.height)], scratch, pixels)
}

fn with_zune(file: &[u8], pixels: &mut Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers().map_err(|e| e.to_string())?;
    pixels.resize(decoder.output_buffer_size().ok_or("no size")?, 0);
    Ok(decoder.decode_into(pixels).map_err(|e| e.to_string())?)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => collect(&path, files)?,
            false if path.extension().is_some_and(|end| end == "jpg") => files.push(path),
            false => {}
        }
    }
    Ok(())
}
