//! Parquet files as Hugging Face's libraries write them; `tools/golden/parquet.py` made them.

mod common;

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use common::{batches, colors, error};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use simclr_data::{DecodeScratch, SourceKind, open};
use tempfile::tempdir;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet").join(name)
}

#[test]
fn images_in_a_struct_with_labels() {
    for name in ["snappy", "gzip", "lz4", "none", "zstd"] {
        let source = open(&golden(&format!("{name}.parquet"))).unwrap();
        assert_eq!(source.kind, SourceKind::Parquet);
        assert_eq!(colors(&*source.train), (0..20).collect::<Vec<u8>>(), "{name}");
        assert_eq!(source.train.classes(), ["cat", "dog", "owl"]);
        assert_eq!((source.train.label(7), source.train.label(19)), (Some(1), Some(1)));
        assert_eq!(source.train.name(8), format!("{name}.parquet row 8"));
    }
}

#[test]
fn rows_without_an_image_are_broken_images() {
    for name in ["nulls.parquet", "zstd-2.parquet"] {
        check_rows_without_an_image(name);
    }
}

fn check_rows_without_an_image(name: &str) {
    let source = open(&golden(name)).unwrap();
    let mut scratch = DecodeScratch::default();
    assert_eq!(source.train.read(2, &mut scratch).unwrap().pixels[0], 2);
    let reason = source.train.read(1, &mut scratch).unwrap_err().to_string();
    assert_eq!(reason, format!("{name} row 1: the table holds no image here"));
    assert_eq!((source.train.label(1), source.train.label(2)), (None, Some(2)));
}

#[test]
fn plain_values_and_labels_in_words() {
    let source = open(&golden("binary.parquet")).unwrap();
    assert_eq!(colors(&*source.train), [0, 1]);
    assert_eq!(source.train.classes(), ["ant", "owl"]);
    assert_eq!(source.train.label(0), Some(1));
}

#[test]
fn parts_by_the_names_of_the_files() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    for part in ["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"] {
        fs::copy(golden("snappy.parquet"), dir.path().join("data").join(format!("{part}.parquet"))).unwrap();
    }
    let source = open(dir.path()).unwrap();
    assert_eq!((source.train.len(), source.test.as_ref().unwrap().len()), (40, 20));
    assert_eq!(source.train.name(25), "train-00001-of-00002.parquet row 5");
    assert_eq!(source.test.unwrap().classes(), ["cat", "dog", "owl"]);
    let expected = batches(&open(dir.path()).unwrap(), 1, Default::default(), 10);
    let mut seen: Vec<u32> = expected[..4].iter().flat_map(|batch| batch.indices.clone()).collect();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..40));
    let middle = batches(&open(dir.path()).unwrap(), 3, expected[5].position, 4);
    for (got, expected) in middle.iter().zip(&expected[6..]) {
        assert_eq!((&got.indices, &got.views), (&expected.indices, &expected.views));
    }
}

#[test]
fn what_is_no_table_of_images_is_named() {
    assert!(error(&golden("texts.parquet")).contains("has no column of images, only id"));
    assert!(error(&golden("noise.parquet")).contains("holds no encoded images"));
    let message = error(&golden("brotli.parquet"));
    assert!(
        message.contains("images are compressed by BROTLI") && message.contains("zstd, snappy"),
        "{message}"
    );
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    let whole = fs::read(golden("snappy.parquet")).unwrap();
    for bytes in [&whole[..whole.len() - 5], &whole[1..], b"PAR1", b""] {
        fs::write(&file, bytes).unwrap();
        let message = error(&file);
        assert!(message.starts_with(&file.display().to_string()), "{message}");
    }
}

/// A table of row groups with one image each, of these values, that have no checksum of their own. The page of the last
/// has one, which is inserted here, as the crate that writes the table writes none.
fn table_with_a_checksum(values: &[u8]) -> Vec<u8> {
    let schema = parse_message_type("message m { required binary image; }").unwrap();
    let options = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema.into(), options.into()).unwrap();
    for &value in values {
        let mut rows = writer.next_row_group().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        let image = ByteArray::from([&b"P6 4 3 255\n"[..], &[value; 36]].concat());
        column.typed::<ByteArrayType>().write_batch(&[image], None, None).unwrap();
        column.close().unwrap();
        rows.close().unwrap();
    }
    let mut bytes = writer.into_inner().unwrap();

    let metadata = ParquetMetaDataReader::new().parse_and_finish(&Bytes::from(bytes.clone())).unwrap();
    let mut groups = metadata.row_groups().to_vec();
    let last = groups.len() - 1;
    let (start, len) = groups[last].column(0).byte_range();
    let (start, end) = (start as usize, (start + len) as usize);
    // In Thrift: the kind of page and its two sizes, each a field and one byte that holds twice the number. The
    // checksum is the next field, of five bytes, and reduces the field delta of the one after it by one.
    let head = bytes[start..].first_chunk::<7>().unwrap();
    assert!(matches!(head, [0x15, 0, 0x15, 0..128, 0x15, 0..128, 0x2c]), "{head:?}");
    let mut checksum = flate2::Crc::new();
    checksum.update(&bytes[end - usize::from(head[5]) / 2..end]);
    let checksum = checksum.sum() as i32;
    let zigzag = ((checksum << 1) ^ (checksum >> 31)) as u32;
    let field: Vec<u8> = [0x15]
        .into_iter()
        .chain((0..5).map(|part| (zigzag >> (7 * part)) as u8 & 0x7f | if part < 4 { 0x80 } else { 0 }))
        .chain([0x1c])
        .collect();
    bytes.truncate(end);
    bytes.splice(start + 6..start + 7, field);

    let column = groups[last].column(0).clone().into_builder();
    let column = column.set_total_compressed_size(len as i64 + 6).build().unwrap();
    groups[last] = groups[last].clone().into_builder().set_column_metadata(vec![column]).build().unwrap();
    let metadata = metadata.into_builder().set_row_groups(groups).build();
    ParquetMetaDataWriter::new(&mut bytes, &metadata).finish().unwrap();
    bytes
}

#[test]
fn the_first_value_need_not_be_an_image() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    let image = [&b"P6 4 3 255\n"[..], &[50; 36]].concat();
    let write = |values: &[&[u8]]| {
        let schema = parse_message_type("message m { required binary image; }").unwrap();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema.into(), Default::default()).unwrap();
        let mut rows = writer.next_row_group().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = values.iter().map(|value| value.to_vec().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        rows.close().unwrap();
        fs::write(&file, writer.into_inner().unwrap()).unwrap();
    };
    for first in [&b""[..], b"no image"] {
        write(&[first, &image, &image]);
        let (source, mut scratch) = (open(&file).unwrap(), DecodeScratch::default());
        assert_eq!(source.train.len(), 3);
        assert!(source.train.read(0, &mut scratch).is_err());
        assert_eq!(source.train.read(1, &mut scratch).unwrap().pixels[0], 50);
    }
    write(&[b"", b"one text", b"another"]);
    assert!(error(&file).contains("holds no encoded images"));
}

#[test]
fn the_checksum_of_a_page_is_compared() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    let mut bytes = table_with_a_checksum(&[50, 60]);
    fs::write(&file, &bytes).unwrap();
    assert_eq!(colors(&*open(&file).unwrap().train), [50, 60]);
    let at = bytes.windows(36).position(|pixels| pixels == [60; 36]).unwrap();
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let (source, mut scratch) = (open(&file).unwrap(), DecodeScratch::default());
    assert_eq!(source.train.read(0, &mut scratch).unwrap().pixels[0], 50);
    let message = source.train.read(1, &mut scratch).unwrap_err().to_string();
    assert!(message.starts_with("a.parquet row 1: ") && message.contains("checksum"), "{message}");
    // The first page is checked when the table is opened, but the table may hold other images.
    let mut bytes = table_with_a_checksum(&[60]);
    let at = bytes.windows(36).position(|pixels| pixels == [60; 36]).unwrap();
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert!(open(&file).unwrap().train.read(0, &mut scratch).is_err());
}

/// Opening and reading return, whatever is damaged.
#[test]
fn damaged_tables_never_panic() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    let mut scratch = DecodeScratch::default();
    for name in ["gzip", "zstd", "zstd-2"] {
        let whole = fs::read(golden(&format!("{name}.parquet"))).unwrap();
        for at in (0..whole.len()).step_by(5) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            fs::write(&file, damaged).unwrap();
            if let Ok(source) = open(&file) {
                for index in 0..source.train.len().min(30) {
                    let _ = source.train.read(index, &mut scratch);
                }
            }
        }
    }
}
