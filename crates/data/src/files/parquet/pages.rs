//! The pages of a column, decompressed.
//!
//! The `parquet` crate decompresses Zstandard with a library written in C. Here such a column is declared to be
//! uncompressed, so that its pages come as they are stored, and `ruzstd` decompresses them.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::files::zstd::ZstdFrames;

/// Whether columns of this compression are read.
pub(super) fn is_read(compression: Compression) -> bool {
    matches!(
        compression,
        Compression::UNCOMPRESSED
            | Compression::SNAPPY
            | Compression::GZIP(_)
            | Compression::LZ4
            | Compression::LZ4_RAW
            | Compression::ZSTD(_)
    )
}

/// The pages of the column `chunk` of a row group of `rows` rows. No page may decompress to more than `most` bytes.
pub(super) fn open<R: ChunkReader + 'static>(
    file: R,
    chunk: &ColumnChunkMetaData,
    rows: usize,
    most: u64,
) -> Result<Box<dyn PageReader>> {
    let file = Arc::new(file);
    if !matches!(chunk.compression(), Compression::ZSTD(_)) {
        return Ok(Box::new(SerializedPageReader::new(file, chunk, rows, None)?));
    }
    let stored = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
    Ok(Box::new(ZstdPages { stored: SerializedPageReader::new(file, &stored, rows, None)?, most }))
}

/// Pages that are compressed by Zstandard.
struct ZstdPages<R: ChunkReader> {
    stored: SerializedPageReader<R>,
    most: u64,
}

impl<R: ChunkReader> ZstdPages<R> {
    fn decompressed(&self, mut page: Page) -> Result<Page> {
        let (bytes, plain) = match &mut page {
            Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => (buf, 0),
            Page::DataPageV2 { is_compressed: false, .. } => return Ok(page),
            // The levels before the values are not compressed.
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
                (buf, u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len))
            }
        };
        let plain = usize::try_from(plain).ok().filter(|&plain| plain <= bytes.len());
        let plain = plain.ok_or_else(|| general("a page is shorter than its levels"))?;
        let (levels, packed) = bytes.split_at(plain);
        let mut whole = levels.to_vec();
        let read = ZstdFrames::new(packed).take(self.most + 1).read_to_end(&mut whole);
        if read.map_err(|error| general(&format!("damaged Zstandard: {error}")))? as u64 > self.most {
            return Err(general(&format!("a page decompresses to more than {} bytes; refused", self.most)));
        }
        *bytes = Bytes::from(whole);
        Ok(page)
    }
}

impl<R: ChunkReader> PageReader for ZstdPages<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.stored.get_next_page()?;
        page.map(|page| self.decompressed(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.stored.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.stored.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.stored.at_record_boundary()
    }
}

impl<R: ChunkReader> Iterator for ZstdPages<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

fn general(reason: &str) -> ParquetError {
    ParquetError::General(reason.to_owned())
}
