//! Features read back from a .parquet file that `embed` wrote, so that a search need not encode the images again.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::parser::parse_message_type;
use simclr_data::{caught, table_column};
use simclr_train::Model;

use super::images::{Image, Split};
use super::notes;
use super::parquet::SCHEMA;
use crate::EvalError;

/// The columns of [`SCHEMA`] that are read. `class` is not: the metadata has the names of the labels.
const NAME: usize = 0;
const SPLIT: usize = 1;
const LABEL: usize = 2;
const FEATURES: usize = 4;

/// The h of images in a .parquet file, with what is known of each image.
pub struct StoredFeatures {
    path: PathBuf,
    table: Table,
    classes: Vec<String>,
    rows: Vec<Row>,
}

/// An open file and its metadata.
struct Table {
    file: Arc<File>,
    metadata: ParquetMetaData,
}

struct Row {
    name: String,
    split: Option<Split>,
    label: Option<u32>,
}

impl fmt::Debug for StoredFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, rows) = (&self.path, self.rows.len());
        f.debug_struct("StoredFeatures").field("path", path).field("rows", &rows).finish_non_exhaustive()
    }
}

impl StoredFeatures {
    /// Opens a file of features of `model`, the checkpoint of step `step`.
    ///
    /// # Errors
    /// [`EvalError::NotAFile`], [`EvalError::Io`]; [`EvalError::NoFeatures`] where it is another kind of file,
    /// damaged, or of another encoder.
    pub fn open(path: &Path, model: &Model, step: u64) -> Result<StoredFeatures, EvalError> {
        let file = EvalError::read(path, "a .parquet file of features", File::open)?;
        if !begins_as_table(&file) {
            return Err(unfit(
                path,
                "is not a .parquet file, the one format in which features are searched; write them so",
            ));
        }
        let (table, said) = guarded(path, || described(file))?;
        if said.of != notes::OF_H {
            return Err(unfit(
                path,
                "holds z, and images are compared by h; write h, without the projection",
            ));
        }
        if said.fingerprint != notes::fingerprint(model)? {
            let from =
                if said.step == step.to_string() { String::new() } else { format!(" (step {})", said.step) };
            return Err(unfit(
                path,
                format!(
                    "holds features of another encoder{from} than this one of step {step}; write it anew with this one"
                ),
            ));
        }
        let rows = guarded(path, || rows(&table, said.classes.len()))?;
        if rows.is_empty() {
            return Err(unfit(path, "holds no images"));
        }
        Ok(StoredFeatures { path: path.to_path_buf(), table, classes: said.classes, rows })
    }

    /// The number of images.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// What is known of the image of row `row`.
    pub fn image(&self, row: u32) -> Image<'_> {
        let Row { name, split, label } = &self.rows[row as usize];
        let class = label.map(|label| self.classes[label as usize].as_str());
        Image { name: name.clone(), split: *split, label: *label, class }
    }

    /// The rows of one split, or all rows.
    ///
    /// # Errors
    /// [`EvalError::NoSplit`] for a split without rows.
    pub(crate) fn of(&self, only: Option<Split>) -> Result<Vec<u32>, EvalError> {
        let is_wanted = |row: &Row| only.is_none_or(|only| row.split == Some(only));
        let rows: Vec<u32> =
            (0..).zip(&self.rows).filter(|(_, row)| is_wanted(row)).map(|(i, _)| i).collect();
        match only {
            Some(split) if rows.is_empty() => {
                let is_there = |split: &Split| self.rows.iter().any(|row| row.split == Some(*split));
                let there = Split::ALL.iter().filter(|split| is_there(split)).map(|split| split.word());
                Err(EvalError::NoSplit { split, there: there.collect() })
            }
            _ => Ok(rows),
        }
    }

    /// Hands all rows of `dim` values to `sink` in order, one row group at a time.
    ///
    /// # Errors
    /// [`EvalError::NoFeatures`] where the file is damaged or its rows are not of `dim` values; the first error of
    /// `sink`.
    pub(crate) fn for_each_group(
        &self,
        dim: usize,
        sink: &mut dyn FnMut(&[f32]) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        for group in 0..self.table.metadata.num_row_groups() {
            let features = guarded(&self.path, || features(&self.table, group, dim))?;
            sink(&features)?;
        }
        Ok(())
    }
}

/// Whether the file starts as a Parquet file, damaged or not.
fn begins_as_table(mut file: &File) -> bool {
    let mut start = [0; 4];
    file.read_exact(&mut start).is_ok() && start == *b"PAR1"
}

/// The file's metadata.
struct Said {
    of: String,
    classes: Vec<String>,
    fingerprint: String,
    step: String,
}

fn described(file: File) -> Result<(Table, Said), ParquetError> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file)?;
    let about = metadata.file_metadata();
    if about.schema() != &parse_message_type(SCHEMA)? {
        return Err(damaged("it has other columns"));
    }
    let note = |name: &str| {
        let all = about.key_value_metadata().into_iter().flatten();
        let value = all.filter(|note| note.key == name).find_map(|note| note.value.clone());
        value.ok_or_else(|| damaged(format!("it does not tell its {name}")))
    };
    let classes = serde_json::from_str(&note(notes::CLASSES)?).map_err(|error| damaged(error.to_string()))?;
    let said = Said {
        of: note(notes::FEATURES)?,
        classes,
        fingerprint: note(notes::FINGERPRINT)?,
        step: note(notes::STEP)?,
    };
    Ok((Table { file: Arc::new(file), metadata }, said))
}

fn rows(table: &Table, classes: usize) -> Result<Vec<Row>, ParquetError> {
    let declared = table.metadata.row_groups().iter().map(|group| group.num_rows().max(0) as u64);
    let declared = declared.fold(0, u64::saturating_add);
    // Each has features, of four bytes each, which are not compressed.
    if declared > table.file.metadata()?.len() / 4 {
        return Err(damaged(format!("it declares {declared} rows, more than it has room for")));
    }
    let mut rows = Vec::new();
    for group in 0..table.metadata.num_row_groups() {
        let names = column::<ByteArrayType>(table, group, NAME)?;
        let splits = column::<ByteArrayType>(table, group, SPLIT)?;
        let labels = column::<Int64Type>(table, group, LABEL)?;
        for ((name, split), label) in names.optional().zip(splits.optional()).zip(labels.optional()) {
            let name = name.as_ref().map(text).transpose()?.unwrap_or_default();
            let split = match split {
                Some(word) => Some(text(&word)?.parse().map_err(damaged)?),
                None => None,
            };
            let label = match label {
                Some(label) => {
                    let label = u32::try_from(label).ok().filter(|&label| (label as usize) < classes);
                    Some(label.ok_or_else(|| damaged("a label is that of no class"))?)
                }
                None => None,
            };
            rows.push(Row { name, split, label });
        }
    }
    if u32::try_from(rows.len()).is_err() {
        return Err(damaged("it has more rows than can be numbered"));
    }
    Ok(rows)
}

fn features(table: &Table, group: usize, dim: usize) -> Result<Vec<f32>, ParquetError> {
    let Column { values, repeats, .. } = column::<FloatType>(table, group, FEATURES)?;
    // The repetition level is 0 where a list begins.
    let begins = |place: usize| place.is_multiple_of(dim);
    let is_even = values.len() == repeats.len()
        && values.len().is_multiple_of(dim)
        && repeats.iter().enumerate().all(|(place, &level)| (level == 0) == begins(place));
    if !is_even {
        return Err(damaged(format!("not every image has {dim} values")));
    }
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(damaged("a value is not finite"))
    }
}

/// A column of a row group, with its levels.
struct Column<T> {
    values: Vec<T>,
    /// Definition levels, 1 where a value is present; empty for a required column.
    present: Vec<i16>,
    repeats: Vec<i16>,
    rows: usize,
}

impl<T> Column<T> {
    /// The value of each row.
    fn optional(self) -> impl Iterator<Item = Option<T>> {
        let (may_miss, present) = (!self.present.is_empty(), self.present);
        let mut values = self.values.into_iter();
        (0..self.rows).map(move |row| if may_miss && present[row] == 0 { None } else { values.next() })
    }
}

fn column<T: DataType>(table: &Table, group: usize, number: usize) -> Result<Column<T::T>, ParquetError> {
    let mut reader = table_column::<T>(&table.file, &table.metadata, group, number).map_err(damaged)?;
    let all = usize::try_from(table.metadata.row_group(group).num_rows())?;
    let mut column = Column { values: Vec::new(), present: Vec::new(), repeats: Vec::new(), rows: 0 };
    while column.rows < all {
        let Column { values, present, repeats, rows } = &mut column;
        let (read, ..) = reader.read_records(all - *rows, Some(present), Some(repeats), values)?;
        if read == 0 {
            return Err(damaged("a column ends before the others"));
        }
        *rows += read;
    }
    Ok(column)
}

fn text(bytes: &ByteArray) -> Result<String, ParquetError> {
    bytes.as_utf8().map(str::to_owned)
}

fn damaged(what: impl Into<String>) -> ParquetError {
    ParquetError::General(what.into())
}

/// Runs `read`, and turns its errors and panics into [`EvalError::NoFeatures`] for `path`.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, EvalError> {
    let told = |error: ParquetError| match error {
        ParquetError::General(what) => what,
        other => other.to_string(),
    };
    caught(&"the Parquet reader", || read().map_err(told))
        .map_err(|why| unfit(path, format!("is not a readable file of features ({why}); write it anew")))
}

fn unfit(path: &Path, reason: impl Into<String>) -> EvalError {
    EvalError::NoFeatures { path: path.to_path_buf(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::super::format::{Description, Rows, Writer};
    use super::super::parquet::Table as Written;
    use parquet::file::metadata::ParquetMetaDataWriter;

    use super::*;

    /// Rows of three values, two in a group, of two classes; every third row has no label.
    fn written(path: &Path, count: u32) {
        let notes = [(notes::FEATURES, "h"), (notes::CLASSES, r#"["odd", "even"]"#)];
        let notes = notes.into_iter().chain([(notes::FINGERPRINT, "0badcafe"), (notes::STEP, "7")]);
        let notes = notes.map(|(name, note)| (name, note.to_owned())).collect();
        let what = Description { most_rows: count as usize, dim: 3, notes };
        let mut table = Box::new(Written::create(path, &what).unwrap());
        table.most_values = 8;
        let features: Vec<f32> = (0..3 * count).map(|value| value as f32).collect();
        let image = |row: u32| {
            let label = (!row.is_multiple_of(3)).then_some(u32::from(row.is_multiple_of(2)));
            let split = Some(if row < 4 { Split::Train } else { Split::Test });
            Image { name: format!("{row}.png"), split, label, class: label.map(|_| "not read") }
        };
        table.write(&Rows { features: &features, images: (0..count).map(image).collect() }).unwrap();
        table.finish().unwrap();
    }

    #[test]
    fn many_groups_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        written(&path, 7);
        let (table, said) = described(File::open(&path).unwrap()).unwrap();
        assert_eq!((said.of.as_str(), said.fingerprint.as_str(), said.step.as_str()), ("h", "0badcafe", "7"));
        let rows = rows(&table, said.classes.len()).unwrap();
        let stored = StoredFeatures { path, table, classes: said.classes, rows };
        assert_eq!(stored.len(), 7);
        assert_eq!(
            [stored.image(2), stored.image(6)],
            [
                Image {
                    name: "2.png".to_owned(),
                    split: Some(Split::Train),
                    label: Some(1),
                    class: Some("even")
                },
                Image { name: "6.png".to_owned(), split: Some(Split::Test), label: None, class: None },
            ]
        );
        assert_eq!(stored.of(Some(Split::Test)).unwrap(), [4, 5, 6]);
        assert!(matches!(
            stored.of(Some(Split::Unlabelled)),
            Err(EvalError::NoSplit { there, .. }) if there == ["train", "test"]
        ));
        let mut groups = Vec::new();
        let mut keep = |group: &[f32]| {
            groups.push(group.to_vec());
            Ok(())
        };
        stored.for_each_group(3, &mut keep).unwrap();
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6, 6, 3]);
        assert!(groups.concat().iter().enumerate().all(|(place, &value)| value == place as f32));
        let error = stored.for_each_group(2, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("not every image has 2 values"), "{error}");
    }

    /// Reads all of a file of these bytes; returns the number of its rows.
    fn read(path: &Path, bytes: &[u8]) -> Result<usize, EvalError> {
        std::fs::write(path, bytes).unwrap();
        guarded(path, || {
            let (table, said) = described(File::open(path).unwrap())?;
            let rows = rows(&table, said.classes.len())?;
            for group in 0..table.metadata.num_row_groups() {
                features(&table, group, 3)?;
            }
            Ok(rows.len())
        })
    }

    #[test]
    fn more_than_there_is_room_for_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        written(&path, 7);
        let whole = std::fs::read(&path).unwrap();
        let declared = |rows: i64| {
            let metadata =
                ParquetMetaDataReader::new().parse_and_finish(&File::open(&path).unwrap()).unwrap();
            let mut groups = metadata.row_groups().to_vec();
            groups[0] = groups[0].clone().into_builder().set_num_rows(rows).build().unwrap();
            let len = u32::from_le_bytes(*whole[..whole.len() - 4].last_chunk().unwrap()) as usize;
            let mut bytes = whole[..whole.len() - 8 - len].to_vec();
            let metadata = metadata.into_builder().set_row_groups(groups).build();
            ParquetMetaDataWriter::new(&mut bytes, &metadata).finish().unwrap();
            bytes
        };
        let (same, more) = (declared(2), declared(1 << 40));
        assert_eq!(read(&path, &same).unwrap(), 7);
        let message = read(&path, &more).unwrap_err().to_string();
        assert!(message.contains("more than it has room for"), "{message}");
        // The page of a dictionary of one value, in Thrift twice that.
        let head = [0x4c, 0x15, 2, 0x15, 0];
        let at = whole.windows(head.len()).position(|bytes| bytes == head).unwrap();
        let mut bytes = whole.clone();
        bytes[at + 2] = 126;
        let message = read(&path, &bytes).unwrap_err().to_string();
        assert!(message.contains("declares 63 values, and can have 2"), "{message}");
    }

    #[test]
    fn damage_is_told_or_changes_values_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        written(&path, 7);
        let whole = std::fs::read(&path).unwrap();
        let read = |bytes: &[u8]| read(&path, bytes);
        assert_eq!(read(&whole).unwrap(), 7);
        assert!((0..whole.len()).step_by(31).all(|end| read(&whole[..end]).is_err()));
        // No panic, and no more rows than there were.
        for place in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x55;
            assert!(read(&bytes).map_or(true, |rows| rows <= 7), "byte {place}");
        }
    }
}
