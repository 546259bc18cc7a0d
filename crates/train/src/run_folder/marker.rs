//! The file that makes a folder a run, and says where the run comes from.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use simclr_words::text::grouped;
use toml::value::{Date, Datetime, Offset, Time};
use toml::{Table, Value};

use crate::TrainError;

/// The format of a run folder that is written, and the highest that can be read.
const FORMAT: u64 = 1;

const FORMAT_KEY: &str = "format";
const PROGRAM: &str = "program";
const STARTED: &str = "started";
const DATA: &str = "data";
/// The folder from which relative paths of the data start.
const FOLDER: &str = "working_folder";
/// How many paths the data has, where these would be too long to record.
const DATA_PATHS: &str = "data_paths";
/// The most bytes of paths to record: a shell may give tens of thousands of single images.
const MAX_DATA: usize = 64 << 10;
const IMPORTED: &str = "imported";

/// The contents of the marker; keys that this version does not know are kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Marker(Table);

impl Marker {
    /// That of a run that starts now; its network may be `imported` from a file.
    pub(super) fn new(imported: Option<&str>) -> Marker {
        let mut table = Table::new();
        let mut put = |key: &str, value: Value| drop(table.insert(key.to_owned(), value));
        put(FORMAT_KEY, Value::Integer(FORMAT as i64));
        put(PROGRAM, env!("CARGO_PKG_VERSION").into());
        if let Ok(since) = SystemTime::now().duration_since(UNIX_EPOCH) {
            put(STARTED, Value::Datetime(utc(since.as_secs())));
        }
        if let Some(from) = imported {
            put(IMPORTED, from.into());
        }
        Marker(table)
    }

    /// Reads the marker at `path`.
    ///
    /// # Errors
    /// [`TrainError::Damaged`], [`TrainError::NewerFormat`].
    pub(super) fn parse(text: &str, path: &Path) -> Result<Marker, TrainError> {
        let damaged = |reason: String| TrainError::Damaged { path: path.to_path_buf(), reason };
        let table: Table =
            text.parse().map_err(|error: toml::de::Error| damaged(error.message().to_owned()))?;
        let marker = Marker(table);
        let format = marker.0.get(FORMAT_KEY).and_then(Value::as_integer).and_then(|n| u64::try_from(n).ok());
        match format {
            None | Some(0) => Err(damaged("it lacks `format = 1`".to_owned())),
            Some(1..=FORMAT) => Ok(marker),
            Some(found) => Err(TrainError::NewerFormat {
                path: path.to_path_buf(),
                found,
                supported: FORMAT,
                program: marker.text(PROGRAM).unwrap_or("of unknown version").to_owned(),
            }),
        }
    }

    /// The file that the network was imported from.
    pub(super) fn imported(&self) -> Option<&str> {
        self.text(IMPORTED)
    }

    /// Whether it says what the run comes from: data that it is trained on, even if their paths are too long to record,
    /// or a file that its network was imported from.
    pub(super) fn has_source(&self) -> bool {
        [DATA, DATA_PATHS, IMPORTED].into_iter().any(|key| self.0.contains_key(key))
    }

    /// This marker with the paths of the data, or with their number if they take more than 64 KiB. Relative ones start
    /// from `folder`.
    pub(super) fn with_data(&self, data: &[&Path], folder: Option<&Path>) -> Marker {
        let paths: Vec<_> = data.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let fits = paths.iter().map(String::len).sum::<usize>() <= MAX_DATA;
        let mut table = self.0.clone();
        [DATA, DATA_PATHS, FOLDER].into_iter().for_each(|key| drop(table.remove(key)));
        match fits {
            true => table.insert(DATA.to_owned(), paths.into()),
            false => table.insert(DATA_PATHS.to_owned(), Value::Integer(paths.len() as i64)),
        };
        if let Some(folder) =
            folder.and_then(Path::to_str).filter(|_| data.iter().any(|path| path.is_relative()))
        {
            table.insert(FOLDER.to_owned(), folder.into());
        }
        Marker(table)
    }

    /// The paths of the data; none if they are not known. Those that are relative to the working directory stay so.
    pub(super) fn data(&self) -> Vec<PathBuf> {
        let here = std::env::current_dir().ok();
        let folder = self.text(FOLDER).map(Path::new).filter(|&folder| here.as_deref() != Some(folder));
        let paths = self.0.get(DATA).and_then(Value::as_array).into_iter().flatten();
        let from = |path: &str| folder.map_or(PathBuf::from(path), |folder| folder.join(path));
        paths.filter_map(Value::as_str).map(from).collect()
    }

    /// The contents of the file.
    pub(super) fn to_toml(&self) -> String {
        self.0.to_string()
    }

    /// What it says of the run's origin, as lines of TOML; of many paths the first few.
    pub(super) fn origin(&self) -> String {
        /// The most paths that are told.
        const MAX_PATHS: usize = 16;
        let known = |key: &&str| self.0.contains_key(*key);
        let lines = [DATA, DATA_PATHS, FOLDER, STARTED, PROGRAM].into_iter().filter(known);
        let line = |key: &str| match self.0[key].as_array() {
            Some(paths) if paths.len() > MAX_PATHS => {
                let first = Value::from(paths[..MAX_PATHS].to_vec());
                format!("{key} = {first} # and {} more\n", grouped((paths.len() - MAX_PATHS) as u64))
            }
            _ => format!("{key} = {}\n", self.0[key]),
        };
        lines.map(line).collect()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }
}

/// The date and time that is `seconds` after the beginning of 1970.
fn utc(seconds: u64) -> Datetime {
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    Datetime {
        date: Some(Date { year: year as u16, month: month as u8 + 1, day: days as u8 + 1 }),
        time: Some(Time {
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: Some((of_day % 60) as u8),
            nanosecond: None,
        }),
        offset: Some(Offset::Z),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds).to_string(), date);
        }
    }

    #[test]
    fn what_is_known_of_a_run_is_kept_and_told() {
        let path = Path::new("run.toml");
        let old = Marker::parse("format = 1\nprogram = \"0.0.9\"\nlater = [1]\n", path).unwrap();
        assert_eq!(old.origin(), "program = \"0.0.9\"\n");
        let new = old.with_data(&[Path::new("a b/"), Path::new("c\"d")], None);
        let read = Marker::parse(&new.to_toml(), path).unwrap();
        assert_eq!(read.data(), [Path::new("a b/"), Path::new("c\"d")]);
        assert!(old.data().is_empty());
        assert!(read.origin().starts_with("data = [\"a b/\", "), "{}", read.origin());
        assert_eq!(read.origin().lines().count(), 2, "{}", read.origin());
        assert!(read.to_toml().contains("later = [1]"), "{}", read.to_toml());
        // Relative paths are found from elsewhere, and given as they were from the same folder.
        let [here, there] = [std::env::current_dir().unwrap(), std::env::temp_dir()];
        let whole = here.join("whole");
        let from = |folder: &Path| {
            let marker = old.with_data(&[Path::new("a"), &whole], Some(folder));
            Marker::parse(&marker.to_toml(), path).unwrap().data()
        };
        assert_eq!(from(&here), [Path::new("a"), &whole]);
        assert_eq!(from(&there), [there.join("a"), whole.clone()]);
        assert!(!old.with_data(&[&whole], Some(&there)).origin().contains("folder"));
        // Single images from a shell are few enough to be recorded, or too many.
        let paths: Vec<PathBuf> = (0..30_000).map(|i| PathBuf::from(format!("photos/{i:05}.jpg"))).collect();
        let of = |count| {
            let paths: Vec<&Path> = paths[..count].iter().map(PathBuf::as_path).collect();
            Marker::parse(&new.with_data(&paths, None).to_toml(), path).unwrap()
        };
        let (few, many) = (of(1000), of(30_000));
        assert_eq!((few.data().len(), many.data().len()), (1000, 0));
        assert!(few.origin().contains("\"photos/00015.jpg\"] # and 984 more\n"), "{}", few.origin());
        assert!(many.origin().starts_with("data_paths = 30000\n"), "{}", many.origin());
        assert!(many.to_toml().len() < 1000);
        assert!(Marker::new(Some("x.pth")).origin().contains("started = 20"));
        assert_eq!(Marker::new(Some("x.pth")).imported(), Some("x.pth"));
    }
}
