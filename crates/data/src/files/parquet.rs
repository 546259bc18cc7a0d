//! Parquet files with a column of images, as Hugging Face writes them: a struct of `bytes` and `path`, or plain
//! binary values.
//!
//! A row group is a strand: its images are read from its beginning, a block of rows at a time. Labels come from an
//! integer or text column called `label` or the like; the class names come from Hugging Face's metadata in the file.

mod delta;
mod header;
mod labels;
mod pages;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{LogicalType, Type as Physical};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnDescriptor;

use self::labels::Labels;
use super::archive::Opened;
use super::blocks::{Block, BlockReader, Strands};
use super::parts::{Parts, Unnamed};
use super::{Files, ImageFiles};
use crate::caught::caught;
use crate::decode::{Claim, DecodeOptions, Format, MAX_FILE_BYTES};
use crate::error::{DataError, inert};
use crate::fault::{Fault, Unread, Watched};
use crate::listing::LeftOut;
use crate::locality::{BLOCK_BYTES, Blocks, Locality};
use crate::positioned::{Cursor, read_exact_at};

/// The names of columns, in order of preference.
const IMAGE_COLUMNS: [&str; 10] =
    ["image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "bytes", "image_bytes"];
const LABEL_COLUMNS: [&str; 6] = ["label", "labels", "class", "fine_label", "category", "target"];
/// Blocks are planned by the average size of an image; none may hold more bytes than this.
const MAX_BLOCK_BYTES: usize = 32 * BLOCK_BYTES as usize;
/// The most bytes that a page may declare, checked before memory is allocated.
const MAX_PAGE_BYTES: i64 = 2 * MAX_FILE_BYTES as i64;

/// A file that several threads read, each at its own position.
struct Shared {
    file: Arc<File>,
    len: u64,
    fault: Fault,
}

impl Shared {
    fn open(path: &Path, fault: &Fault) -> std::io::Result<Self> {
        let file = fault.note(File::open(path))?;
        let len = fault.note(file.metadata())?.len();
        Ok(Self { file: Arc::new(file), len, fault: fault.clone() })
    }
}

impl Length for Shared {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Shared {
    type T = BufReader<Watched<Cursor>>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let cursor = Cursor::new(Arc::clone(&self.file), start.min(self.len), self.len);
        Ok(BufReader::new(Watched::new(cursor, &self.fault)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(ParquetError::EOF(format!(
                "{length} bytes at {start} lie beyond the end of the file"
            )));
        }
        let mut bytes = vec![0; length];
        self.fault.note(read_exact_at(&self.file, &mut bytes, start))?;
        Ok(bytes.into())
    }
}

/// One row group of one file.
struct Group {
    table: usize,
    group: usize,
    /// Its first row among those of all groups.
    first: u32,
    /// The first row of its table among those of all groups.
    first_of_table: u32,
}

struct Table {
    path: PathBuf,
    metadata: ParquetMetaData,
    /// The leaf column that holds the images.
    column: usize,
    label: Option<usize>,
}

/// The rows of several tables.
struct Rows {
    tables: Vec<Table>,
    groups: Vec<Group>,
    blocks: Arc<Blocks>,
}

type Values = ColumnReaderImpl<ByteArrayType>;

/// The open column of a row group.
struct Column {
    values: Values,
    nullable: i16,
}

impl Strands for Rows {
    type Stream = Column;

    fn path(&self, strand: usize) -> &Path {
        &self.tables[self.groups[strand].table].path
    }

    fn open(&self, strand: usize, fault: &Fault) -> Result<Column, String> {
        let Group { table, group, .. } = self.groups[strand];
        let table = &self.tables[table];
        let values = guarded(|| column::<ByteArrayType>(table, group, table.column, fault))?;
        let nullable = descriptor(table, table.column).max_def_level();
        Ok(Column { values, nullable })
    }

    fn next(&self, column: &mut Column, number: usize) -> Result<Block, String> {
        let rows = self.blocks.images(number).len();
        let values = guarded(|| read_rows(&mut column.values, rows, column.nullable))?;
        let mut block = Block::default();
        for value in values {
            let start = block.bytes.len();
            block.files.push(match value {
                None => Err("the table holds no image here".to_owned()),
                Some(value)
                    if value.len() as u64 > MAX_FILE_BYTES || start + value.len() > MAX_BLOCK_BYTES =>
                {
                    Err(format!("its {} bytes are too many to read in one block", value.len()))
                }
                Some(value) => {
                    block.bytes.extend_from_slice(value.data());
                    Ok(start..block.bytes.len())
                }
            });
        }
        Ok(block)
    }
}

/// Reads the next `rows` values, `None` for nulls.
fn read_rows<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    nullable: i16,
) -> Result<Vec<Option<T::T>>, String> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let wanted = (nullable > 0).then_some(&mut levels);
    let (read, _, _) =
        reader.read_records(rows, wanted, None, &mut values).map_err(|error| error.to_string())?;
    if read != rows {
        return Err(format!("a row group holds {read} rows where it declares {rows} more"));
    }
    if nullable == 0 {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    Ok(levels.into_iter().map(|level| if level == nullable { values.next() } else { None }).collect())
}

fn descriptor(table: &Table, column: usize) -> Arc<ColumnDescriptor> {
    table.metadata.file_metadata().schema_descr().column(column)
}

fn column<T: DataType>(
    table: &Table,
    group: usize,
    column: usize,
    fault: &Fault,
) -> Result<ColumnReaderImpl<T>, String> {
    let file = Shared::open(&table.path, fault).map_err(|error| error.to_string())?;
    values(file, &table.metadata, group, column)
}

/// Opens the values of a column of a row group of the table in `file`, which has `metadata`. Counts and sizes that the
/// file declares are checked before memory is allocated for them; to be called, and read from, within [`caught`].
///
/// # Errors
/// A column that lies beyond the end of the file, or has values that are not of type `T`.
pub fn table_column<T: DataType>(
    file: &Arc<File>,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
) -> Result<ColumnReaderImpl<T>, String> {
    let len = file.metadata().map_err(|error| error.to_string())?.len();
    values(Shared { file: Arc::clone(file), len, fault: Fault::default() }, metadata, group, column)
}

fn values<T: DataType>(
    file: Shared,
    metadata: &ParquetMetaData,
    group: usize,
    column: usize,
) -> Result<ColumnReaderImpl<T>, String> {
    let group = metadata.row_group(group);
    let chunk = group.column(column);
    if chunk.column_type() != T::get_physical_type() {
        return Err("a column is of another type".to_owned());
    }
    let end = chunk.byte_range().0.checked_add(chunk.byte_range().1);
    if end.is_none_or(|end| end > file.len) {
        return Err("a column lies beyond the end of the file, which is cut short".to_owned());
    }
    let rows = usize::try_from(group.num_rows()).map_err(|_| "declares a negative number of rows")?;
    let most = chunk.uncompressed_size().clamp(0, MAX_PAGE_BYTES) as u64;
    let pages = pages::open(file, chunk, rows, most).map_err(|error| error.to_string())?;
    Ok(ColumnReaderImpl::new(chunk.column_descr_ptr(), pages))
}

impl Files for BlockReader<Rows> {
    fn len(&self) -> usize {
        self.blocks().len as usize
    }

    fn name(&self, index: usize) -> String {
        let rows = self.source();
        let group = &rows.groups[rows.groups.partition_point(|group| group.first as usize <= index) - 1];
        let file = rows.tables[group.table].path.file_name().unwrap_or_default().to_string_lossy();
        inert(&format!("{file} row {}", index - group.first_of_table as usize))
    }

    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<Claim, String> {
        BlockReader::read(self, index, out)
    }

    fn probe(&self, index: usize) -> Result<(), Unread> {
        BlockReader::probe(self, index)
    }

    fn locality(&self) -> Locality {
        Locality::blocks(Arc::clone(self.blocks()))
    }
}

/// Opens Parquet files; their names tell which are to train on and which to test on.
pub(crate) fn open(paths: &[PathBuf], unnamed: Unnamed, options: DecodeOptions) -> Result<Opened, DataError> {
    let mut left_out = LeftOut::default();
    let parts = Parts::of(paths, unnamed, &mut left_out);
    let (train, train_labels) = load(&parts.train)?;
    let is_labelled = |(_, labels): &(_, Labels)| labels.is_some();
    let test = parts.open_test(|| train_labels.is_some(), is_labelled, load, &mut left_out)?;
    let Some((test, test_labels)) = test else {
        let train = ImageFiles::new(train, train_labels.classes(None), options);
        return Ok(Opened { train, test: None, unlabelled: None, left_out });
    };
    let train = ImageFiles::new(train, train_labels.classes(Some(&test_labels)), options);
    let mut test = ImageFiles::new(test, test_labels.classes(Some(&train_labels)), options);
    // The parts may list the same class names in a different order.
    if !train.classes().is_empty() && train.classes() != test.classes() {
        test.relabel(train.classes());
    }
    Ok(Opened { train, test: Some(test), unlabelled: None, left_out })
}

/// Opens tables, and joins their rows.
fn load(paths: &[PathBuf]) -> Result<(Arc<dyn Files>, Labels), DataError> {
    let mut tables = Vec::with_capacity(paths.len());
    for path in paths {
        tables.push(open_table(path)?);
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut blocks = Blocks::default();
    for (number, table) in tables.iter().enumerate() {
        let bad = |reason: String| DataError::malformed(&table.path, reason);
        let first_of_table = blocks.len;
        for group in 0..table.metadata.num_row_groups() {
            let chunk = table.metadata.row_group(group).column(table.column);
            let rows = table.metadata.row_group(group).num_rows();
            let rows = u32::try_from(rows).map_err(|_| bad(format!("a row group declares {rows} rows")))?;
            let bytes = chunk.uncompressed_size().max(0) as u64;
            if rows == 0 {
                continue;
            }
            // An image takes some bytes: a declaration of more rows than bits is bogus.
            if u64::from(rows) > 8 * (chunk.compressed_size().max(0) as u64 + 64) {
                return Err(bad(format!(
                    "a row group declares {rows} rows in {} bytes",
                    chunk.compressed_size()
                )));
            }
            let first = blocks.len;
            groups.push(Group { table: number, group, first, first_of_table });
            blocks.strands.push(blocks.starts.len() as u32);
            let step = (BLOCK_BYTES * u64::from(rows) / bytes.max(1)).clamp(1, u64::from(rows)) as usize;
            let end =
                first.checked_add(rows).ok_or_else(|| bad(format!("more than {} rows in all", u32::MAX)))?;
            blocks.starts.extend((first..end).step_by(step));
            blocks.len = end;
        }
    }
    if blocks.len == 0 {
        return Err(DataError::malformed(&paths[0], "holds no rows"));
    }
    let labels = Labels::read(&tables)?;
    let rows = Rows { tables, groups, blocks: Arc::new(blocks) };
    let blocks = Arc::clone(&rows.blocks);
    Ok((Arc::new(BlockReader::new(rows, blocks)), labels))
}

/// The tables that are looked at to find out whether there are images in any.
const TABLE_SAMPLE_SIZE: usize = 16;

/// Whether tables hold images, judging by the first of them. It is false only if one can be read and none of them has
/// any: what is wrong with the others is told when they are opened.
pub(crate) fn hold_images<'a>(paths: impl Iterator<Item = &'a Path>) -> bool {
    let mut is_any_without = false;
    for path in paths.take(TABLE_SAMPLE_SIZE) {
        let Ok(file) = Shared::open(path, &Fault::default()) else { continue };
        match guarded(|| described(path, file)) {
            Ok(Ok(_)) => return true,
            Ok(Err(NoImages(_))) => is_any_without = true,
            Err(_) => {}
        }
    }
    !is_any_without
}

fn open_table(path: &Path) -> Result<Table, DataError> {
    let fault = Fault::default();
    let file = Shared::open(path, &fault).map_err(|e| DataError::io(path, e))?;
    let described = guarded(|| described(path, file));
    described.and_then(|table| table.map_err(|NoImages(reason)| reason)).map_err(|reason| match fault.get() {
        Some(error) => DataError::io(path, error),
        None => DataError::malformed(path, reason),
    })
}

/// Why a sound table is not one of images.
struct NoImages(String);

/// How likely a column is to hold the images, the likeliest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A struct of bytes and path, by the place of its name among [`IMAGE_COLUMNS`].
    Struct(usize),
    /// Binary values, likewise.
    Named(usize),
    /// Binary values of another name.
    Unnamed,
}

fn described(path: &Path, file: Shared) -> Result<Result<Table, NoImages>, String> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|error| {
        format!("not read as a Parquet file; it may be damaged or not one at all: {error}")
    })?;
    let schema = metadata.file_metadata().schema_descr();
    let columns: Vec<&str> = schema.columns().iter().map(|column| column.name()).collect();
    let rank = |column: &ColumnDescriptor| {
        let parts = column.path().parts();
        let named = |name: &str| IMAGE_COLUMNS.iter().position(|known| known.eq_ignore_ascii_case(name));
        let usable = column.physical_type() == Physical::BYTE_ARRAY
            && column.max_rep_level() == 0
            && !matches!(column.logical_type_ref(), Some(LogicalType::String));
        match parts {
            _ if !usable => None,
            [outer, inner] if inner == "bytes" => {
                Some(Rank::Struct(named(outer).unwrap_or(IMAGE_COLUMNS.len())))
            }
            [name] => Some(named(name).map_or(Rank::Unnamed, Rank::Named)),
            _ => None,
        }
    };
    let image = (0..columns.len()).filter_map(|at| Some((rank(&schema.column(at))?, at))).min();
    let Some((_, column)) = image else {
        let listed = columns.iter().take(20).copied().collect::<Vec<_>>().join(", ");
        return Ok(Err(NoImages(format!(
            "has no column of images, only {}; expected a struct of bytes and path called \"image\", or binary values",
            inert(&listed)
        ))));
    };
    let label = LABEL_COLUMNS.iter().find_map(|name| {
        (0..columns.len()).find(|&at| {
            let column = schema.column(at);
            let usable =
                matches!(column.physical_type(), Physical::INT32 | Physical::INT64 | Physical::BYTE_ARRAY);
            column.path().parts().len() == 1
                && usable
                && column.max_rep_level() == 0
                && column.name().eq_ignore_ascii_case(name)
        })
    });
    for group in metadata.row_groups() {
        let chunk = group.column(column);
        for (what, column) in [("images", Some(column)), ("labels", label)] {
            let compression = column.map(|column| group.column(column).compression());
            if let Some(compression) = compression.filter(|&compression| !pages::is_read(compression)) {
                return Err(format!(
                    "its {what} are compressed by {compression}, which is not read; rewrite the file with zstd, snappy, gzip, \
                     lz4 or no compression"
                ));
            }
        }
        let (packed, bytes) = (chunk.compressed_size(), chunk.uncompressed_size());
        if packed < 0 || packed as u64 > file.len() {
            return Err(format!("declares {packed} bytes of images in a file of {}", file.len()));
        }
        if bytes < 0 || bytes / MAX_GROWTH > packed + MAX_PAGE_BYTES {
            return Err(format!("declares {bytes} bytes of images in {packed} bytes of file; refused"));
        }
    }
    let table = Table { path: path.to_owned(), metadata, column, label };
    Ok(begins_with_images(&table)?.map(|()| table))
}

/// Images are compressed already: a table may not claim to compress them more than this many times.
const MAX_GROWTH: i64 = 1000;

/// The values of a column that are looked at for an image.
const SAMPLE_SIZE: usize = 16;

/// Checks that one of the first values in the column of images begins like an image. Nulls, empty values and what
/// cannot be read are let pass as broken images: the table may hold others.
fn begins_with_images(table: &Table) -> Result<Result<(), NoImages>, String> {
    let Some(group) =
        (0..table.metadata.num_row_groups()).find(|&at| table.metadata.row_group(at).num_rows() > 0)
    else {
        return Ok(Ok(()));
    };
    let described = descriptor(table, table.column);
    let mut reader = column::<ByteArrayType>(table, group, table.column, &Fault::default())?;
    let rows = usize::try_from(table.metadata.row_group(group).num_rows()).unwrap_or(0);
    let values = read_rows(&mut reader, rows.min(SAMPLE_SIZE), described.max_def_level()).unwrap_or_default();
    let mut values =
        values.iter().flatten().map(|value| value.data()).filter(|bytes| !bytes.is_empty()).peekable();
    if values.peek().is_none() || values.any(|bytes| Format::of(bytes).is_some()) {
        return Ok(Ok(()));
    }
    Ok(Err(NoImages(format!(
        "the column {:?} holds no encoded images, judging by its first values; expected JPEG, PNG or the like",
        inert(described.path().string().as_str())
    ))))
}

fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    caught(&"the Parquet reader", read)
}
