//! Image files in a zip archive, with random access through the archive's directory.
//!
//! Opening an archive reads only its directory, which tells where the local header of each entry is. The data follow
//! that header, whose length the directory does not tell, so it is read together with the data, each time.

use std::fs::File;
use std::io::{BufReader, Read, Take};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use zip::read::ZipFileEntry;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::Files;
use super::archive::{Opened, by_folders, is_hidden};
use crate::decode::{Claim, DecodeOptions, read_sample, room_for_file};
use crate::error::{DataError, name_of};
use crate::fault::{Unread, probe_range};
use crate::layout::{Root, folder_of};
use crate::listing::{LeftOut, is_image_name};
use crate::names::Names;
use crate::positioned::Cursor;

/// The length of a local header, in bytes, without the name and the extra fields that follow it.
const HEADER: usize = 30;
const SIGNATURE: &[u8] = b"PK\x03\x04";
/// Bytes of extra fields that are read together with the data; few entries have more.
const EXTRA: u64 = 64;
/// The most that is read at once, in bytes.
const AT_ONCE: u64 = 1 << 20;

const BEYOND: &str = "lies beyond the end of the archive";

#[derive(Clone, Copy, Debug)]
struct Member {
    /// Where its local header begins.
    header: u64,
    packed: u64,
    bytes: u64,
    checksum: u32,
    deflated: bool,
}

/// The image files of a zip archive, sorted by path.
struct ZipFiles {
    path: PathBuf,
    file: Arc<File>,
    /// The size of the archive in bytes.
    len: u64,
    names: Names,
    members: Vec<Member>,
}

impl ZipFiles {
    /// The data of a member, as stored.
    fn data(&self, index: usize) -> Result<Take<BufReader<Cursor>>, String> {
        let Member { header, packed, .. } = self.members[index];
        let whole = (HEADER + self.names.get(index).len()) as u64 + EXTRA + packed;
        let rest = Cursor::new(Arc::clone(&self.file), header, self.len);
        let mut reader = BufReader::with_capacity(whole.min(AT_ONCE) as usize, rest);
        let start = pass_header(&mut reader)?;
        match self.len.saturating_sub(header + start) < packed {
            true => Err(BEYOND.to_owned()),
            false => Ok(reader.take(packed)),
        }
    }
}

/// Passes over a local header, and returns how long it is. Its name and its extra fields need not be those of the
/// directory.
fn pass_header(reader: &mut impl Read) -> Result<u64, String> {
    let damaged = |error: std::io::Error| format!("damaged in the archive: {error}");
    let mut header = [0; HEADER];
    reader.read_exact(&mut header).map_err(damaged)?;
    if !header.starts_with(SIGNATURE) {
        return Err("damaged in the archive: it does not begin with a local header".to_owned());
    }
    let length = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let rest = length(26) + length(28);
    std::io::copy(&mut reader.take(rest), &mut std::io::sink()).map_err(damaged)?;
    Ok(HEADER as u64 + rest)
}

impl Files for ZipFiles {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn name(&self, index: usize) -> String {
        name_of(self.names.get(index))
    }

    fn bytes(&self, index: usize) -> Option<u64> {
        Some(self.members[index].bytes)
    }

    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<Claim, String> {
        let member = self.members[index];
        let room = room_for_file(member.bytes)?;
        let data = self.data(index)?;
        match member.deflated {
            true => unpack(DeflateDecoder::new(data), member.bytes, out)?,
            false => unpack(data, member.bytes, out)?,
        }
        let mut checksum = Crc::new();
        checksum.update(out);
        match checksum.sum() == member.checksum {
            true => Ok(room),
            false => Err("damaged: it does not match its checksum in the archive".to_owned()),
        }
    }

    fn sample(&self, index: usize, out: &mut Vec<u8>) -> Result<bool, String> {
        let Member { header, bytes, deflated, .. } = self.members[index];
        if deflated {
            return Ok(false);
        }
        let start = pass_header(&mut Cursor::new(Arc::clone(&self.file), header, self.len))?;
        read_sample(&self.file, header + start, bytes, out)
    }

    fn probe(&self, index: usize) -> Result<(), Unread> {
        let Member { header, packed, .. } = self.members[index];
        probe_range(&self.file, header, HEADER as u64 + packed).map_err(|source| Unread {
            path: self.path.clone(),
            source,
            whole: false,
        })
    }
}

/// Reads the `data` of a member into `out`. They must have `bytes` bytes; reading stops beyond that.
fn unpack(data: impl Read, bytes: u64, out: &mut Vec<u8>) -> Result<(), String> {
    out.clear();
    // The declared size may be wrong: allocate no more than this before the data prove it.
    out.try_reserve(bytes.min(16 << 20) as usize).map_err(|_| format!("no memory for its {bytes} bytes"))?;
    data.take(bytes + 1).read_to_end(out).map_err(|error| format!("damaged in the archive: {error}"))?;
    match out.len() as u64 == bytes {
        true => Ok(()),
        false => Err(format!("damaged in the archive: it does not hold the {bytes} bytes that it declares")),
    }
}

/// Opens the zip archive at `path`.
pub(crate) fn open(path: &Path, options: DecodeOptions) -> Result<Opened, DataError> {
    let file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let len = file.metadata().map_err(|e| DataError::io(path, e))?.len();
    let again = File::open(path).map_err(|e| DataError::io(path, e))?;
    let bad = |error: String| {
        DataError::malformed(
            path,
            format!("not read as a zip archive; it may be damaged or not one at all: {error}"),
        )
    };
    if len == 0 {
        return Err(DataError::malformed(path, "the file is empty; expected a zip archive"));
    }
    let archive = ZipArchive::new(BufReader::new(again)).map_err(|error| match error {
        ZipError::InvalidArchive(reason) if reason.contains("EOCD") => {
            bad("it lacks the directory that a whole one ends with".to_owned())
        }
        error => bad(error.to_string()),
    })?;
    let mut left_out = LeftOut::default();
    if archive.has_duplicate_names() {
        let reason = "have the same name as a later entry, and only the last is read";
        left_out.push("one or more entries".to_owned(), reason);
    }
    let mut found: Vec<(Vec<u8>, Member)> = Vec::new();
    for number in 0..archive.len() {
        let entry = archive.by_index_data(number).map_err(|error| bad(error.to_string()))?;
        // Some programs for Windows write backslashes.
        let name: Vec<u8> =
            entry.name_raw().iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect();
        let for_macs = name.split(|&byte| byte == b'/').any(|part| part == b"__MACOSX");
        if name.ends_with(b"/") || for_macs || is_hidden(&name) {
            continue;
        }
        match member_of(&entry, &name, len) {
            Ok(member) => found.push((name, member)),
            Err(reason) => left_out.push(name_of(&name), reason),
        }
    }
    if found.is_empty() {
        return Err(DataError::NoImages { path: path.to_owned(), left_out: Box::new(left_out) });
    }
    // Sorted as a folder is: component by component.
    found.sort_by(|(a, _), (b, _)| a.split(|&byte| byte == b'/').cmp(b.split(|&byte| byte == b'/')));
    let mut names = Names::default();
    found.iter().for_each(|(name, _)| names.push(name));
    names.shrink_to_fit();
    let members = found.into_iter().map(|(_, member)| member).collect();
    let files = Arc::new(ZipFiles {
        path: path.to_owned(),
        file: Arc::new(file),
        len,
        names: names.clone(),
        members,
    });
    let folders: Vec<&[u8]> = names.iter().map(folder_of).collect();
    Ok(by_folders(files, &folders, Root::Common, left_out, options))
}

/// The member that is `entry` of an archive of `len` bytes, or why it is left out; `name` is its name with slashes.
fn member_of(entry: &ZipFileEntry<'_>, name: &[u8], len: u64) -> Result<Member, String> {
    let packed = entry.compressed_size();
    let header = entry.header_start();
    let least = header.checked_add(HEADER as u64).and_then(|start| start.checked_add(packed));
    let deflated = match entry.compression() {
        _ if !is_image_name(name) => return Err("not an image, by its name".to_owned()),
        _ if entry.encrypted() => {
            return Err("is encrypted; expected an archive without a password".to_owned());
        }
        _ if least.is_none_or(|end| end > len) => return Err(BEYOND.to_owned()),
        CompressionMethod::Stored if packed == entry.size() => false,
        CompressionMethod::Deflated => true,
        CompressionMethod::Stored => {
            return Err(format!(
                "damaged in the archive: stored without compression in {packed} bytes, but declares {}",
                entry.size()
            ));
        }
        method => return Err(format!("is compressed by {method}; expected deflate or no compression")),
    };
    Ok(Member { header, packed, bytes: entry.size(), checksum: entry.crc32(), deflated })
}
