//! The headers of pages, looked at before the `parquet` crate believes them.
//!
//! The crate allocates what a header declares, and skips lists in it that its file does not have. So a header is read
//! here first; the crate is handed the bytes of one that is whole and of the known form.

use std::io::{self, Cursor, Error, Read};

use bytes::Bytes;
use parquet::errors::Result;
use parquet::file::reader::{ChunkReader, Length};

/// The most bytes of a header, which may hold two of its page's values.
const MAX_HEADER_BYTES: u64 = 64 << 20;
/// A page may not declare to compress more than this many times beyond the slack; deflate reaches 1032, the others
/// that are decompressed by the crate less.
const MAX_GROWTH: u64 = 1100;
const SLACK: u64 = 1 << 10;
/// So many times may a page that is larger than the most: one of large images, which do not compress.
const LARGE_GROWTH: u64 = 8;

/// A file of pages, whose headers may declare at most `most` bytes each, or little more than the file has.
pub(super) struct Headers<R> {
    pub file: R,
    /// `None` where the crate does not decompress the pages.
    pub most: Option<u64>,
}

impl<R: Length> Length for Headers<R> {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

impl<R: ChunkReader> ChunkReader for Headers<R> {
    type T = Header<R::T>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(Header { file: self.file.get_read(start)?, most: self.most, checked: None })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.file.get_bytes(start, length)
    }
}

/// Reads one header, and ends after it.
pub(super) struct Header<T> {
    file: T,
    most: Option<u64>,
    /// The bytes of the header, once the crate reads from it: it also asks for readers that it leaves unused.
    checked: Option<Cursor<Vec<u8>>>,
}

impl<T: Read> Read for Header<T> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let checked = match &mut self.checked {
            Some(checked) => checked,
            none => none.insert(Cursor::new(header(&mut self.file, self.most)?)),
        };
        checked.read(out)
    }
}

/// Kinds of fields in Thrift's compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const INT32: u8 = 5;
const STRUCT: u8 = 12;

/// The structs within a header.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Page,
    Data,
    DataV2,
    Dictionary,
    /// Statistics, and what later versions of the format may add: skipped.
    Other,
}

impl Of {
    /// Whether the crate may be given a field of this number and kind, in which it expects what the format says.
    fn takes(self, field: i16, kind: u8) -> bool {
        let is = |expected: &[u8]| expected.contains(&kind);
        match (self, field) {
            (Of::Page | Of::Data, 1..=4) | (Of::DataV2, 1..=6) | (Of::Dictionary, 1..=2) => is(&[INT32]),
            (Of::Page, 5..=8) | (Of::Data, 5) | (Of::DataV2, 8) => is(&[STRUCT]),
            (Of::DataV2, 7) | (Of::Dictionary, 3) => is(&[TRUE, FALSE]),
            // No list, set or map.
            _ => !is(&[9, 10, 11]),
        }
    }

    /// The struct in a field.
    fn within(self, field: i16) -> Of {
        match (self, field) {
            (Of::Page, 5) => Of::Data,
            (Of::Page, 7) => Of::Dictionary,
            (Of::Page, 8) => Of::DataV2,
            _ => Of::Other,
        }
    }
}

/// Reads a header: the bytes of it, if it declares a page of at most `most` bytes that can have been compressed so far.
fn header(file: &mut impl Read, most: Option<u64>) -> io::Result<Vec<u8>> {
    let mut parser = Parser { file: file.take(MAX_HEADER_BYTES), bytes: Vec::new(), sizes: [0; 2] };
    parser.fields(Of::Page, 0)?;
    let [whole, packed] = parser.sizes.map(|size| u64::try_from(size).unwrap_or(0));
    match most {
        Some(most)
            if (whole > most && whole / LARGE_GROWTH > packed)
                || whole.saturating_sub(SLACK) / MAX_GROWTH > packed =>
        {
            Err(Error::other(format!("a page declares {whole} bytes in {packed} bytes of file; refused")))
        }
        _ => Ok(parser.bytes),
    }
}

struct Parser<R> {
    file: R,
    /// What has been read.
    bytes: Vec<u8>,
    /// Bytes of the page, decompressed and as it is stored.
    sizes: [i32; 2],
}

impl<R: Read> Parser<R> {
    fn fields(&mut self, of: Of, depth: usize) -> io::Result<()> {
        let unknown = || Error::other("a page has a header of an unknown form");
        if depth > 8 {
            return Err(unknown());
        }
        let mut field: i16 = 0;
        loop {
            let head = self.byte()?;
            let (by, kind) = (i16::from(head >> 4), head & 15);
            if kind == 0 {
                return Ok(());
            }
            field = if by == 0 { self.number()? as i16 } else { field.saturating_add(by) };
            if !of.takes(field, kind) {
                return Err(unknown());
            }
            match kind {
                TRUE | FALSE => {}
                3 => self.skip(1)?,
                4..=6 => {
                    let number = self.number()?;
                    if of == Of::Page && (2..=3).contains(&field) {
                        self.sizes[field as usize - 2] = number as i32;
                    }
                }
                7 => self.skip(8)?,
                8 => {
                    let len = self.varint()?;
                    self.skip(len)?;
                }
                STRUCT => self.fields(of.within(field), depth + 1)?,
                13 => self.skip(16)?,
                _ => return Err(unknown()),
            }
        }
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        match self.file.by_ref().take(count).read_to_end(&mut self.bytes)? as u64 == count {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.file.read_exact(&mut byte)?;
        self.bytes.extend(byte);
        Ok(byte[0])
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::other("a page has a number of too many bytes in its header"))
    }

    /// A signed number.
    fn number(&mut self) -> io::Result<i64> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }
}
