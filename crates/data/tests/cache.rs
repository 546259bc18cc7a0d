//! Images kept on disk serve again, and only where they are whole and still those of the data.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use simclr_data::{Cached, DataError, Dataset, DecodeOptions, DecodeScratch, Decoded, Region};
use tempfile::{TempDir, tempdir};

const IMAGES: usize = 100;
/// Bytes before the records, and of each.
const START: usize = 24;
const RECORD: usize = 24 + 5 * 4 * 3;

/// Images of 5 x 4 pixels that depend on their number and on `salt`; counts how often they are read.
struct Counting {
    pixels: Vec<Vec<u8>>,
    reads: AtomicUsize,
}

impl Counting {
    fn new(salt: usize) -> Arc<Self> {
        let pixels =
            (0..IMAGES).map(|i| (0..5 * 4 * 3).map(|j| (i * 31 + j * 7 + salt) as u8).collect()).collect();
        Arc::new(Self { pixels, reads: AtomicUsize::new(0) })
    }
}

impl Dataset for Counting {
    fn len(&self) -> usize {
        IMAGES
    }
    fn classes(&self) -> &[String] {
        &[]
    }
    fn label(&self, _: usize) -> Option<u32> {
        None
    }
    fn name(&self, index: usize) -> String {
        index.to_string()
    }
    fn read_part<'a>(
        &'a self,
        index: usize,
        _: &dyn Fn(u32, u32) -> Region,
        _: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(Decoded { width: 5, height: 4, pixels: &self.pixels[index] })
    }
}

fn folder() -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let file = dir.path().join("data.cache");
    (dir, file)
}

/// Reads all images through a cache, which must give what `images` holds, and returns how many of them were read.
#[track_caller]
fn pass(images: &Arc<Counting>, decode: &DecodeOptions, file: &Path) -> usize {
    images.reads.store(0, Ordering::Relaxed);
    let shared: Arc<dyn Dataset> = images.clone();
    let cached = Cached::on_disk(shared, decode, 1 << 20, file).unwrap();
    let mut scratch = DecodeScratch::default();
    for (index, expected) in images.pixels.iter().enumerate() {
        let image = cached.read(index, &mut scratch).unwrap();
        assert_eq!((image.width, image.height, image.pixels), (5, 4, &expected[..]));
    }
    assert!(cached.used_bytes() >= (IMAGES * RECORD) as u64);
    images.reads.load(Ordering::Relaxed)
}

#[test]
fn what_was_kept_serves_again() {
    let (_dir, file) = folder();
    let (images, decode) = (Counting::new(0), DecodeOptions::default());
    assert_eq!(pass(&images, &decode, &file), IMAGES);
    // A few are compared.
    assert!(pass(&images, &decode, &file) <= 16);
    assert_eq!(fs::metadata(&file).unwrap().len() as usize, START + IMAGES * RECORD);
}

#[test]
fn images_of_other_data_or_otherwise_decoded_do_not() {
    let (_dir, file) = folder();
    let decode = DecodeOptions::default();
    pass(&Counting::new(0), &decode, &file);
    assert!(pass(&Counting::new(1), &decode, &file) >= IMAGES);
    assert!(pass(&Counting::new(1), &decode, &file) <= 16);
    let shrunk = DecodeOptions { shrink: Some(3), ..decode };
    assert_eq!(pass(&Counting::new(1), &shrunk, &file), IMAGES);
    fs::write(&file, "something else").unwrap();
    assert_eq!(pass(&Counting::new(1), &shrunk, &file), IMAGES);
}

#[test]
fn a_file_cut_short_serves_as_far_as_it_goes() {
    let (_dir, file) = folder();
    let (images, decode) = (Counting::new(0), DecodeOptions::default());
    pass(&images, &decode, &file);
    let whole = fs::read(&file).unwrap();
    for at in (0..whole.len()).step_by(97).chain([START, START + RECORD]) {
        fs::write(&file, &whole[..at]).unwrap();
        let left = at.saturating_sub(START) / RECORD;
        assert!(pass(&images, &decode, &file) <= IMAGES - left + 16, "cut at {at}");
    }
}

#[test]
fn damage_is_noticed_wherever_it_is() {
    let (_dir, file) = folder();
    let (images, decode) = (Counting::new(0), DecodeOptions::default());
    pass(&images, &decode, &file);
    let whole = fs::read(&file).unwrap();
    for at in (0..whole.len()).step_by(13) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x41;
        fs::write(&file, damaged).unwrap();
        pass(&images, &decode, &file);
    }
    // As a system that went down leaves it: a record that was never written, others after it.
    let mut hole = whole.clone();
    hole[START + 7 * RECORD..][..RECORD].fill(0);
    fs::write(&file, hole).unwrap();
    assert!(pass(&images, &decode, &file) >= IMAGES - 7);
    assert_eq!(fs::metadata(&file).unwrap().len() as usize, whole.len());
}

#[test]
fn many_threads_keep_within_the_budget() {
    let (_dir, file) = folder();
    let images = Counting::new(0);
    let shared: Arc<dyn Dataset> = images.clone();
    let budget = 40 * RECORD as u64 + 5;
    let cached = Cached::on_disk(shared, &DecodeOptions::default(), budget, &file).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (cached, images) = (&cached, &images);
            scope.spawn(move || {
                let mut scratch = DecodeScratch::default();
                for step in 0..2 * IMAGES {
                    let index = (step * 7 + thread * 29) % IMAGES;
                    assert_eq!(cached.read(index, &mut scratch).unwrap().pixels, images.pixels[index]);
                }
            });
        }
    });
    assert_eq!(cached.used_bytes(), 40 * RECORD as u64);
}
