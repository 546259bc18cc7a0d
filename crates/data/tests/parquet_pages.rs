//! Pages of Parquet files that declare more than they hold, and valid ones that look like it.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::colors;
use parquet::basic::{Compression, Encoding};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use simclr_data::{DecodeScratch, open};
use tempfile::tempdir;

const DATA: i64 = 0;
const DICTIONARY: i64 = 2;
const PLAIN: i64 = 0;
const DELTA_LENGTH: i64 = 6;
const DELTA: i64 = 7;
const MOST: i64 = i32::MAX as i64;

fn image(value: u8) -> Vec<u8> {
    [&b"P6 4 3 255\n"[..], &[value; 36]].concat()
}

/// A table of these images, every third row of which is null if `nullable`.
fn table(values: &[u8], nullable: bool, options: WriterProperties) -> Vec<u8> {
    let kind = if nullable { "optional" } else { "required" };
    let schema = parse_message_type(&format!("message m {{ {kind} binary image; }}")).unwrap();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema.into(), Arc::new(options)).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    let mut column = rows.next_column().unwrap().unwrap();
    let present: Vec<i16> = (0..values.len()).map(|row| i16::from(!nullable || row % 3 != 2)).collect();
    let images = values.iter().zip(&present).filter(|(_, present)| **present == 1);
    let images: Vec<ByteArray> = images.map(|(&value, _)| image(value).into()).collect();
    column.typed::<ByteArrayType>().write_batch(&images, Some(&present), None).unwrap();
    column.close().unwrap();
    rows.close().unwrap();
    writer.into_inner().unwrap()
}

/// A table of `rows` images whose column is `pages`.
fn table_of(rows: usize, compression: Compression, pages: &[u8]) -> Vec<u8> {
    let options = WriterProperties::builder()
        .set_compression(compression)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_dictionary_enabled(false)
        .build();
    let whole = Bytes::from(table(&vec![0; rows], false, options));
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&whole).unwrap();
    let group = metadata.row_groups()[0].clone();
    let column = group.column(0).clone().into_builder().set_total_compressed_size(pages.len() as i64);
    let group = group.into_builder().set_column_metadata(vec![column.build().unwrap()]).build().unwrap();
    let mut bytes = [b"PAR1", pages].concat();
    let metadata = metadata.into_builder().set_row_groups(vec![group]).build();
    ParquetMetaDataWriter::new(&mut bytes, &metadata).finish().unwrap();
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Fields of Thrift, one after another, of 32-bit numbers.
fn numbers(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|&value| [vec![0x15], varint(2 * value as u64)].concat()).collect()
}

/// A page that declares to hold `count` values, in `size` bytes before it was compressed.
fn page(kind: i64, size: i64, count: i64, encoding: i64, bytes: &[u8]) -> Vec<u8> {
    let head = numbers(&[kind, size, bytes.len() as i64]);
    let within = match kind {
        DICTIONARY => [vec![0x4c], numbers(&[count, encoding])],
        _ => [vec![0x2c], numbers(&[count, encoding, 3, 3])],
    };
    [head, within.concat(), vec![0, 0], bytes.to_vec()].concat()
}

/// Why the first image of a table cannot be read.
fn reason(path: &Path, table: &[u8]) -> String {
    fs::write(path, table).unwrap();
    open(path).unwrap().train.read(0, &mut DecodeScratch::default()).unwrap_err().to_string()
}

#[test]
fn more_values_than_there_is_room_for() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    let value = [&47_u32.to_le_bytes()[..], &image(7)].concat();
    let whole = value.len() as i64;
    let check = |pages: &[u8], expected: &str| {
        let message = reason(&file, &table_of(2, Compression::UNCOMPRESSED, pages));
        assert!(message.contains(expected), "{message}");
    };
    check(&page(DICTIONARY, whole, MOST, PLAIN, &value), "declares 2147483647 values, and can have 12");
    check(&page(DATA, whole, 3, PLAIN, &value), "declares 3 values, and can have 2");
    // Blocks of 128 lengths in 4 parts, how many lengths there are, and the first of them, doubled.
    let lengths = |count: u64, first: u64| [vec![0x80, 1, 4], varint(count), varint(2 * first)].concat();
    let damaged = "holds more than it declares (DELTA";
    let delta = |encoding: i64, bytes: &[u8]| page(DATA, bytes.len() as i64, 2, encoding, bytes);
    check(&delta(DELTA_LENGTH, &lengths(1 << 37, 0)), damaged);
    check(&delta(DELTA, &lengths(1 << 37, 0)), damaged);
    check(&delta(DELTA, &[lengths(1, 0), lengths(1 << 37, 0)].concat()), damaged);
    // The second repeats 2 GiB of the first.
    let repeats = [lengths(2, 1 << 30), vec![0, 0, 0, 0, 0]].concat();
    check(&delta(DELTA, &[repeats, lengths(1, 0)].concat()), damaged);
    // As many as there may be.
    let read = |pages: &[u8]| {
        fs::write(&file, table_of(1, Compression::UNCOMPRESSED, pages)).unwrap();
        colors(&*open(&file).unwrap().train)
    };
    assert_eq!(read(&page(DATA, whole, 1, PLAIN, &value)), [7]);
    assert_eq!(read(&delta_page(&[lengths(1, 47), image(8)].concat(), DELTA_LENGTH)), [8]);
    assert_eq!(read(&delta_page(&[lengths(1, 0), lengths(1, 47), image(9)].concat(), DELTA)), [9]);
}

fn delta_page(bytes: &[u8], encoding: i64) -> Vec<u8> {
    page(DATA, bytes.len() as i64, 1, encoding, bytes)
}

#[test]
fn more_bytes_than_can_be_compressed_so_far() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    for compression in [Compression::SNAPPY, Compression::LZ4, Compression::LZ4_RAW] {
        for size in [MOST, 1 << 20] {
            let message = reason(&file, &table_of(1, compression, &page(DATA, size, 1, PLAIN, &[0; 64])));
            assert!(message.contains(&format!("declares {size} bytes in 64 bytes of file")), "{message}");
        }
    }
}

#[test]
fn headers_of_an_unknown_form() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    let head = numbers(&[DATA, 51, 51]);
    // A list of structs, which would be skipped past the end of the file; a size as text; structs without end.
    let list = [&head[..], &[0x69, 0xfc], &varint(MOST as u64)].concat();
    let text = [&numbers(&[DATA])[..], &[0x18, 1, b'a']].concat();
    let deep = [&head[..], &[0x6c], &[0x1c; 100]].concat();
    for pages in [list, text, deep] {
        let message = reason(&file, &table_of(1, Compression::UNCOMPRESSED, &pages));
        assert!(message.contains("a header of an unknown form"), "{message}");
    }
    // A text of 2 GiB.
    let pages = [&head[..], &[0x68], &varint(MOST as u64)].concat();
    let message = reason(&file, &table_of(1, Compression::UNCOMPRESSED, &pages));
    assert!(!message.contains("unknown"), "{message}");
}

#[test]
fn what_writers_write_is_read() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    // More than a block of lengths in a page; few colors, so that a dictionary is of use.
    let values: Vec<u8> = (0..700).map(|row| (row % 50) as u8).collect();
    let compressions = [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::LZ4_RAW];
    let encodings = [
        None,
        Some(Encoding::PLAIN),
        Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        Some(Encoding::DELTA_BYTE_ARRAY),
    ];
    for compression in compressions {
        for encoding in encodings {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                for nullable in [false, true] {
                    let options = WriterProperties::builder()
                        .set_compression(compression)
                        .set_writer_version(version)
                        .set_statistics_enabled(EnabledStatistics::Page)
                        .set_bloom_filter_enabled(nullable)
                        .set_data_page_row_count_limit(300)
                        .set_write_batch_size(100)
                        .set_dictionary_enabled(encoding.is_none());
                    let options = match encoding {
                        Some(encoding) => options.set_encoding(encoding),
                        None => options,
                    };
                    fs::write(&file, table(&values, nullable, options.build())).unwrap();
                    let (source, mut scratch) = (open(&file).unwrap(), DecodeScratch::default());
                    for (row, value) in values.iter().enumerate() {
                        let read = source.train.read(row, &mut scratch).map(|image| image.pixels[0]);
                        let expected = (!nullable || row % 3 != 2).then_some(*value);
                        assert_eq!(read.ok(), expected, "{compression} {encoding:?} {version:?} row {row}");
                    }
                }
            }
        }
    }
}
