//! Data sets of encoded images: files of a folder or a list, members of archives, values of tables.

pub(crate) mod archive;
mod blocks;
pub(crate) mod disk;
pub(crate) mod list;
pub(crate) mod parquet;
pub(crate) mod parts;
pub(crate) mod shards;
pub(crate) mod tar;
pub(crate) mod zip;
pub(crate) mod zstd;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::copies::{HashExtent, hash_bytes};
use crate::dataset::{Dataset, Decoded};
use crate::decode::{Claim, DecodeOptions, DecodeScratch, Region, decode_from};
use crate::error::DataError;
use crate::fault::{Unread, lost};
use crate::layout::Classes;
use crate::loader::NO_LABEL;
use crate::locality::Locality;

/// Encoded images by number.
pub(crate) trait Files: Send + Sync {
    fn len(&self) -> usize;

    /// The name of a file in messages, control characters escaped.
    fn name(&self, index: usize) -> String;

    /// See [`Dataset::name_within`].
    fn name_within(&self, index: usize) -> String {
        self.name(index)
    }

    /// The size of a file in bytes, where that is known without reading it.
    fn bytes(&self, _index: usize) -> Option<u64> {
        None
    }

    /// Reads the bytes of a file into `out`, once there is room for them, which is returned: to be held as long as they
    /// are, if they are many.
    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<Claim, String>;

    /// Reads some bytes of a file, enough to tell most files apart, into `out`; returns false if that is no faster than
    /// reading all of it.
    fn sample(&self, _index: usize, _out: &mut Vec<u8>) -> Result<bool, String> {
        Ok(false)
    }

    /// Reads a file again, after it failed to load as an image, and drops it. Fails only if the system cannot read it,
    /// never for damage within it.
    fn probe(&self, _index: usize) -> Result<(), Unread> {
        Ok(())
    }

    /// Which files are best read together.
    fn locality(&self) -> Locality {
        Locality::free(self.len())
    }
}

/// Some or all of the images of [`Files`], with their classes.
pub(crate) struct ImageFiles {
    files: Arc<dyn Files>,
    /// The files that are images of this set, ascending; `None` for all.
    chosen: Option<Vec<u32>>,
    classes: Vec<String>,
    /// One label per image; empty when unlabelled.
    labels: Vec<u32>,
    options: DecodeOptions,
    /// The file that was read last; [`NONE`] before the first.
    known: AtomicUsize,
}

const NONE: usize = usize::MAX;

impl ImageFiles {
    /// All of `files`.
    pub fn new(files: Arc<dyn Files>, classes: Classes, options: DecodeOptions) -> Self {
        Self::of(files, None, classes, options)
    }

    /// The files `chosen` (ascending), which `classes` describes.
    pub fn some(files: Arc<dyn Files>, chosen: Vec<u32>, classes: Classes, options: DecodeOptions) -> Self {
        let chosen = (chosen.len() < files.len()).then_some(chosen);
        Self::of(files, chosen, classes, options)
    }

    fn of(files: Arc<dyn Files>, chosen: Option<Vec<u32>>, classes: Classes, options: DecodeOptions) -> Self {
        let Classes { names: classes, labels } = classes;
        Self { files, chosen, classes, labels, options, known: AtomicUsize::new(NONE) }
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    fn file(&self, index: usize) -> usize {
        self.chosen.as_ref().map_or(index, |chosen| chosen[index] as usize)
    }

    /// Renumbers the labels, if there are any, by `known` (the classes of the training part), followed by the classes
    /// that only this set has.
    pub fn relabel(&mut self, known: &[String]) {
        if self.classes.is_empty() {
            return;
        }
        let classes = with_others(known, &self.classes);
        let new_label = new_labels(&self.classes, &classes);
        for label in self.labels.iter_mut().filter(|label| **label != NO_LABEL) {
            *label = new_label[*label as usize];
        }
        self.classes = classes;
    }
}

/// The `known` classes, followed by those of `own` that are not among them.
pub(crate) fn with_others(known: &[String], own: &[String]) -> Vec<String> {
    let there: HashSet<&String> = known.iter().collect();
    known.iter().chain(own.iter().filter(|class| !there.contains(class))).cloned().collect()
}

/// The number of each of the `own` classes among `known`; [`NO_LABEL`] if it is not there.
pub(crate) fn new_labels(own: &[String], known: &[String]) -> Vec<u32> {
    labels_among(own.iter().map(|class| Some(class.as_str())), known.iter().map(String::as_str))
}

/// The number of each image's class among `classes`; [`NO_LABEL`] if it has none or it is not there.
pub(crate) fn labels_among<'a>(
    images: impl Iterator<Item = Option<&'a str>>,
    classes: impl Iterator<Item = &'a str>,
) -> Vec<u32> {
    let number: HashMap<&str, u32> = classes.zip(0..).collect();
    images.map(|class| class.and_then(|class| number.get(class).copied()).unwrap_or(NO_LABEL)).collect()
}

impl Dataset for ImageFiles {
    fn len(&self) -> usize {
        self.chosen.as_ref().map_or(self.files.len(), Vec::len)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied().filter(|&label| label != NO_LABEL)
    }

    fn name(&self, index: usize) -> String {
        self.files.name(self.file(index))
    }

    fn name_within(&self, index: usize) -> String {
        self.files.name_within(self.file(index))
    }

    fn stored_bytes(&self, index: usize) -> Option<u64> {
        self.files.bytes(self.file(index))
    }

    fn content_hash(&self, index: usize, extent: HashExtent, scratch: &mut DecodeScratch) -> Option<u64> {
        let file = self.file(index);
        if extent == HashExtent::Sample {
            let read = self.files.sample(file, &mut scratch.file);
            return read.is_ok_and(|read| read).then(|| hash_bytes(&scratch.file));
        }
        scratch.give_back_file();
        let room = self.files.read(file, &mut scratch.file).ok()?;
        let hash = hash_bytes(&scratch.file);
        scratch.give_back_file();
        drop(room);
        Some(hash)
    }

    fn locality(&self) -> Locality {
        match &self.chosen {
            Some(chosen) => self.files.locality().restrict(chosen),
            None => self.files.locality(),
        }
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        needed: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        let file = self.file(index);
        let read = |out: &mut Vec<u8>| {
            let read = self.files.read(file, out);
            read.inspect(|_| self.known.store(file, Ordering::Relaxed))
        };
        let name = || self.files.name(file);
        decode_from(read, name, &self.options, needed, scratch).map_err(|broken| {
            let known = Some(self.known.load(Ordering::Relaxed)).filter(|&known| known != NONE);
            lost((file, self.files.len()), known, |other| self.files.probe(other)).unwrap_or(broken)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;

    /// Huge files, which note whether several are there at once.
    #[derive(Default)]
    struct Huge {
        reading: Mutex<BTreeSet<usize>>,
        most: AtomicUsize,
    }

    impl Files for Huge {
        fn len(&self) -> usize {
            16
        }

        fn name(&self, index: usize) -> String {
            index.to_string()
        }

        fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<Claim, String> {
            let room = Claim::of_file(600 << 20);
            let now = {
                let mut reading = self.reading.lock().unwrap();
                reading.insert(index);
                reading.len()
            };
            self.most.fetch_max(now, Ordering::Relaxed);
            // So that others have time to begin.
            std::thread::sleep(std::time::Duration::from_millis(2));
            *out = b"P5 1 1 255 7".to_vec();
            self.reading.lock().unwrap().remove(&index);
            Ok(room)
        }
    }

    #[test]
    fn huge_files_are_read_one_after_another() {
        let files = Arc::new(Huge::default());
        let images = ImageFiles::new(files.clone(), Classes::default(), DecodeOptions::default());
        crate::in_order::in_order(16, 4, |scratch: &mut DecodeScratch, index| match index % 2 {
            0 => assert_eq!(images.read(index, scratch).unwrap().pixels, [b'7'; 3]),
            _ => assert!(images.content_hash(index, HashExtent::Whole, scratch).is_some()),
        });
        assert_eq!(files.most.load(Ordering::Relaxed), 1);
    }
}
