//! The pages of a column, decompressed, with counts that the `parquet` crate can allocate memory for.
//!
//! The crate decompresses Zstandard with a library written in C, and gzip to whatever it holds. Here such a column is
//! declared to be uncompressed, so that its pages come as they are stored, and `ruzstd` or `flate2` decompresses them.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::basic::{Compression, Encoding, Type as Physical};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescPtr;

use super::MAX_PAGE_BYTES;
use super::delta;
use super::header::Headers;
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
    let packing = match chunk.compression() {
        Compression::ZSTD(_) => Some(Packing::Zstandard),
        Compression::GZIP(_) => Some(Packing::Gzip),
        _ => None,
    };
    let is_stored = packing.is_some() || chunk.compression() == Compression::UNCOMPRESSED;
    let file = Arc::new(Headers { file, most: (!is_stored).then_some(MAX_PAGE_BYTES as u64) });
    let mut as_stored = chunk.clone().into_builder();
    if packing.is_some() {
        as_stored = as_stored.set_compression(Compression::UNCOMPRESSED);
    }
    let stored = SerializedPageReader::new(file, &as_stored.build()?, rows, None)?;
    let descriptor = chunk.column_descr_ptr();
    Ok(Box::new(Pages { stored, packing, most, rows, descriptor }))
}

/// What pages are decompressed from here.
#[derive(Clone, Copy)]
enum Packing {
    Zstandard,
    Gzip,
}

struct Pages<R: ChunkReader> {
    stored: SerializedPageReader<Headers<R>>,
    /// How the pages are still compressed, if they are.
    packing: Option<Packing>,
    most: u64,
    rows: usize,
    descriptor: ColumnDescPtr,
}

impl<R: ChunkReader> Pages<R> {
    fn decompressed(&self, mut page: Page, packing: Packing) -> Result<Page> {
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
        let (read, name) = match packing {
            Packing::Zstandard => {
                (ZstdFrames::new(packed).take(self.most + 1).read_to_end(&mut whole), "Zstandard")
            }
            Packing::Gzip => {
                (MultiGzDecoder::new(packed).take(self.most + 1).read_to_end(&mut whole), "gzip")
            }
        };
        if read.map_err(|error| general(&format!("damaged {name}: {error}")))? as u64 > self.most {
            return Err(general(&format!("a page decompresses to more than {} bytes; refused", self.most)));
        }
        *bytes = Bytes::from(whole);
        Ok(page)
    }

    /// Whether there is room in the page for as many values as it declares.
    fn check(&self, page: &Page) -> Result<()> {
        let len = page.buffer().len();
        let width = match self.descriptor.physical_type() {
            Physical::INT32 | Physical::FLOAT => 4,
            Physical::INT64 | Physical::DOUBLE => 8,
            // The length before each.
            Physical::BYTE_ARRAY => 4,
            _ => 1,
        };
        let most = match page {
            Page::DictionaryPage { .. } => len / width,
            // The same value, or none, may be in every row.
            _ if self.descriptor.max_rep_level() == 0 => self.rows,
            // Lists, some of which may be empty.
            _ if page.encoding() == Encoding::PLAIN => self.rows.saturating_add(len / width),
            _ => return Err(general("its lists are encoded in a way that is not read")),
        };
        let count = page.num_values();
        if count as usize > most {
            return Err(general(&format!("a page declares {count} values, and can have {most}; refused")));
        }
        let fits =
            |values: &[u8]| delta::fits(page.encoding(), values, count as usize, MAX_PAGE_BYTES as u64);
        match delta::is_checked(page.encoding()) && !self.values(page).is_some_and(fits) {
            true => Err(general(&format!(
                "a page is damaged, or holds more than it declares ({})",
                page.encoding()
            ))),
            false => Ok(()),
        }
    }

    /// The bytes of a page after its definition levels; there are no others where this is asked.
    #[expect(deprecated, reason = "old files have levels in this encoding")]
    fn values<'a>(&self, page: &'a Page) -> Option<&'a [u8]> {
        let bytes = &page.buffer()[..];
        let depth = self.descriptor.max_def_level();
        let levels = match page {
            Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
                *def_levels_byte_len as usize + *rep_levels_byte_len as usize
            }
            Page::DataPage { .. } if depth == 0 => 0,
            Page::DataPage { def_level_encoding: Encoding::BIT_PACKED, num_values, .. } => {
                (*num_values as usize * (depth.ilog2() as usize + 1)).div_ceil(8)
            }
            _ => 4 + u32::from_le_bytes(*bytes.first_chunk()?) as usize,
        };
        bytes.get(levels..)
    }
}

impl<R: ChunkReader> PageReader for Pages<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = match (self.stored.get_next_page()?, self.packing) {
            (Some(page), Some(packing)) => Some(self.decompressed(page, packing)?),
            (page, _) => page,
        };
        page.iter().try_for_each(|page| self.check(page))?;
        Ok(page)
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

impl<R: ChunkReader> Iterator for Pages<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

fn general(reason: &str) -> ParquetError {
    ParquetError::General(reason.to_owned())
}
