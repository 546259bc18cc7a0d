//! Decoded images kept in memory or on disk.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::dataset::{Dataset, Decoded};
use crate::decode::{DecodeScratch, resize};
use crate::error::DataError;
use crate::locality::Locality;
use crate::positioned::{read_exact_at, write_all_at};

/// A data set whose images are kept, decoded (and shrunk, where its options say so), from their first reading on, as far as a
/// budget of bytes allows.
///
/// Opening and decoding a file often costs more than all that follows; kept, images are decoded once in a run instead of
/// once in an epoch. Images that no longer fit are read from the data set below every time. Reading takes no lock.
pub struct Cached {
    inner: Arc<dyn Dataset>,
    kept: Vec<OnceLock<Kept>>,
    /// `None`: in memory.
    file: Option<File>,
    budget: u64,
    used: AtomicU64,
}

enum Kept {
    InMemory(Box<Pixels>),
    /// At this place of the file.
    OnDisk {
        offset: u64,
        width: u32,
        height: u32,
    },
}

struct Pixels {
    width: u32,
    height: u32,
    pixels: Box<[u8]>,
}

impl Cached {
    /// Keeps images of `inner` in memory, within `budget_bytes` of pixels.
    pub fn in_memory(inner: Arc<dyn Dataset>, budget_bytes: u64) -> Self {
        Self::new(inner, None, budget_bytes)
    }

    /// Keeps images of `inner` in a file at `path`, which is gone when the program ends, within `budget_bytes`.
    ///
    /// # Errors
    /// [`DataError::Io`] if the file cannot be made.
    pub fn on_disk(inner: Arc<dyn Dataset>, budget_bytes: u64, path: &Path) -> Result<Self, DataError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(|e| DataError::io(path, e))?;
        // Without a name it is gone however the program ends. Where that cannot be, the next run writes over it.
        let _ = std::fs::remove_file(path);
        Ok(Self::new(inner, Some(file), budget_bytes))
    }

    fn new(inner: Arc<dyn Dataset>, file: Option<File>, budget: u64) -> Self {
        let kept = (0..inner.len()).map(|_| OnceLock::new()).collect();
        Self { inner, kept, file, budget, used: AtomicU64::new(0) }
    }

    /// Bytes of pixels kept at present.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Keeps a copy of image `index` if there is room.
    fn keep(&self, index: usize, image: Decoded) {
        let bytes = image.pixels.len() as u64;
        let reserve = |used: u64| used.checked_add(bytes).filter(|&total| total <= self.budget);
        let Ok(offset) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve) else {
            return;
        };
        let (width, height) = (image.width, image.height);
        let kept = match &self.file {
            None => Kept::InMemory(Box::new(Pixels { width, height, pixels: image.pixels.into() })),
            Some(file) => match write_all_at(file, image.pixels, offset) {
                Ok(()) => Kept::OnDisk { offset, width, height },
                Err(error) => {
                    tracing::warn!(%error, "the cache on disk cannot keep an image");
                    return;
                }
            },
        };
        // Of two threads that come at once, one succeeds; room in a file is not given back, or places would be taken twice.
        if self.kept[index].set(kept).is_err() && self.file.is_none() {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
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

    fn locality(&self) -> Locality {
        self.inner.locality()
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut DecodeScratch) -> Result<Decoded<'a>, DataError> {
        match (self.kept[index].get(), &self.file) {
            (Some(Kept::InMemory(kept)), _) => {
                return Ok(Decoded { width: kept.width, height: kept.height, pixels: &kept.pixels });
            }
            (Some(&Kept::OnDisk { offset, width, height }), Some(file)) => {
                let pixels = &mut scratch.unfiled().pixels;
                let bytes = width as usize * height as usize * 3;
                // What cannot be read back is read anew.
                if resize(pixels, bytes).is_ok() && read_exact_at(file, pixels, offset).is_ok() {
                    return Ok(Decoded { width, height, pixels: &scratch.pixels });
                }
            }
            _ => {}
        }
        let image = self.inner.read(index, scratch)?;
        self.keep(index, image);
        Ok(image)
    }
}
