//! TensorBoard event files.
//!
//! A file is a sequence of records: length (8 bytes, little-endian), masked CRC-32C of those bytes, contents (a
//! protocol buffer [`Event`]), masked CRC-32C of the contents.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::TrainError;
use crate::append_log::AppendLog;
use crate::checksum::masked_crc32c;
use crate::file_system::FileSystem;

/// The prefix of the names of event files.
pub(crate) const EVENTS: &str = "events.out.tfevents.";
const VERSION: &str = "brain.Event:2";

/// Scalars for TensorBoard, in one append-only file of a run folder.
///
/// A checkpoint records the length from [`EventLog::sync`]; resuming from it cuts the file there, so that no step is in
/// it twice.
#[derive(Debug)]
pub struct EventLog(AppendLog);

impl EventLog {
    /// Creates an empty event file in `folder`, replacing any others.
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
        log.append(&record(&Event::version(now)))?;
        Ok(Self(log))
    }

    /// Opens the event file of `folder` and cuts it to `bytes`; creates a new one if there is none.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn resume(files: &dyn FileSystem, folder: &Path, bytes: u64) -> Result<Self, TrainError> {
        match existing(files, folder)?.pop() {
            Some(path) if bytes > 0 => {
                let log = AppendLog::resume(files, &path, bytes)?;
                // TensorBoard does not read records after a broken one, so a file that was cut elsewhere is useless.
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
        self.0.append(&record(&Event::scalars(now(), step, values)))
    }

    /// The length in bytes, including what is not yet on the disk.
    pub fn length(&self) -> u64 {
        self.0.length()
    }

    /// Syncs the log to disk and returns its length in bytes.
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

#[derive(Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

#[derive(Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    // Optional, so that 0 is written.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

impl Event {
    fn version(wall_time: f64) -> Event {
        Event { wall_time, file_version: Some(VERSION.to_owned()), ..Event::default() }
    }

    fn scalars(wall_time: f64, step: u64, values: &[(&str, f64)]) -> Event {
        let value =
            |&(tag, value): &(&str, f64)| Value { tag: tag.to_owned(), simple_value: Some(value as f32) };
        let summary = Some(Summary { values: values.iter().map(value).collect() });
        Event { wall_time, step: step as i64, summary, ..Event::default() }
    }
}

fn record(event: &Event) -> Vec<u8> {
    let contents = event.encode_to_vec();
    let length = (contents.len() as u64).to_le_bytes();
    let checksum = |bytes: &[u8]| masked_crc32c(bytes).to_le_bytes();
    [&length[..], &checksum(&length), &contents, &checksum(&contents)].concat()
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
            Event::version(1_700_000_000.25),
            Event::scalars(1_700_000_001.5, 0, &[("train/loss", 5.5)]),
            Event::scalars(1_700_000_002.75, 300, &[("train/loss", 0.1), ("gr\u{f6}\u{df}e", -1e30)]),
            Event::scalars(1_700_000_003.0, u64::from(u32::MAX) + 1, &[("train/rate", 0.0)]),
        ];
        let bytes: Vec<u8> = events.iter().flat_map(record).collect();
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
