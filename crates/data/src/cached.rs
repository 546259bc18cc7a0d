//! Decoded images kept in memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::dataset::{Dataset, Decoded};
use crate::decode::DecodeScratch;
use crate::error::DataError;

/// A data set whose images are kept, decoded, from their first reading on, as far as a budget of bytes allows.
///
/// For small images, opening and decoding a file costs more than all that follows; kept, they are decoded once in a run
/// instead of once in an epoch. Images that no longer fit are read from the data set below every time. Reading takes no lock.
pub struct Cached {
    inner: Arc<dyn Dataset>,
    kept: Vec<OnceLock<Box<Kept>>>,
    budget: usize,
    used: AtomicUsize,
}

struct Kept {
    width: u32,
    height: u32,
    pixels: Box<[u8]>,
}

impl Cached {
    /// Keeps images of `inner` within `budget_bytes` of pixels.
    pub fn new(inner: Arc<dyn Dataset>, budget_bytes: usize) -> Self {
        let kept = (0..inner.len()).map(|_| OnceLock::new()).collect();
        Self { inner, kept, budget: budget_bytes, used: AtomicUsize::new(0) }
    }

    /// Bytes of pixels kept at present.
    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Keeps a copy of image `index` if there is room. Of two threads that come at once, one succeeds.
    fn keep(&self, index: usize, image: Decoded) {
        let bytes = image.pixels.len();
        let reserve = |used: usize| used.checked_add(bytes).filter(|&total| total <= self.budget);
        if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_err() {
            return;
        }
        let kept = Kept { width: image.width, height: image.height, pixels: image.pixels.into() };
        if self.kept[index].set(Box::new(kept)).is_err() {
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

    fn read<'a>(&'a self, index: usize, scratch: &'a mut DecodeScratch) -> Result<Decoded<'a>, DataError> {
        if let Some(kept) = self.kept[index].get() {
            return Ok(Decoded { width: kept.width, height: kept.height, pixels: &kept.pixels });
        }
        let image = self.inner.read(index, scratch)?;
        self.keep(index, image);
        Ok(image)
    }
}
