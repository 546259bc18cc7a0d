//! Finding images that occur more than once.

use std::hash::{DefaultHasher, Hasher};

use crate::dataset::{Dataset, Decoded};
use crate::decode::DecodeScratch;
use crate::in_order::in_order;

/// How much of an image is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashExtent {
    /// Enough to tell most images apart, faster than the whole; nothing where no part is faster.
    Sample,
    /// All of it.
    Whole,
}

/// Groups of identical images, each in the order of the data set: files with the same bytes, wherever they lie and
/// whatever they are called, and other images with the same pixels. No file is decoded, and a file is read only if
/// another has the same size. An unreadable image equals no other.
///
/// Uses `threads` threads. There are three passes (sizes, samples, all bytes), and `progress` is told how many images
/// of all would be done if each pass took a third.
pub fn copies(dataset: &dyn Dataset, threads: usize, progress: &(dyn Fn(usize) + Sync)) -> Vec<Vec<u32>> {
    let images = dataset.len();
    let pass = |before: f64| move |share: f64| progress(((before + share) / 3.0 * images as f64) as usize);
    let all = vec![(0..images as u32).collect()];
    let no_size = u64::MAX;
    let size = |image: usize, _: &mut DecodeScratch| Some(dataset.stored_bytes(image).unwrap_or(no_size));
    let sized = parted(all, threads, Missing::Apart, &size, &pass(0.0));
    let hash = |extent| {
        move |image: usize, scratch: &mut DecodeScratch| dataset.content_hash(image, extent, scratch)
    };
    let sampled = parted(sized, threads, Missing::Joins, &hash(HashExtent::Sample), &pass(1.0));
    let mut same = parted(sampled, threads, Missing::Apart, &hash(HashExtent::Whole), &pass(2.0));
    progress(images);
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

/// A key that an image has in common with its copies, found with a thread's scratch space; `None` if it has none.
type Key<'a> = &'a (dyn Fn(usize, &mut DecodeScratch) -> Option<u64> + Sync);

/// What becomes of images without a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// They equal no other.
    Apart,
    /// They may equal any other of their group, which therefore stays as it is.
    Joins,
}

/// Images between two reports of the progress.
const REPORTED: usize = 64;

/// Splits the groups by `key`, and drops groups of a single image. The groups keep the order of the data set.
/// `progress` is told which share is done.
fn parted(
    groups: Vec<Vec<u32>>,
    threads: usize,
    missing: Missing,
    key: Key,
    progress: &(dyn Fn(f64) + Sync),
) -> Vec<Vec<u32>> {
    let mut flat: Vec<(usize, u32)> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, images)| images.iter().map(move |&image| (group, image)))
        .collect();
    // A compressed archive can only be read on, not back: by groups it would be unpacked from its beginning for most
    // images.
    flat.sort_unstable_by_key(|&(_, image)| image);
    let keys = in_order(flat.len(), threads, |scratch: &mut DecodeScratch, at| {
        if at.is_multiple_of(REPORTED) {
            progress(at as f64 / flat.len() as f64);
        }
        key(flat[at].1 as usize, scratch)
    });
    let mut all: Vec<(usize, Option<u64>, u32)> =
        flat.into_iter().zip(keys).map(|((group, image), key)| (group, key, image)).collect();
    // Images without a key come first in their group.
    all.sort_unstable();
    let mut same = Vec::new();
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let keyless = group.partition_point(|(_, key, _)| key.is_none());
        if keyless > 0 && missing == Missing::Joins {
            let mut images: Vec<u32> = group.iter().map(|&(.., image)| image).collect();
            images.sort_unstable();
            same.push(images);
            continue;
        }
        let split = group[keyless..].chunk_by(|a, b| a.1 == b.1).filter(|same| same.len() > 1);
        same.extend(split.map(|same| same.iter().map(|&(.., image)| image).collect::<Vec<u32>>()));
    }
    same
}

/// A hash of an image's size and pixels.
pub(crate) fn hash_pixels(image: Decoded) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u32(image.width);
    hasher.write_u32(image.height);
    hasher.write(image.pixels);
    hasher.finish()
}

/// A hash of a file's bytes.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn images_are_read_from_first_to_last_whatever_their_groups() {
        let seen = Mutex::new(Vec::new());
        let key = |image: usize, _: &mut DecodeScratch| {
            seen.lock().unwrap().push(image);
            Some(image as u64 / 6)
        };
        let groups = vec![vec![0, 3, 6], vec![1, 4, 7], vec![2, 5, 8, 11]];
        let same = parted(groups, 1, Missing::Apart, &key, &|_| ());
        assert_eq!(same, [vec![0, 3], vec![1, 4], vec![2, 5], vec![8, 11]]);
        assert_eq!(seen.into_inner().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 11]);
    }
}
