//! A checkpoint of TensorFlow: a TensorBundle, of an index and files of values.
//!
//! `NAME.index` is a table (`table.rs`) of the tensors' names, each with its type, shape and place in one of the files
//! `NAME.data-00000-of-00001`. A place is checked against the length of its file before it is used, and values have
//! checksums.

mod messages;
mod place;
mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use prost::Message;
use simclr_train::checksum::masked_crc32c;

use self::messages::{BundleEntry, BundleHeader};
pub(super) use self::place::index_of;
use super::weights::Source;
use crate::{ExchangeError, Result};

/// The most bytes of an index. A ResNet's takes some 100 kB.
const INDEX_LIMIT: u64 = 64 << 20;
/// The most bytes of an object graph. A ResNet-18's takes some 30 kB; parsed, it takes up to 48 times its size.
const TEXT_LIMIT: u64 = 8 << 20;
/// The most dimensions of a tensor; a convolution's kernel has four.
const SIDES_LIMIT: usize = 8;

/// Names of tensor types for messages, by their number in TensorFlow.
const TYPES: [(i32, &str); 10] = [
    (FLOAT, "DT_FLOAT"),
    (2, "DT_DOUBLE"),
    (3, "DT_INT32"),
    (4, "DT_UINT8"),
    (6, "DT_INT8"),
    (STRING, "DT_STRING"),
    (INT64, "DT_INT64"),
    (10, "DT_BOOL"),
    (14, "DT_BFLOAT16"),
    (19, "DT_HALF"),
];
const FLOAT: i32 = 1;
const STRING: i32 = 7;
const INT64: i32 = 9;

const DAMAGED: &str = "is damaged (checksum)";

/// A checkpoint whose index has been read.
#[derive(Debug)]
pub(super) struct Bundle {
    index: PathBuf,
    shards: i32,
    entries: BTreeMap<String, BundleEntry>,
}

impl Bundle {
    /// Reads the index of a checkpoint.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or is not the index of little-endian values.
    pub fn read(index: &Path) -> Result<Bundle> {
        let io = |source| ExchangeError::Io { path: index.to_owned(), source };
        let problem = |problem: String| ExchangeError::weights(index, problem);
        let mut file = File::open(index).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length > INDEX_LIMIT {
            return Err(problem(format!(
                "{length} bytes are too many for the index of a checkpoint of a ResNet"
            )));
        }
        let mut bytes = Vec::new();
        (&mut file).take(INDEX_LIMIT).read_to_end(&mut bytes).map_err(io)?;
        let (mut header, mut entries) = (None, BTreeMap::new());
        for (key, value) in table::read(&bytes).map_err(problem)? {
            let name = String::from_utf8_lossy(&key).into_owned();
            let damaged = |error| problem(format!("what it says of `{name}` is damaged: {error}"));
            if name.is_empty() {
                header = Some(BundleHeader::decode(value).map_err(damaged)?);
            } else {
                let entry = BundleEntry::decode(value).map_err(damaged)?;
                if entry.shape.as_ref().is_some_and(|shape| shape.dim.len() > SIDES_LIMIT) {
                    return Err(problem(format!("tensor `{name}` has more than {SIDES_LIMIT} sides")));
                }
                entries.insert(name, entry);
            }
        }
        match header {
            Some(BundleHeader { num_shards: shards @ 1.., endianness: 0 }) => {
                Ok(Bundle { index: index.to_owned(), shards, entries })
            }
            Some(BundleHeader { endianness: 1.., .. }) => {
                Err(problem("its values are big-endian, expected little-endian".to_owned()))
            }
            _ => Err(problem("it is a table, but not the index of a checkpoint".to_owned())),
        }
    }

    /// The integer of this name, if there is one.
    pub fn whole(&self, name: &str) -> Option<u64> {
        let entry = self.entries.get(name).filter(|entry| entry.dtype == INT64)?;
        let bytes = self.array(name, entry, size_of::<i64>()).ok()?;
        u64::try_from(i64::from_le_bytes(bytes.try_into().ok()?)).ok()
    }

    /// The string of this name, if there is one.
    ///
    /// # Errors
    /// A string that is damaged or cannot be read.
    pub fn text(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.entries.get(name).filter(|entry| entry.dtype == STRING) else {
            return Ok(None);
        };
        let told = |what: &str| self.told(name, what);
        let stored = match usize::try_from(entry.size) {
            Ok(size) if size as u64 <= TEXT_LIMIT => self.bytes(name, entry, size)?,
            _ => return Err(told(&format!("takes {} bytes, expected at most {TEXT_LIMIT}", entry.size))),
        };
        // The length, its checksum, and the string. The checksum of the whole takes the length as four bytes.
        let (length, rest) = table::number(&stored).map_err(|problem| told(&problem))?;
        let text = rest.get(4..).filter(|text| text.len() as u64 == length);
        let text = text.ok_or_else(|| told("is longer or shorter than it says"))?;
        match masked_crc32c(&[&(length as u32).to_le_bytes(), rest].concat()) == entry.crc32c {
            true => Ok(Some(text.to_vec())),
            false => Err(told(DAMAGED)),
        }
    }

    /// The bytes of a tensor whose values have `each` bytes.
    fn array(&self, name: &str, entry: &BundleEntry, each: usize) -> Result<Vec<u8>> {
        let told = |what: &str| self.told(name, what);
        let expected = sides(entry)
            .and_then(|sides| sides.iter().try_fold(each, |bytes, &side| bytes.checked_mul(side)))
            .ok_or_else(|| told("has a shape that cannot be"))?;
        if i64::try_from(expected) != Ok(entry.size) {
            return Err(told(&format!("takes {} bytes, expected {expected} for its shape", entry.size)));
        }
        let bytes = self.bytes(name, entry, expected)?;
        match masked_crc32c(&bytes) == entry.crc32c {
            true => Ok(bytes),
            false => Err(told(DAMAGED)),
        }
    }

    /// The `size` bytes at a tensor's place.
    fn bytes(&self, name: &str, entry: &BundleEntry, size: usize) -> Result<Vec<u8>> {
        let told = |what: &str| self.told(name, what);
        if !entry.slices.is_empty() {
            return Err(told("was saved in parts, which is not read here"));
        }
        let path = self.shard(entry.shard_id);
        let io = |source| ExchangeError::Io { path: path.clone(), source };
        let mut file = File::open(&path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let offset = u64::try_from(entry.offset).unwrap_or(u64::MAX);
        if offset.checked_add(size as u64).is_none_or(|end| end > length) {
            return Err(told(&format!("ends beyond {}, of {length} bytes", path.display())));
        }
        let mut bytes = vec![0; size];
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(io)?;
        Ok(bytes)
    }

    /// The file of this number.
    fn shard(&self, number: i32) -> PathBuf {
        self.index.with_extension(format!("data-{number:05}-of-{:05}", self.shards))
    }

    /// An error about one of its tensors.
    fn told(&self, name: &str, what: &str) -> ExchangeError {
        ExchangeError::tensor(&self.index, name, what)
    }

    /// An error about this checkpoint.
    pub fn problem(&self, problem: String) -> ExchangeError {
        ExchangeError::weights(&self.index, problem)
    }
}

impl Source for Bundle {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let sides = |entry| sides(entry).unwrap_or_default();
        self.entries.iter().map(|(name, entry)| (name.clone(), sides(entry))).collect()
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        let Some(entry) = self.entries.get(name) else {
            return Err(self.told(name, "is missing"));
        };
        if entry.dtype != FLOAT {
            let known = TYPES.iter().find(|(number, _)| *number == entry.dtype);
            let found = known.map_or_else(|| format!("type {}", entry.dtype), |(_, name)| (*name).to_owned());
            return Err(self.told(name, &format!("is {found}, expected DT_FLOAT")));
        }
        let bytes = self.array(name, entry, size_of::<f32>())?;
        Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }
}

/// The shape of a tensor; `None` if a dimension is invalid.
fn sides(entry: &BundleEntry) -> Option<Vec<usize>> {
    let dimensions = entry.shape.iter().flat_map(|shape| &shape.dim);
    dimensions.map(|dimension| usize::try_from(dimension.size).ok()).collect()
}
