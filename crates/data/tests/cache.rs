//! Images kept on disk are reused, but only if they are whole and still match the data set.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::numbered::Numbered;
use simclr_data::{Cached, Dataset, DecodeOptions, DecodeScratch, DiskBudget};
use tempfile::{TempDir, tempdir};

const IMAGES: usize = 100;
/// Bytes before the records, and of each record.
const START: usize = 24;
const RECORD: usize = 24 + 5 * 4 * 3;

/// Images of 5 x 4 pixels.
fn images(salt: usize) -> Arc<Numbered> {
    Numbered::new(IMAGES, [5, 4], &[], salt)
}

fn folder() -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let file = dir.path().join("data.cache");
    (dir, file)
}

/// Reads all images through a cache, which must return those of `images`, and returns how many were read from `images`.
#[track_caller]
fn pass(images: &Arc<Numbered>, decode: &DecodeOptions, file: &Path) -> usize {
    images.reads.store(0, Ordering::Relaxed);
    let shared: Arc<dyn Dataset> = images.clone();
    let cached = Cached::on_disk(shared, decode, DiskBudget { bytes: 1 << 20, spare: 0 }, file).unwrap();
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
    let (images, decode) = (images(0), DecodeOptions::default());
    assert_eq!(pass(&images, &decode, &file), IMAGES);
    // A few images are read to be compared.
    assert!(pass(&images, &decode, &file) <= 16);
    assert_eq!(fs::metadata(&file).unwrap().len() as usize, START + IMAGES * RECORD);
}

#[test]
fn images_of_other_data_or_otherwise_decoded_do_not() {
    let (_dir, file) = folder();
    let decode = DecodeOptions::default();
    pass(&images(0), &decode, &file);
    assert!(pass(&images(1), &decode, &file) >= IMAGES);
    assert!(pass(&images(1), &decode, &file) <= 16);
    let shrunk = DecodeOptions { shrink: Some(3), ..decode };
    assert_eq!(pass(&images(1), &shrunk, &file), IMAGES);
    fs::write(&file, "something else").unwrap();
    assert_eq!(pass(&images(1), &shrunk, &file), IMAGES);
}

#[test]
fn a_tenth_that_changed_is_noticed_wherever_it_lies() {
    let decode = DecodeOptions::default();
    for first in [0, 43, 90] {
        let (_dir, file) = folder();
        let mut images = images(0);
        pass(&images, &decode, &file);
        for pixels in &mut Arc::get_mut(&mut images).unwrap().pixels[first..first + IMAGES / 10] {
            pixels[0] ^= 1;
        }
        assert!(pass(&images, &decode, &file) >= IMAGES, "from image {first} on");
    }
}

#[test]
fn a_file_cut_short_serves_as_far_as_it_goes() {
    let (_dir, file) = folder();
    let (images, decode) = (images(0), DecodeOptions::default());
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
    let (images, decode) = (images(0), DecodeOptions::default());
    pass(&images, &decode, &file);
    let whole = fs::read(&file).unwrap();
    for at in (0..whole.len()).step_by(13) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x41;
        fs::write(&file, damaged).unwrap();
        pass(&images, &decode, &file);
    }
    // As after a system crash: a record that was never written, and others after it.
    let mut hole = whole.clone();
    hole[START + 7 * RECORD..][..RECORD].fill(0);
    fs::write(&file, hole).unwrap();
    assert!(pass(&images, &decode, &file) >= IMAGES - 7);
    assert_eq!(fs::metadata(&file).unwrap().len() as usize, whole.len());
}

#[test]
fn many_threads_keep_within_the_budget() {
    let (_dir, file) = folder();
    let images = images(0);
    let shared: Arc<dyn Dataset> = images.clone();
    let budget = 40 * RECORD as u64 + 5;
    let budget_of = DiskBudget { bytes: budget, spare: 0 };
    let cached = Cached::on_disk(shared, &DecodeOptions::default(), budget_of, &file).unwrap();
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

#[test]
fn what_is_to_stay_free_on_the_disk_is_left_free() {
    let (_dir, file) = folder();
    let images = images(0);
    let shared: Arc<dyn Dataset> = images.clone();
    // No disk has that much.
    let spare = u64::MAX / 2;
    let budget = DiskBudget { bytes: 1 << 20, spare };
    let cached = Cached::on_disk(shared, &DecodeOptions::default(), budget, &file).unwrap();
    let mut scratch = DecodeScratch::default();
    for (index, expected) in images.pixels.iter().enumerate() {
        assert_eq!(cached.read(index, &mut scratch).unwrap().pixels, &expected[..]);
    }
    let kept = if cfg!(unix) { 0 } else { IMAGES * RECORD };
    assert_eq!(cached.used_bytes(), kept as u64);
}
