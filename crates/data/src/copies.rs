//! Finding images that occur more than once.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::dataset::{Dataset, Decoded};
use crate::decode::DecodeScratch;

/// How much of an image is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Enough to tell most images apart, faster than the whole; nothing where no part is faster.
    Sample,
    /// All of it.
    Whole,
}

/// Groups of identical images, each in the order of the data set: files with the same bytes, wherever they lie and
/// whatever they are called, and other images with the same pixels. No file is decoded, and a file is read only if
/// another has the same size. An unreadable image equals no other.
///
/// Uses `threads` threads, and reports to `progress` how many images are done.
pub fn copies(dataset: &dyn Dataset, threads: usize, progress: &(dyn Fn(usize) + Sync)) -> Vec<Vec<u32>> {
    let images = dataset.len();
    let all = vec![(0..images as u32).collect()];
    let no_size = u64::MAX;
    let sized = parted(all, threads, &|image, _| Some(dataset.stored_bytes(image).unwrap_or(no_size)));
    let print =
        |extent| move |image: usize, scratch: &mut DecodeScratch| dataset.print(image, extent, scratch);
    let sampled = parted(sized, threads, &print(Extent::Sample));
    let suspects: usize = sampled.iter().map(Vec::len).sum();
    let done = AtomicUsize::new(images - suspects);
    let whole = print(Extent::Whole);
    let mut same = parted(sampled, threads, &|image, scratch| {
        let print = whole(image, scratch);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        print
    });
    same.sort_unstable();
    same
}

/// Those of `groups` whose images have different labels: some of these labels are wrong.
pub fn contradicting<'g>(dataset: &dyn Dataset, groups: &'g [Vec<u32>]) -> Vec<&'g [u32]> {
    let contradicts = |group: &&[u32]| {
        let mut labels = group.iter().filter_map(|&image| dataset.label(image as usize));
        labels.next().is_some_and(|first| labels.any(|label| label != first))
    };
    groups.iter().map(Vec::as_slice).filter(contradicts).collect()
}

/// A key that an image has in common with its copies, found with a thread's scratch space; `None` for an image that
/// equals no other.
type Key<'a> = &'a (dyn Fn(usize, &mut DecodeScratch) -> Option<u64> + Sync);

/// Splits the groups by `key`, and drops groups of a single image. The groups keep the order of the data set.
fn parted(groups: Vec<Vec<u32>>, threads: usize, key: Key) -> Vec<Vec<u32>> {
    let flat: Vec<(usize, u32)> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, images)| images.iter().map(move |&image| (group, image)))
        .collect();
    let next = AtomicUsize::new(0);
    let all: Mutex<Vec<(usize, u64, u32)>> = Mutex::default();
    let work = || {
        let (mut found, mut scratch) = (Vec::new(), DecodeScratch::default());
        while let Some(&(group, image)) = flat.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.extend(key(image as usize, &mut scratch).map(|key| (group, key, image)));
        }
        all.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    };
    std::thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(work))));
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_unstable();
    let same = all.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).filter(|same| same.len() > 1);
    same.map(|same| same.iter().map(|&(.., image)| image).collect()).collect()
}

/// A hash of an image's size and pixels.
pub(crate) fn pixel_print(image: Decoded) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u32(image.width);
    hasher.write_u32(image.height);
    hasher.write(image.pixels);
    hasher.finish()
}

/// A hash of a file's bytes.
pub(crate) fn byte_print(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
