//! The metrics log: one JSON object per line.

use std::path::Path;

use serde::Serialize;

use crate::TrainError;
use crate::append_log::{AppendLog, read_up_to};
use crate::file_system::FileSystem;

/// An append-only file of JSON lines.
///
/// A checkpoint records the length from [`MetricsLog::sync`]; resuming from it cuts the log there, so that no step is
/// in it twice.
#[derive(Debug)]
pub struct MetricsLog(AppendLog);

impl MetricsLog {
    /// Creates an empty log, discarding any existing contents.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn create(files: &dyn FileSystem, path: &Path) -> Result<Self, TrainError> {
        AppendLog::create(files, path).map(Self)
    }

    /// Opens the log and cuts it to `bytes`. A log that somebody has shortened is cut after its last whole line.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn resume(files: &dyn FileSystem, path: &Path, bytes: u64) -> Result<Self, TrainError> {
        let log = AppendLog::resume(files, path, bytes)?;
        if log.length() == bytes {
            return Ok(Self(log));
        }
        let found = read_up_to(files, path, log.length())?;
        let whole = found.iter().rposition(|&b| b == b'\n').map_or(0, |at| at as u64 + 1);
        drop(log);
        AppendLog::resume(files, path, whole).map(Self)
    }

    /// Appends a line. Non-finite numbers become `null`.
    ///
    /// # Errors
    /// [`TrainError::Io`]; the log then still ends with a whole line, as far as the system permits.
    pub fn append(&mut self, entry: &impl Serialize) -> Result<(), TrainError> {
        let mut line = serde_json::to_vec(entry)
            .map_err(|error| TrainError::io("write", self.0.path())(std::io::Error::from(error)))?;
        line.push(b'\n');
        self.0.append(&line)
    }

    /// Takes back the lines after the first `bytes` bytes, as far as the system permits.
    pub(crate) fn take_back(&mut self, bytes: u64) {
        self.0.take_back(bytes);
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
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::file_system::Disk;

    #[test]
    fn resuming_leaves_no_line_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&Disk, &path).unwrap();
        log.append(&serde_json::json!({"step": 1, "loss": 0.5})).unwrap();
        let bytes = log.sync().unwrap();
        log.append(&serde_json::json!({"step": 2, "loss": f64::NAN})).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("{\"step\":2,\"loss\":null}\n"));
        drop(log);

        let mut log = MetricsLog::resume(&Disk, &path, bytes).unwrap();
        log.append(&serde_json::json!({"step": 2})).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1,\"loss\":0.5}\n{\"step\":2}\n");
    }

    #[test]
    fn a_log_that_was_shortened_goes_on_after_a_whole_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":1}\n{\"st").unwrap();
        let mut log = MetricsLog::resume(&Disk, &path, 500).unwrap();
        log.append(&serde_json::json!({"step": 9})).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":9}\n");
        fs::remove_file(&path).unwrap();
        let mut log = MetricsLog::resume(&Disk, &path, 500).unwrap();
        assert_eq!(log.sync().unwrap(), 0);
    }

    #[test]
    fn a_new_log_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, "old\n").unwrap();
        MetricsLog::create(&Disk, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
