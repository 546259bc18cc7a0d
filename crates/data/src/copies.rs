//! Images that are there more than once.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::dataset::{Dataset, Decoded};
use crate::decode::DecodeScratch;

/// How much of an image a print is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As much as tells most images apart and is quicker than the whole; nothing where nothing is.
    Sample,
    /// All of it.
    Whole,
}

/// Groups of images that are the same, each in the order of the data set: files byte for byte, whatever they are called
/// and whether they lie in one place, and other images by their pixels. No file is decoded, and none is read that
/// another one does not equal in size. What cannot be read equals nothing.
///
/// With `threads` threads; `progress` is told how many images are done with.
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

/// Those of `groups` whose images have labels of several classes: some of these are wrong.
pub fn contradicting<'g>(dataset: &dyn Dataset, groups: &'g [Vec<u32>]) -> Vec<&'g [u32]> {
    let contradicts = |group: &&[u32]| {
        let mut labels = group.iter().filter_map(|&image| dataset.label(image as usize));
        labels.next().is_some_and(|first| labels.any(|label| label != first))
    };
    groups.iter().map(Vec::as_slice).filter(contradicts).collect()
}

/// What an image has in common with its copies, found with a thread's scratch space; `None` where it equals none.
type Key<'a> = &'a (dyn Fn(usize, &mut DecodeScratch) -> Option<u64> + Sync);

/// The groups parted by `key`; those of a single image are left out. All keep the order of the data set.
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

/// Of an image's size and pixels.
pub(crate) fn pixel_print(image: Decoded) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u32(image.width);
    hasher.write_u32(image.height);
    hasher.write(image.pixels);
    hasher.finish()
}

/// Of a file's bytes.
pub(crate) fn byte_print(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
