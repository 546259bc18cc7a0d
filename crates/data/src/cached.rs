//! Decoded images kept in memory or on disk.

mod file;

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::copies::HashExtent;
use crate::dataset::{Dataset, Decoded};
use crate::decode::{DecodeOptions, DecodeScratch, Greedy, Region};
use crate::error::DataError;
use crate::locality::Locality;
use file::{CacheFile, Place};

/// How many images of an existing cache file are compared with the data set, to see whether they still match.
const COMPARED: usize = 16;

/// A data set that keeps its images after the first read, decoded (and shrunk, where its options say so), within a
/// budget of bytes.
///
/// Opening and decoding a file often costs more than everything that follows; with a cache, images are decoded once per
/// run instead of once per epoch. Images that do not fit are read from the underlying data set every time, and so are
/// those that are damaged outside the part that is needed: what is returned does not depend on what is kept. Reading
/// takes no lock.
pub struct Cached {
    inner: Arc<dyn Dataset>,
    kept: Vec<OnceLock<Kept>>,
    store: Store,
}

enum Store {
    Memory { budget: u64, used: AtomicU64 },
    Disk(CacheFile),
}

enum Kept {
    InMemory(Box<Pixels>),
    OnDisk(Place),
    /// Not kept: it cannot be decoded whole, and need not be tried again.
    Damaged,
}

struct Pixels {
    width: u32,
    height: u32,
    pixels: Box<[u8]>,
}

/// How much of a disk a cache may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskBudget {
    /// The most bytes of images.
    pub bytes: u64,
    /// Bytes of the disk that stay free for other writers.
    pub spare: u64,
}

impl Cached {
    /// Keeps images of `inner` in memory, within `budget_bytes` of pixels.
    pub fn in_memory(inner: Arc<dyn Dataset>, budget_bytes: u64) -> Self {
        Self::new(inner, Store::Memory { budget: budget_bytes, used: AtomicU64::new(0) })
    }

    /// Keeps images of `inner`, decoded as `decode` says, in a file at `path`, within `budget`. A file left by an
    /// earlier run is reused if it holds the same images (judged by their names and by comparing a few) decoded in the
    /// same way; damage is detected.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be made.
    pub fn on_disk(
        inner: Arc<dyn Dataset>,
        decode: &DecodeOptions,
        budget: DiskBudget,
        path: &Path,
    ) -> Result<Self, DataError> {
        let (file, places) = CacheFile::open(path, fingerprint(&*inner, decode), inner.len(), budget)?;
        let mut cached = Self::new(inner, Store::Disk(file));
        for &(index, place) in &places {
            // An image that two threads read at the same time may have two records.
            let _ = cached.kept[index as usize].set(Kept::OnDisk(place));
        }
        if !cached.is_true() {
            tracing::warn!(
                "{} holds images that no longer match the data set; the cache starts anew",
                path.display()
            );
            cached.kept = blank(cached.kept.len());
            if let Store::Disk(file) = &cached.store {
                file.clear().map_err(|error| DataError::io(path, error))?;
            }
        }
        Ok(cached)
    }

    fn new(inner: Arc<dyn Dataset>, store: Store) -> Self {
        Self { kept: blank(inner.len()), inner, store }
    }

    /// Bytes in use; on disk each image takes a few more than its pixels.
    pub fn used_bytes(&self) -> u64 {
        match &self.store {
            Store::Memory { used, .. } => used.load(Ordering::Relaxed),
            Store::Disk(file) => file.used(),
        }
    }

    /// Frees `spare_bytes` on a disk that is full all the same, the first time it is called, and keeps no more images
    /// from then on. Returns whether any space was freed; a cache in memory frees none.
    pub fn give_way(&self) -> bool {
        match &self.store {
            Store::Memory { .. } => false,
            Store::Disk(file) => file.give_way(),
        }
    }

    /// Whether a few of the kept images equal those of the data set.
    fn is_true(&self) -> bool {
        let kept: Vec<usize> =
            (0..self.kept.len()).filter(|&index| self.kept[index].get().is_some()).collect();
        // Where images lie in blocks, reading one means reading a part of its strand.
        let wanted = if self.inner.locality().is_free() { COMPARED } else { 1 };
        let (mut own, mut scratch) = (DecodeScratch::default(), DecodeScratch::default());
        kept.iter().step_by(kept.len().div_ceil(wanted).max(1)).all(|&index| {
            match (self.read(index, &mut own), self.inner.read(index, &mut scratch)) {
                (Ok(own), Ok(fresh)) => own == fresh,
                _ => false,
            }
        })
    }

    /// Whether an image of `bytes` of pixels is likely to be kept.
    fn has_room(&self, bytes: u64) -> bool {
        match &self.store {
            Store::Memory { budget, used } => {
                used.load(Ordering::Relaxed).checked_add(bytes).is_some_and(|total| total <= *budget)
            }
            Store::Disk(file) => file.has_room(bytes),
        }
    }

    /// Keeps a copy of image `index` if there is room.
    fn keep(&self, index: usize, image: Decoded) {
        match &self.store {
            Store::Memory { budget, used } => {
                let bytes = image.pixels.len() as u64;
                let reserve = |used: u64| used.checked_add(bytes).filter(|total| total <= budget);
                if used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_err() {
                    return;
                }
                let Decoded { width, height, pixels } = image;
                let kept = Kept::InMemory(Box::new(Pixels { width, height, pixels: pixels.into() }));
                // If two threads arrive at the same time, one succeeds.
                if self.kept[index].set(kept).is_err() {
                    used.fetch_sub(bytes, Ordering::Relaxed);
                }
            }
            Store::Disk(file) if self.kept[index].get().is_none() => {
                if let Some(place) = file.put(index as u32, image) {
                    let _ = self.kept[index].set(Kept::OnDisk(place));
                }
            }
            // The record exists, but is damaged.
            Store::Disk(_) => {}
        }
    }
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (images, bytes) = (self.kept.len(), self.used_bytes());
        f.debug_struct("Cached").field("images", &images).field("used_bytes", &bytes).finish_non_exhaustive()
    }
}

fn blank(images: usize) -> Vec<OnceLock<Kept>> {
    (0..images).map(|_| OnceLock::new()).collect()
}

/// A hash of everything that determines the pixels: the names of the images, the decode options, and the version.
fn fingerprint(images: &dyn Dataset, decode: &DecodeOptions) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.write(format!("{decode:?}").as_bytes());
    hasher.write_usize(images.len());
    for index in 0..images.len() {
        hasher.write(images.name(index).as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}

impl Dataset for Cached {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn classes(&self) -> &[String] {
        self.inner.classes()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.inner.label(index)
    }

    fn name(&self, index: usize) -> String {
        self.inner.name(index)
    }

    fn name_within(&self, index: usize) -> String {
        self.inner.name_within(index)
    }

    fn stored_bytes(&self, index: usize) -> Option<u64> {
        self.inner.stored_bytes(index)
    }

    fn content_hash(&self, index: usize, extent: HashExtent, scratch: &mut DecodeScratch) -> Option<u64> {
        self.inner.content_hash(index, extent, scratch)
    }

    fn locality(&self) -> Locality {
        self.inner.locality()
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        needed: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        match (self.kept[index].get(), &self.store) {
            (Some(Kept::InMemory(kept)), _) => {
                return Ok(Decoded { width: kept.width, height: kept.height, pixels: &kept.pixels });
            }
            // An image that cannot be read back is read from the data set again.
            (Some(Kept::OnDisk(place)), Store::Disk(file))
                if file.get(place, &mut scratch.unfiled().pixels) =>
            {
                return Ok(Decoded { width: place.width, height: place.height, pixels: &scratch.pixels });
            }
            (Some(Kept::Damaged), _) => return self.inner.read_part(index, needed, scratch),
            _ => {}
        }
        // Images are kept whole; one that does not fit need not be decoded whole, and one that is damaged cannot be.
        let greedy = Greedy::default();
        let part = |width: u32, height: u32| {
            let has_room = self.has_room(3 * u64::from(width) * u64::from(height));
            greedy.ask((width, height), has_room, needed)
        };
        let image = self.inner.read_part(index, &part, scratch);
        if greedy.is_damaged() {
            let _ = self.kept[index].set(Kept::Damaged);
        }
        let image = image?;
        if greedy.is_whole() {
            self.keep(index, image);
        }
        Ok(image)
    }
}
