//! A data set that needs no files.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use simclr_data::{DataError, Dataset, DecodeScratch, Decoded, Region};

/// Images of one size whose pixels depend on their number, of three classes in turn. Counts how often they are read.
pub struct Numbered {
    pub pixels: Vec<Vec<u8>>,
    pub reads: AtomicUsize,
    size: [u32; 2],
    broken: BTreeSet<usize>,
    classes: [String; 3],
}

impl Numbered {
    /// Images of `size` [width, height], of which those in `broken` cannot be read; another `salt` gives other images.
    pub fn new(len: usize, size: [u32; 2], broken: &[usize], salt: usize) -> Arc<Numbered> {
        let bytes = 3 * size[0] as usize * size[1] as usize;
        Arc::new(Numbered {
            pixels: (0..len).map(|i| (0..bytes).map(|j| (i * 31 + j * 7 + salt) as u8).collect()).collect(),
            reads: AtomicUsize::new(0),
            size,
            broken: broken.iter().copied().collect(),
            classes: ["a", "b", "c"].map(str::to_owned),
        })
    }
}

impl Dataset for Numbered {
    fn len(&self) -> usize {
        self.pixels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some(index as u32 % 3)
    }

    fn name(&self, index: usize) -> String {
        format!("image {index}")
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        _: &dyn Fn(u32, u32) -> Region,
        _: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let [width, height] = self.size;
        match self.broken.contains(&index) {
            true => Err(torn(self, index)),
            false => Ok(Decoded { width, height, pixels: &self.pixels[index] }),
        }
    }
}

/// The error for a broken image.
pub fn torn(set: &dyn Dataset, index: usize) -> DataError {
    DataError::Image { name: set.name(index), reason: "torn".to_owned() }
}
