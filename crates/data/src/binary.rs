//! What the data sets in binary files share: numbered images, one-byte labels, and class names in a separate file.

use std::path::Path;

use crate::dataset::{Dataset, Decoded};
use crate::decode::{DecodeScratch, Region, shrink};
use crate::error::{DataError, inert};
use crate::fault::{Unread, lost};

/// The images of a binary file.
pub(crate) trait Pixels: Send + Sync {
    /// The number of images.
    fn len(&self) -> usize;

    /// Width and height of every image, in pixels.
    fn size(&self) -> (u32, u32);

    /// The pixels of image `index` as 8-bit RGB, or why it cannot be read.
    fn read<'a>(&'a self, index: usize, scratch: &'a mut DecodeScratch) -> Result<&'a [u8], String>;

    /// Reads image `index` again, to see whether the system still can.
    fn probe(&self, _index: usize) -> Result<(), Unread> {
        Ok(())
    }
}

/// One part of a binary data set.
#[derive(Debug)]
pub(crate) struct Binary<P> {
    pub pixels: P,
    /// One per image, or empty.
    pub labels: Vec<u8>,
    /// The names of the classes; empty without labels.
    pub classes: Vec<String>,
    /// "train" or "test": images are named after it and their numbers.
    pub part: &'static str,
    /// The shorter side that images are shrunk to: see [`DecodeOptions::shrink`](crate::DecodeOptions::shrink).
    pub shrink: Option<u32>,
}

impl<P: Pixels> Binary<P> {
    fn image<'a>(&'a self, index: usize, scratch: &'a mut DecodeScratch) -> Result<Decoded<'a>, String> {
        let (width, height) = self.pixels.size();
        let Some(smaller) = self.shrink.and_then(|side| shrink::target((width, height), side)) else {
            return Ok(Decoded { width, height, pixels: self.pixels.read(index, scratch)? });
        };
        let mut small = Vec::new();
        shrink::shrink(self.pixels.read(index, scratch)?, (width, height), smaller, &mut small)?;
        scratch.pixels = small;
        Ok(Decoded { width: smaller.0, height: smaller.1, pixels: &scratch.pixels })
    }
}

impl<P: Pixels> Dataset for Binary<P> {
    fn len(&self) -> usize {
        self.pixels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).map(|&label| u32::from(label))
    }

    fn name(&self, index: usize) -> String {
        format!("{} image {index}", self.part)
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        _: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        self.image(index, scratch.unfiled()).map_err(|reason| {
            lost((index, self.len()), None, |other| self.pixels.probe(other))
                .unwrap_or_else(|| DataError::Image { name: self.name(index), reason })
        })
    }
}

/// The number of records of `record` bytes in `file`, from its size alone: the wrong file may be huge. `what` names the
/// expected kind of file in the error.
pub(crate) fn records(file: &Path, record: usize, what: &str) -> Result<usize, DataError> {
    let bytes = std::fs::metadata(file).map_err(|e| DataError::io(file, e))?.len();
    let records = bytes / record as u64;
    match usize::try_from(records) {
        Ok(records) if records > 0 && bytes % record as u64 == 0 => Ok(records),
        _ => Err(DataError::malformed(
            file,
            format!(
                "cut short or not {what} file: its {bytes} bytes are not a whole number of records of {record} bytes"
            ),
        )),
    }
}

/// Reads the names of `count` classes from `file`, one per line; `None` if there is no such file.
pub(crate) fn class_names(file: &Path, count: usize) -> Result<Option<Vec<String>>, DataError> {
    if !file.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::read(file).map_err(|e| DataError::io(file, e))?;
    let text = String::from_utf8_lossy(&bytes);
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(inert).collect();
    match names.len() == count {
        true => Ok(Some(names)),
        false => Err(DataError::malformed(
            file,
            format!("holds {} class names; expected {count}, in the order of the labels", names.len()),
        )),
    }
}
