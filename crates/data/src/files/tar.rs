//! The image files of a tar archive: where they lie, and the labels beside them.
//!
//! Archives are read, never extracted. Of an uncompressed archive, only the headers are read; a compressed one is
//! decompressed once, to the end of the file, where its checksum is, and nothing is kept. Reading goes on after the
//! mark of an archive's end: concatenated archives are one. In WebDataset's layout a sample is the files with the same
//! name up to the first dot: `0017.jpg` and `0017.cls` are an image and its label, a number.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType, PaxExtensions};

use super::archive::{MAX_LABEL, is_hidden};
use super::zstd::ZstdFrames;
use crate::error::{DataError, name_of};
use crate::fault::{Fault, Watched};
use crate::index::Members;
use crate::layout::folder_of;
use crate::listing::is_image_name;
use crate::loader::NO_LABEL;
use crate::names::extension;
use crate::positioned::Cursor;

/// The longest name, label or extended header that is read, in bytes.
const MAX_NOTE: u64 = 1 << 20;
/// A decompressed archive may have this many times the compressed bytes, plus `SPARE`.
const MAX_GROWTH: u64 = 200;
const SPARE: u64 = 1 << 30;

/// The block size of tar, in bytes: headers and contents each begin with a new block.
const BLOCK: u64 = 512;
/// The mark of an archive's end: two blocks of zeros.
const MARK: u64 = 2 * BLOCK;
/// Writers pad an archive with zeros to a multiple of `RECORD` bytes, or of a power of two up to `MAX_RECORD`.
const RECORD: u64 = 20 * BLOCK;
const MAX_RECORD: u64 = 1 << 20;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Packing {
    #[default]
    None,
    Gzip,
    Zstd,
}

impl Packing {
    pub const ALL: [Self; 3] = [Self::None, Self::Gzip, Self::Zstd];

    /// Recognises the compression by the first bytes of a file, whatever its name says.
    fn of(path: &Path) -> std::io::Result<Self> {
        let mut magic = Vec::new();
        File::open(path)?.take(4).read_to_end(&mut magic)?;
        Ok(match magic[..] {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Self::Zstd,
            _ => Self::None,
        })
    }
}

/// The decompressed bytes of an archive, from its beginning. I/O errors of the system are noted in `fault`.
pub(crate) fn decompressed(
    path: &Path,
    packing: Packing,
    fault: &Fault,
) -> std::io::Result<Box<dyn Read + Send>> {
    let file = fault.note(File::open(path))?;
    let len = fault.note(file.metadata())?.len();
    Ok(unpacked(Watched::new(file, fault), len, packing))
}

/// Like [`decompressed`], for a reader of an archive of `len` bytes.
fn unpacked(packed: impl Read + Send + 'static, len: u64, packing: Packing) -> Box<dyn Read + Send> {
    let reader = BufReader::with_capacity(256 << 10, packed);
    let inner: Box<dyn Read + Send> = match packing {
        Packing::None => return Box::new(reader),
        Packing::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Packing::Zstd => Box::new(ZstdFrames::new(reader)),
    };
    Box::new(Bounded { inner, left: len.saturating_mul(MAX_GROWTH).saturating_add(SPARE) })
}

/// A stream that counts the bytes read from it.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(out)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// A stream that fails once more than `left` bytes have been read from it.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(out)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            std::io::Error::other(format!("decompresses to more than {MAX_GROWTH} times its size; refused"))
        })?;
        Ok(count)
    }
}

/// Finds the image files of the archive at `path`, which errors call `given`.
///
/// An archive that is cut short or damaged, or is not a tar archive at all, is read up to that point and noted as
/// broken. So is one with zeros where there should be entries, but reading goes on after them. If only the mark at the
/// end is missing, the archive may be whole, as some writers leave it out, or cut between two entries: it is noted as
/// doubtful. Half of the mark counts as an end.
///
/// # Errors
/// [`DataError`] if the archive cannot be opened, or an I/O error stops the scan. An archive without images is no error
/// here.
pub(crate) fn scan(path: &Path, given: &Path) -> Result<Members, DataError> {
    let io = |e| DataError::io(given, e);
    let packing = Packing::of(path).map_err(io)?;
    let (mut found, fault) = (Found::default(), Fault::default());
    found.members.packing = packing;
    let end = match packing {
        Packing::None => {
            let file = File::open(path).map_err(io)?;
            let len = file.metadata().map_err(io)?.len();
            found.end = Some(len);
            found.total = len;
            let mut archive = Archive::new(Watched::new(Cursor::new(Arc::new(file), 0, len), &fault));
            archive.set_ignore_zeros(true);
            archive.entries_with_seek().and_then(|entries| found.walk(entries.raw(true)))
        }
        packing => found.unpack(decompressed(path, packing, &fault).map_err(io)?),
    };
    found.finish(given, end, &fault)
}

#[derive(Default)]
struct Found {
    members: Members,
    /// Labels by the name of their sample.
    labels: HashMap<Vec<u8>, u32>,
    /// The size of the archive in bytes; for a compressed one, the decompressed bytes read.
    total: u64,
    /// The size, where it was known before reading.
    end: Option<u64>,
    entries: usize,
    /// Where the next entry, or the mark of the end, begins.
    next: u64,
    /// Where the archive begins; of concatenated archives, the last one.
    start: u64,
    /// The message about the first unexpected zeros between entries.
    hole: Option<String>,
}

impl Found {
    fn unpack(&mut self, archive: impl Read) -> std::io::Result<()> {
        let mut archive = Archive::new(Counted { inner: archive, count: 0 });
        archive.set_ignore_zeros(true);
        let end = archive.entries().and_then(|entries| self.walk(entries.raw(true)));
        self.total = archive.into_inner().count;
        end
    }

    fn walk<R: Read>(&mut self, entries: tar::Entries<'_, R>) -> std::io::Result<()> {
        // A long name precedes the entry that it belongs to.
        let mut name: Option<Vec<u8>> = None;
        for entry in entries {
            let mut entry = entry?;
            self.pass_zeros(entry.raw_header_position());
            let blocks = entry.header().entry_size()?.div_ceil(BLOCK);
            self.next = entry.raw_file_position().saturating_add(blocks.saturating_mul(BLOCK));
            let kind = entry.header().entry_type();
            match kind {
                EntryType::GNULongName => {
                    let mut long = note(&mut entry)?;
                    long.truncate(long.iter().position(|&byte| byte == 0).unwrap_or(long.len()));
                    name = Some(long);
                    continue;
                }
                EntryType::XHeader => {
                    let extended = note(&mut entry)?;
                    name = name.or(pax_path(&extended)?);
                    continue;
                }
                EntryType::GNULongLink | EntryType::XGlobalHeader => continue,
                _ => {}
            }
            self.entries += 1;
            let name = name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
            let name = name.strip_prefix(b"./").unwrap_or(&name);
            if kind.is_dir() || is_hidden(name) {
                continue;
            }
            let (at, len) = (entry.raw_file_position(), entry.header().size()?);
            if !kind.is_file() && kind != EntryType::Continuous {
                self.leave_out(name, "not a regular file");
            } else if extension(name) == b"cls" {
                self.label(name, &note(&mut entry)?);
            } else if !is_image_name(name) {
                // WebDataset stores these beside images: they are no surprise.
                if extension(name) != b"json" && extension(name) != b"txt" {
                    self.leave_out(name, "not an image, by its name");
                }
            } else if self.end.is_some_and(|end| at.checked_add(len).is_none_or(|last| last > end)) {
                self.leave_out(name, "reaches beyond the end of the archive, which is cut short");
            } else {
                self.members.names.push(name);
                self.members.offsets.push(at);
                self.members.lens.push(len);
            }
        }
        Ok(())
    }

    /// Checks the zeros, if any, before the entry header at `header`: they end one archive, or are a hole.
    fn pass_zeros(&mut self, header: u64) {
        let zeros = header.saturating_sub(self.next);
        if zeros == 0 {
            return;
        }
        if (MARK..record(header - self.start) + MARK).contains(&zeros) {
            self.start = header;
        } else if self.hole.is_none() {
            self.hole = Some(format!(
                "{zeros} bytes of zeros at byte {} of the archive, after entry {}, but it goes on: entries may be missing there",
                self.next, self.entries
            ));
        }
    }

    fn label(&mut self, name: &[u8], text: &[u8]) {
        let label = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<u32>().ok());
        match label.filter(|&label| label <= MAX_LABEL) {
            Some(label) => {
                self.labels.insert(sample(name).to_vec(), label);
            }
            None => self.leave_out(name, &format!("a label that is not a number from 0 to {MAX_LABEL}")),
        }
    }

    fn leave_out(&mut self, name: &[u8], reason: &str) {
        self.members.left_out.push(name_of(name), reason);
    }

    /// Returns what was found; `end` is how the walk ended.
    fn finish(self, path: &Path, end: std::io::Result<()>, fault: &Fault) -> Result<Members, DataError> {
        // After an I/O error the rest may be readable another time: do not take this for a short archive.
        if let Some(error) = fault.get() {
            return Err(DataError::io(path, error));
        }
        let Self { mut members, labels, entries, total, next, start, hole, end: known } = self;
        let zeros = total.saturating_sub(next);
        let wrong = match end {
            Ok(()) if total == 0 && known.is_none() => Some("the archive unpacks to nothing".to_owned()),
            Ok(()) if total == 0 => Some("the file is empty, as after a download that broke off".to_owned()),
            Err(error) if entries == 0 => Some(format!("not read as a tar archive: {error}")),
            // Only for a stream is it known how far it was read.
            Err(error) if known.is_none() && zeros >= MARK => Some(format!(
                "damaged: zeros follow entry {entries}, but the archive does not end there as it should ({error})"
            )),
            Err(error) => {
                Some(format!("the archive is cut short or damaged after entry {entries} ({error})"))
            }
            Ok(()) if next > total => {
                Some(format!("the archive is cut short: it ends within entry {entries}"))
            }
            Ok(()) if zeros >= record(total - start).max(RECORD) + MARK => Some(format!(
                "the archive is cut short or damaged: {zeros} bytes of zeros follow entry {entries}"
            )),
            Ok(()) => None,
        };
        members.doubt = (wrong.is_none() && zeros < BLOCK).then(|| {
            format!(
                "the archive ends after entry {entries} without the mark of its end (two blocks of zeros): it may be cut short there"
            )
        });
        let reasons: Vec<String> = hole.into_iter().chain(wrong).collect();
        members.broken = (!reasons.is_empty()).then(|| reasons.join("; "));
        if !labels.is_empty() {
            let of = |name| labels.get(sample(name)).copied().unwrap_or(NO_LABEL);
            members.labels = members.names.iter().map(of).collect();
        }
        members.names.shrink_to_fit();
        members.offsets.shrink_to_fit();
        members.lens.shrink_to_fit();
        Ok(members)
    }
}

/// The largest record size that an archive of `len` bytes may have: writers fill up the last record with zeros, and do
/// not say how large their records are.
fn record(len: u64) -> u64 {
    let power = 1 << len.trailing_zeros().min(MAX_RECORD.trailing_zeros());
    if len.is_multiple_of(RECORD) { RECORD.max(power) } else { power }
}

/// A path up to the first dot of its last component.
fn sample(name: &[u8]) -> &[u8] {
    let start = folder_of(name).len();
    let dot = name[start..].iter().position(|&byte| byte == b'.');
    &name[..dot.map_or(name.len(), |dot| start + dot)]
}

/// Reads the contents of an entry that should be short.
fn note<R: Read>(entry: &mut tar::Entry<'_, R>) -> std::io::Result<Vec<u8>> {
    let len = entry.header().size()?;
    if len > MAX_NOTE {
        return Err(std::io::Error::other(format!("a name or label of {len} bytes; refused")));
    }
    let mut bytes = Vec::new();
    entry.take(MAX_NOTE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The path in an extended header. Sizes of 8 GiB or more, which only such a header can state, are refused: they would
/// misplace all that follows.
fn pax_path(extended: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    let mut path = None;
    for extension in PaxExtensions::new(extended) {
        let extension = extension?;
        match extension.key_bytes() {
            b"path" => path = Some(extension.value_bytes().to_vec()),
            b"size" => {
                let size: Option<u64> = extension.value().ok().and_then(|size| size.parse().ok());
                if size.is_none_or(|size| size >= 8 << 30) {
                    return Err(std::io::Error::other("an entry of 8 GiB or more, which is not read"));
                }
            }
            _ => {}
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_the_system_breaks_off_is_not_taken_for_a_short_one() {
        /// Fails where its bytes end.
        struct Failing(std::io::Cursor<Vec<u8>>);
        impl Read for Failing {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                match self.0.read(out)? {
                    0 => Err(std::io::Error::from_raw_os_error(5)),
                    count => Ok(count),
                }
            }
        }
        let mut builder = tar::Builder::new(Vec::new());
        for name in ["a.jpg", "b.jpg"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(200_000);
            builder.append_data(&mut header, name, std::io::repeat(7).take(200_000)).unwrap();
        }
        let plain = builder.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        std::io::Write::write_all(&mut gzip, &plain).unwrap();
        let level = ruzstd::encoding::CompressionLevel::Uncompressed;
        let packed = [
            (Packing::Zstd, ruzstd::encoding::compress_to_vec(&plain[..], level)),
            (Packing::Gzip, gzip.finish().unwrap()),
            (Packing::None, plain),
        ];
        for (packing, bytes) in packed {
            let scan = |bytes: &[u8], fails: bool| {
                let (mut found, fault) = (Found::default(), Fault::default());
                let bytes = std::io::Cursor::new(bytes.to_vec());
                let reader: Box<dyn Read + Send> =
                    if fails { Box::new(Watched::new(Failing(bytes), &fault)) } else { Box::new(bytes) };
                let end = found.unpack(unpacked(reader, 1 << 20, packing));
                found.finish(Path::new("a.tar"), end, &fault)
            };
            assert_eq!(scan(&bytes, false).unwrap().names.len(), 2, "{packing:?}");
            let part = &bytes[..bytes.len() * 2 / 5];
            let cut = scan(part, false);
            assert!(!matches!(cut, Err(DataError::Io { .. })), "{packing:?}: {cut:?}");
            let error = scan(part, true).unwrap_err();
            let DataError::Io { source, .. } = &error else { panic!("{packing:?}: {error}") };
            assert_eq!(source.raw_os_error(), Some(5));
        }
    }

    #[test]
    fn samples_end_at_the_first_dot_of_the_name() {
        assert_eq!(sample(b"a.b/0017.seg.png"), b"a.b/0017");
        assert_eq!(sample(b"0017"), b"0017");
    }
}
