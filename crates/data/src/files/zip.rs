//! Image files in a zip archive, with random access through the archive's directory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Crc;
use flate2::read::DeflateDecoder;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::Files;
use super::archive::{Opened, by_folders, is_hidden};
use crate::decode::{DecodeOptions, check_file_bytes, read_sample};
use crate::error::{DataError, name_of};
use crate::fault::{Unread, probe_range};
use crate::layout::{Root, folder_of};
use crate::listing::{LeftOut, is_image_name};
use crate::names::Names;
use crate::positioned::{Cursor, read_range};

#[derive(Clone, Copy, Debug)]
struct Member {
    at: u64,
    packed: u64,
    bytes: u64,
    checksum: u32,
    deflated: bool,
}

/// The image files of a zip archive, sorted by path.
struct ZipFiles {
    path: PathBuf,
    file: Arc<File>,
    names: Names,
    members: Vec<Member>,
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

    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let member = self.members[index];
        check_file_bytes(member.bytes)?;
        if member.deflated {
            inflate(
                Cursor::new(Arc::clone(&self.file), member.at, member.at + member.packed),
                member.bytes,
                out,
            )?;
        } else {
            read_range(&self.file, member.at, member.bytes, out)?;
        }
        let mut checksum = Crc::new();
        checksum.update(out);
        match checksum.sum() == member.checksum {
            true => Ok(()),
            false => Err("damaged: it does not match its checksum in the archive".to_owned()),
        }
    }

    fn sample(&self, index: usize, out: &mut Vec<u8>) -> Result<bool, String> {
        match self.members[index] {
            Member { deflated: true, .. } => Ok(false),
            Member { at, bytes, .. } => read_sample(&self.file, at, bytes, out),
        }
    }

    fn probe(&self, index: usize) -> Result<(), Unread> {
        let Member { at, packed, .. } = self.members[index];
        probe_range(&self.file, at, packed).map_err(|source| Unread {
            path: self.path.clone(),
            source,
            whole: false,
        })
    }
}

/// Inflates `packed` into `out`. The result must have `bytes` bytes; inflating stops beyond that.
fn inflate(packed: Cursor, bytes: u64, out: &mut Vec<u8>) -> Result<(), String> {
    out.clear();
    // The declared size may be wrong: allocate no more than this before the data prove it.
    out.try_reserve(bytes.min(16 << 20) as usize).map_err(|_| format!("no memory for its {bytes} bytes"))?;
    DeflateDecoder::new(BufReader::new(packed))
        .take(bytes + 1)
        .read_to_end(out)
        .map_err(|error| format!("damaged in the archive: {error}"))?;
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
    let mut archive = ZipArchive::new(BufReader::new(again)).map_err(|error| bad(error.to_string()))?;
    let mut left_out = LeftOut::default();
    if archive.has_duplicate_names() {
        let reason = "have the same name as a later entry, and only the last is read";
        left_out.push("one or more entries".to_owned(), reason);
    }
    let mut found: Vec<(Vec<u8>, Member)> = Vec::new();
    for number in 0..archive.len() {
        let entry = match archive.by_index_raw(number) {
            Ok(entry) => entry,
            Err(ZipError::Io(error)) if error.raw_os_error().is_some() => {
                return Err(DataError::io(path, error));
            }
            Err(error) => {
                left_out.push(format!("entry {number}"), error.to_string());
                continue;
            }
        };
        // Some programs for Windows write backslashes.
        let name: Vec<u8> =
            entry.name_raw().iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect();
        let for_macs = name.split(|&byte| byte == b'/').any(|part| part == b"__MACOSX");
        if name.ends_with(b"/") || for_macs || is_hidden(&name) {
            continue;
        }
        let packed = entry.compressed_size();
        let place = entry.data_start().filter(|at| at.checked_add(packed).is_some_and(|end| end <= len));
        let usable = match (place, entry.compression()) {
            _ if !is_image_name(&name) => Err("not an image, by its name".to_owned()),
            _ if entry.encrypted() => Err("is encrypted; expected an archive without a password".to_owned()),
            (None, _) => Err("lies beyond the end of the archive".to_owned()),
            (Some(at), CompressionMethod::Stored) if packed == entry.size() => Ok((at, false)),
            (Some(at), CompressionMethod::Deflated) => Ok((at, true)),
            (_, CompressionMethod::Stored) => Err(format!(
                "damaged in the archive: stored without compression in {packed} bytes, but declares {}",
                entry.size()
            )),
            (_, method) => Err(format!("is compressed by {method}; expected deflate or no compression")),
        };
        match usable {
            Ok((at, deflated)) => {
                let member = Member { at, packed, bytes: entry.size(), checksum: entry.crc32(), deflated };
                found.push((name, member));
            }
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
    let files =
        Arc::new(ZipFiles { path: path.to_owned(), file: Arc::new(file), names: names.clone(), members });
    let folders: Vec<&[u8]> = names.iter().map(folder_of).collect();
    Ok(by_folders(files, &folders, Root::Common, left_out, options))
}
