//! TensorBoard event files.
//!
//! A file is a sequence of records: length (8 bytes, little-endian), masked CRC-32C of those bytes, contents,
//! masked CRC-32C of the contents. The contents are a protocol buffer
//! `Event { 1: double wall_time, 2: int64 step, 3: string file_version, 5: Summary }` with
//! `Summary { 1: repeated Value { 1: string tag, 2: float simple_value } }`.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::TrainError;
use crate::append_log::AppendLog;
use crate::checksum::masked_crc32c;
use crate::file_system::FileSystem;

/// How the names of these files begin.
pub(crate) const EVENTS: &str = "events.out.tfevents.";
const VERSION: &str = "brain.Event:2";

/// Scalars for TensorBoard, in one append-only file of a run folder.
///
/// A checkpoint records [`EventLog::sync`]; resuming from it cuts the file there, so that no step is in it twice.
#[derive(Debug)]
pub struct EventLog(AppendLog);

impl EventLog {
    /// An empty event file in `folder`, in place of any that is there.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn create(files: &dyn FileSystem, folder: &Path) -> Result<Self, TrainError> {
        for old in existing(files, folder)? {
            files.remove(&old).map_err(TrainError::io("remove", &old))?;
        }
        let now = now();
        let path = folder.join(format!("{EVENTS}{:010}.simclr", now as u64));
        let mut log = AppendLog::create(files, &path)?;
        log.append(&record(&event(now, 0, &Contents::Version)))?;
        Ok(Self(log))
    }

    /// The event file of `folder` as it was when it was `bytes` long; a new one where there is none.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn resume(files: &dyn FileSystem, folder: &Path, bytes: u64) -> Result<Self, TrainError> {
        match existing(files, folder)?.pop() {
            Some(path) if bytes > 0 => {
                let log = AppendLog::resume(files, &path, bytes)?;
                // Records behind a broken one are not read by TensorBoard: a file that was cut elsewhere is of no use.
                if log.length() == bytes { Ok(Self(log)) } else { Self::create(files, folder) }
            }
            _ => Self::create(files, folder),
        }
    }

    /// Appends the values of a step, each with its tag ("train/loss").
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), TrainError> {
        self.0.append(&record(&event(now(), step, &Contents::Scalars(values))))
    }

    /// The length in bytes, whether on the disk or on its way there.
    pub fn length(&self) -> u64 {
        self.0.length()
    }

    /// Returns the length in bytes when all of it is on the disk.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn sync(&mut self) -> Result<u64, TrainError> {
        self.0.sync()
    }

    #[cfg(test)]
    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn existing(files: &dyn FileSystem, folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut found = files.list(folder).map_err(TrainError::io("list", folder))?;
    found.retain(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(EVENTS))
    });
    found.sort();
    Ok(found)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

enum Contents<'a> {
    Version,
    Scalars(&'a [(&'a str, f64)]),
}

fn event(wall_time: f64, step: u64, contents: &Contents<'_>) -> Vec<u8> {
    let mut event = vec![field(1, FIXED64)];
    event.extend_from_slice(&wall_time.to_le_bytes());
    if step != 0 {
        event.push(field(2, VARINT));
        varint(&mut event, step);
    }
    match contents {
        Contents::Version => bytes_field(&mut event, 3, VERSION.as_bytes()),
        Contents::Scalars(values) => {
            let mut summary = Vec::new();
            for (tag, value) in *values {
                let mut entry = Vec::new();
                bytes_field(&mut entry, 1, tag.as_bytes());
                entry.push(field(2, FIXED32));
                entry.extend_from_slice(&(*value as f32).to_le_bytes());
                bytes_field(&mut summary, 1, &entry);
            }
            bytes_field(&mut event, 5, &summary);
        }
    }
    event
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

const fn field(number: u8, wire_type: u8) -> u8 {
    number << 3 | wire_type
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(field(number, BYTES));
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn record(contents: &[u8]) -> Vec<u8> {
    let length = (contents.len() as u64).to_le_bytes();
    let checksum = |bytes: &[u8]| masked_crc32c(bytes).to_le_bytes();
    [&length[..], &checksum(&length), contents, &checksum(contents)].concat()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::file_system::Disk;

    /// Written by TensorBoard's own record writer: `tools/golden/tensorboard_events.py`.
    const GOLDEN: &[u8] = include_bytes!("../tests/golden/events.tfevents");

    #[test]
    fn equal_to_the_bytes_of_tensorboard() {
        let events = [
            event(1_700_000_000.25, 0, &Contents::Version),
            event(1_700_000_001.5, 0, &Contents::Scalars(&[("train/loss", 5.5)])),
            event(
                1_700_000_002.75,
                300,
                &Contents::Scalars(&[("train/loss", 0.1), ("gr\u{f6}\u{df}e", -1e30)]),
            ),
            event(1_700_000_003.0, u64::from(u32::MAX) + 1, &Contents::Scalars(&[("train/rate", 0.0)])),
        ];
        let bytes: Vec<u8> = events.iter().flat_map(|event| record(event)).collect();
        assert_eq!(bytes, GOLDEN);
    }

    #[test]
    fn resuming_cuts_what_came_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(&Disk, folder.path()).unwrap();
        log.scalars(1, &[("a", 1.0)]).unwrap();
        let bytes = log.sync().unwrap();
        let kept = fs::read(log.path()).unwrap();
        assert_eq!(kept.len() as u64, bytes);
        log.scalars(2, &[("a", 2.0)]).unwrap();
        let path = log.path().to_path_buf();
        drop(log);
        let log = EventLog::resume(&Disk, folder.path(), bytes).unwrap();
        assert_eq!(log.path(), path);
        assert_eq!(fs::read(&path).unwrap(), kept);
    }

    #[test]
    fn a_file_that_is_gone_or_too_short_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventLog::resume(&Disk, folder.path(), 77).unwrap().sync().unwrap();
        let mut again = EventLog::resume(&Disk, folder.path(), 7777).unwrap();
        assert_eq!(again.sync().unwrap(), first);
        assert_eq!(existing(&Disk, folder.path()).unwrap().len(), 1);
    }
}
