//! Feeds damaged files to every decoder and parser, and reports what panics: `tools/fuzz.sh` runs it.
//!
//! `cargo run --release -p simclr-data --example fuzz -- SECONDS CORPUS [SEED [RUN]]`; RUN repeats a finding.
//!
//! The corpus consists of small well-formed files. Each is changed at random (bytes set, bits flipped, pieces cut out,
//! doubled, or taken from another file) and opened as what its name says. An image goes to the decoders; anything else
//! is opened as a data set, and some of its images are read. A decoded part of an image must equal that part of the
//! whole. A panic in a library that the crate catches and turns into an error is reported, but is not a finding.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use simclr_augment::{CropBox, Stream};
use simclr_data::{DecodeOptions, DecodeScratch, Window, decode_bytes, decode_part, open};

/// The number of images that are read from each data set.
const READ: usize = 20;
/// A file that takes longer than this is a finding.
const SLOW: Duration = Duration::from_secs(5);

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: fuzz SECONDS CORPUS [SEED [RUN]]";
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().ok_or(usage)?.parse()?;
    let corpus = PathBuf::from(arguments.next().ok_or(usage)?);
    let seed: u64 = arguments.next().map_or(Ok(1), |seed| seed.parse())?;
    let only: Option<u64> = arguments.next().map(|run| run.parse()).transpose()?;
    let mut files = Vec::new();
    collect(&corpus, &mut files)?;
    files.sort();
    if files.is_empty() {
        return Err(format!("{}: no files", corpus.display()).into());
    }
    std::panic::set_hook(Box::new(|panic| {
        let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        panics.push(panic.to_string().replace('\n', " "));
    }));
    let scratch_folder = std::env::temp_dir().join(format!("simclr-fuzz-{}", std::process::id()));
    fs::create_dir_all(&scratch_folder)?;
    let start = Instant::now();
    let (mut runs, mut accepted) = (only.unwrap_or(0), 0u64);
    let (mut findings, mut caught) = (BTreeMap::new(), BTreeMap::new());
    while start.elapsed() < Duration::from_secs(seconds) {
        let mut stream = Stream::new(seed, runs, 0, 0);
        let pick = |stream: &mut Stream| &files[stream.below(files.len() as u32) as usize];
        let (file, other) = (pick(&mut stream), pick(&mut stream));
        let damaged = damage(fs::read(file)?, &fs::read(other)?, &mut stream);
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| feed(file, &damaged, &scratch_folder)));
        let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
        accepted += u64::from(matches!(outcome, Ok(true)));
        let kind = if outcome.is_err() { &mut findings } else { &mut caught };
        for panic in panics {
            kind.entry(panic).or_insert_with(|| (file.clone(), runs));
        }
        if began.elapsed() > SLOW {
            findings.insert(format!("took {:?}", began.elapsed()), (file.clone(), runs));
        }
        runs += 1;
        if only.is_some() {
            break;
        }
    }
    fs::remove_dir_all(&scratch_folder)?;
    println!("{runs} damaged files in {:?}, {accepted} of them still opened", start.elapsed());
    for (kind, found) in [("caught", &caught), ("finding", &findings)] {
        for (what, (file, run)) in found {
            println!("{kind}: {} (seed {seed}, run {run}): {what}", file.display());
        }
    }
    match findings.is_empty() {
        true => Ok(()),
        false => Err(format!("{} findings", findings.len()).into()),
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => collect(&path, files)?,
            false if path.extension().is_none_or(|end| end != "json") => files.push(path),
            false => {}
        }
    }
    Ok(())
}

fn damage(mut bytes: Vec<u8>, other: &[u8], stream: &mut Stream) -> Vec<u8> {
    for _ in 0..=stream.below(6) {
        if bytes.is_empty() {
            return bytes;
        }
        let len = bytes.len() as u32;
        // Headers lie at the beginning or the end, and matter most.
        let at = match stream.below(4) {
            0 => stream.below(len.min(64)),
            1 => len - 1 - stream.below(len.min(64)),
            _ => stream.below(len),
        } as usize;
        let piece = at..(at + 1 + stream.below(32) as usize).min(bytes.len());
        match stream.below(8) {
            0 => bytes[at] ^= 1 << stream.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'9'][stream.below(6) as usize],
            2 => bytes[piece].fill(0xff),
            3 => bytes[piece].fill(0),
            4 => drop(bytes.drain(piece)),
            5 => {
                let copy = bytes[piece].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => bytes.truncate(at),
            _ if !other.is_empty() => {
                let from = stream.below(other.len() as u32) as usize;
                let taken = other[from..(from + 32).min(other.len())].to_vec();
                bytes.splice(piece, taken);
            }
            _ => bytes[at] = stream.below(256) as u8,
        }
    }
    bytes
}

/// Returns whether the bytes could still be opened.
fn feed(file: &Path, bytes: &[u8], folder: &Path) -> bool {
    let mut scratch = DecodeScratch::default();
    let name = file.file_name().unwrap_or_default();
    let sets = ["tar", "gz", "zst", "zip", "parquet", "csv", "txt", "bin", "idx3-ubyte"];
    if !file.extension().is_some_and(|end| sets.iter().any(|set| end == *set)) {
        parts_are_those_of_the_whole(bytes);
        let options = DecodeOptions { window: Window::Image, shrink: Some(16), background: [1, 2, 3] };
        return decode_bytes("fuzzed", bytes, &options, &mut scratch).is_ok();
    }
    let path = folder.join(name);
    if fs::write(&path, bytes).is_err() {
        return false;
    }
    match open(&path) {
        Ok(source) => {
            for index in 0..source.train.len().min(READ) {
                let _ = source.train.read(index, &mut scratch);
                let _ = (source.train.name(index), source.train.label(index));
            }
            true
        }
        Err(_) => false,
    }
}

/// Panics if a part of an image differs from that part of the whole, or cannot be read although the whole can.
fn parts_are_those_of_the_whole(bytes: &[u8]) {
    let options = DecodeOptions::default();
    let (mut scratch, mut other) = (DecodeScratch::default(), DecodeScratch::default());
    let Ok(whole) = decode_bytes("fuzzed", bytes, &options, &mut scratch) else { return };
    let crop = |width: u32, height: u32| {
        let mut stream = Stream::new(bytes.len() as u64, u64::from(bytes[bytes.len() / 2]), 0, 0);
        let (left, top) = (stream.below(width), stream.below(height));
        let (width, height) = (1 + stream.below(width - left), 1 + stream.below(height - top));
        CropBox { left, top, width, height }
    };
    let part =
        decode_part("fuzzed", bytes, &options, &|width, height| crop(width, height).into(), &mut other);
    let part = part.expect("a part of an image that can be read");
    assert_eq!((part.width, part.height), (whole.width, whole.height));
    let CropBox { left, top, width, height } = crop(whole.width, whole.height);
    for y in top..top + height {
        let start = 3 * (y as usize * whole.width as usize + left as usize);
        let row = start..start + 3 * width as usize;
        assert_eq!(part.pixels[row.clone()], whole.pixels[row], "row {y}");
    }
}
