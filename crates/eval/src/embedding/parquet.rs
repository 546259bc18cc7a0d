//! Parquet: a table with a column for each property of an image, and its features as a list.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use simclr_train::file_system::{AtomicFile, Disk};

use super::format::{Description, Rows, Writer};
use super::images::Image;
use crate::EvalError;
use crate::base64::base64;

pub(super) const SCHEMA: &str = "message embedding {
    REQUIRED BINARY name (STRING);
    OPTIONAL BINARY split (STRING);
    OPTIONAL INT64 label;
    OPTIONAL BINARY class (STRING);
    REQUIRED GROUP features (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
}";

/// The Arrow schema of the columns, as pyarrow writes it (`tools/golden/arrow_schema.py`). In it features are a list
/// of fixed length, as vector databases want it, which Parquet's own schema cannot express.
const ARROW_SCHEMA: &[u8; 400] = include_bytes!("arrow_schema.bin");
/// The bytes of it that hold this length.
const ARROW_LENGTH: Range<usize> = 128..132;

/// Feature values per row group, which stays in memory until it is full: 32 MiB.
const GROUP_VALUES: usize = 8 << 20;
/// Feature values passed to the Parquet writer at a time, each with two levels.
const PIECE_VALUES: usize = 1 << 16;

/// A .parquet file being written.
pub(super) struct Table {
    path: PathBuf,
    writer: SerializedFileWriter<AtomicFile<'static>>,
    dim: usize,
    /// Feature values in a full group.
    pub(super) most_values: usize,
    group: Group,
}

/// The rows of the group being filled.
#[derive(Default)]
struct Group {
    names: Vec<ByteArray>,
    splits: Vec<Option<ByteArray>>,
    labels: Vec<Option<i64>>,
    classes: Vec<Option<ByteArray>>,
    features: Vec<f32>,
}

impl Table {
    pub fn create(path: &Path, what: &Description) -> Result<Table, EvalError> {
        let file = AtomicFile::create(&Disk, path).map_err(EvalError::write(path))?;
        let notes = what.notes.iter().map(|(name, note)| KeyValue::new((*name).to_owned(), note.clone()));
        let notes = notes.chain([KeyValue::new("ARROW:schema".to_owned(), arrow_schema(what.dim))]);
        let (name, features) = (ColumnPath::from("name"), features_column());
        // Names are all different and floats hardly compress: dictionaries and compression would only cost time.
        let properties = WriterProperties::builder()
            .set_created_by(concat!("simclr ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(notes.collect()))
            .set_compression(Compression::SNAPPY)
            .set_column_dictionary_enabled(name, false)
            .set_column_dictionary_enabled(features.clone(), false)
            .set_column_compression(features.clone(), Compression::UNCOMPRESSED)
            .set_column_statistics_enabled(features, EnabledStatistics::None)
            .build();
        let writer = parse_message_type(SCHEMA)
            .and_then(|schema| SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)))
            .map_err(|error| EvalError::write(path)(io_error(error)))?;
        Ok(Table {
            path: path.to_owned(),
            writer,
            dim: what.dim,
            most_values: GROUP_VALUES,
            group: Group::default(),
        })
    }

    fn flush(&mut self) -> Result<(), EvalError> {
        let group = std::mem::take(&mut self.group);
        group.write(&mut self.writer, self.dim).map_err(|error| EvalError::write(&self.path)(io_error(error)))
    }
}

impl Writer for Table {
    fn write(&mut self, rows: &Rows<'_>) -> Result<(), EvalError> {
        for (image, features) in rows.images.iter().zip(rows.features.chunks_exact(self.dim)) {
            self.group.push(image, features);
            if self.group.features.len() + self.dim > self.most_values {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), EvalError> {
        if !self.group.names.is_empty() {
            self.flush()?;
        }
        let file = self.writer.into_inner().map_err(io_error);
        file.and_then(AtomicFile::commit).map_err(EvalError::write(&self.path))
    }
}

impl Group {
    fn push(&mut self, image: &Image<'_>, features: &[f32]) {
        self.names.push(image.name.as_str().into());
        self.splits.push(image.split.map(|split| split.word().into()));
        self.labels.push(image.label.map(i64::from));
        self.classes.push(image.class.map(Into::into));
        self.features.extend_from_slice(features);
    }

    /// Writes it as a row group.
    fn write(
        self,
        file: &mut SerializedFileWriter<AtomicFile<'static>>,
        dim: usize,
    ) -> Result<(), ParquetError> {
        let mut columns = file.next_row_group()?;
        column::<ByteArrayType>(&mut columns, &[(&self.names, None, None)])?;
        optional::<ByteArrayType>(&mut columns, self.splits)?;
        optional::<Int64Type>(&mut columns, self.labels)?;
        optional::<ByteArrayType>(&mut columns, self.classes)?;
        let rows = (PIECE_VALUES / dim).max(1);
        // Levels: every value is present (1); it begins a list (0) or continues it (1).
        let present = vec![1; rows * dim];
        let repeats: Vec<i16> = (0..rows * dim).map(|place| i16::from(place % dim > 0)).collect();
        let pieces: Vec<_> = self.features.chunks(rows * dim).collect();
        let pieces: Vec<Piece<'_, f32>> = pieces
            .into_iter()
            .map(|piece| (piece, Some(&present[..piece.len()]), Some(&repeats[..piece.len()])))
            .collect();
        column::<FloatType>(&mut columns, &pieces)?;
        columns.close()?;
        Ok(())
    }
}

/// Values, with their definition and repetition levels where the column has these.
type Piece<'a, T> = (&'a [T], Option<&'a [i16]>, Option<&'a [i16]>);

/// Writes the next column.
fn column<T: DataType>(
    columns: &mut SerializedRowGroupWriter<'_, AtomicFile<'static>>,
    pieces: &[Piece<'_, T::T>],
) -> Result<(), ParquetError> {
    let mut column =
        columns.next_column()?.ok_or_else(|| ParquetError::General("there is no such column".to_owned()))?;
    for (values, present, repeats) in pieces {
        column.typed::<T>().write_batch(values, *present, *repeats)?;
    }
    column.close()
}

/// Writes the next column, whose values are optional.
fn optional<T: DataType>(
    columns: &mut SerializedRowGroupWriter<'_, AtomicFile<'static>>,
    values: Vec<Option<T::T>>,
) -> Result<(), ParquetError> {
    let present: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    column::<T>(columns, &[(&values, Some(&present), None)])
}

fn features_column() -> ColumnPath {
    ColumnPath::new(["features", "list", "element"].map(str::to_owned).to_vec())
}

/// The Arrow schema for features of `dim` values, base64-encoded as Parquet files store it.
fn arrow_schema(dim: usize) -> String {
    let mut schema = *ARROW_SCHEMA;
    schema[ARROW_LENGTH].copy_from_slice(&(dim as i32).to_le_bytes());
    base64(&schema)
}

/// The inner I/O error where there is one.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, RowAccessor};

    use super::*;

    #[test]
    fn the_arrow_schema_is_that_of_pyarrow() {
        assert_eq!(arrow_schema(512), include_str!("../../tests/golden/arrow_schema_512.txt"));
    }

    #[test]
    fn many_groups_are_one_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let what = Description { most_rows: 9, dim: 3, notes: Vec::new() };
        let mut table = Box::new(Table::create(&path, &what).unwrap());
        // Two rows of three values.
        table.most_values = 8;
        for rows in [0..4_u32, 4..7] {
            let features: Vec<f32> = (3 * rows.start..3 * rows.end).map(|value| value as f32).collect();
            let image = |row: u32| {
                let label = row.is_multiple_of(2).then_some(row);
                Image { name: format!("{row}.png"), split: None, label, class: label.map(|_| "even") }
            };
            table.write(&Rows { features: &features, images: rows.map(image).collect() }).unwrap();
        }
        table.finish().unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        let groups = reader.metadata().row_groups().iter().map(|group| group.num_rows());
        assert_eq!(groups.collect::<Vec<_>>(), [2, 2, 2, 1]);
        for (row, found) in reader.get_row_iter(None).unwrap().map(Result::unwrap).enumerate() {
            assert_eq!(found.get_string(0).unwrap(), &format!("{row}.png"));
            assert_eq!(found.get_long(2).ok(), row.is_multiple_of(2).then_some(row as i64));
            let values = (0..3).map(|i| Field::Float((3 * row + i) as f32));
            assert_eq!(found.get_list(4).unwrap().elements(), values.collect::<Vec<_>>());
        }
    }
}
