//! The format of an index: numbers as LEB128, byte strings after their length, and a checksum.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Entry, Members};
use crate::files::tar::Packing;
use crate::listing::{LeftOut, LeftOutFile, Listing, REMEMBERED, Stamp};
use crate::mark::Mark;
use crate::names::{Names, Paths, bytes_of, os_name};

const MAGIC: &[u8] = b"simclr index 9\n";

pub(super) fn encode(entries: &BTreeMap<PathBuf, Entry>) -> Vec<u8> {
    let mut out = Writer(MAGIC.to_vec());
    out.number(entries.len() as u64);
    for (path, entry) in entries {
        let path = bytes_of(path.as_os_str()).unwrap_or_default();
        match entry {
            Entry::Folder { listed, listing } => {
                out.number(0);
                out.bytes(path);
                out.number(*listed);
                out.paths(&listing.images);
                out.paths(&listing.archives);
                out.left_out(&listing.left_out);
                out.number(listing.stamps.len() as u64);
                for stamp in &listing.stamps {
                    out.bytes(&stamp.path);
                    out.mark(&stamp.mark);
                }
            }
            Entry::Archive { len, mark, members } => {
                out.number(1);
                out.bytes(path);
                out.number(*len);
                out.mark(mark);
                out.number(members.packing as u64);
                out.names(&members.names);
                out.numbers(members.offsets.iter().copied());
                out.numbers(members.lens.iter().copied());
                out.numbers(members.labels.iter().map(|&label| label.into()));
                out.left_out(&members.left_out);
                out.bytes(members.broken.as_deref().unwrap_or_default().as_bytes());
                out.bytes(members.doubt.as_deref().unwrap_or_default().as_bytes());
            }
        }
    }
    let checksum = crc32c::crc32c(&out.0);
    out.0.extend(checksum.to_le_bytes());
    out.0
}

pub(super) fn decode(bytes: &[u8]) -> Option<BTreeMap<PathBuf, Entry>> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let mut input = Reader(body.strip_prefix(MAGIC)?);
    let count = input.number()?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let kind = input.number()?;
        let path = os_name(input.bytes()?).into();
        let entry = match kind {
            0 => Entry::Folder {
                listed: input.number()?,
                listing: Arc::new(Listing {
                    images: input.paths()?,
                    archives: input.paths()?,
                    left_out: input.left_out()?,
                    stamps: (0..input.number()?)
                        .map(|_| Some(Stamp { path: input.bytes()?.to_vec(), mark: input.mark()? }))
                        .collect::<Option<_>>()?,
                    passing: false,
                }),
            },
            1 => {
                let (len, mark) = (input.number()?, input.mark()?);
                let packing = input.number()?;
                let members = Members {
                    packing: Packing::ALL.into_iter().find(|&known| known as u64 == packing)?,
                    names: input.names()?,
                    offsets: input.numbers()?,
                    lens: input.numbers()?,
                    labels: input
                        .numbers()?
                        .into_iter()
                        .map(|n| u32::try_from(n).ok())
                        .collect::<Option<_>>()?,
                    left_out: input.left_out()?,
                    broken: Some(input.text()?).filter(|reason| !reason.is_empty()),
                    doubt: Some(input.text()?).filter(|reason| !reason.is_empty()),
                };
                let images = members.names.len();
                let whole = members.offsets.len() == images
                    && members.lens.len() == images
                    && (members.labels.is_empty() || members.labels.len() == images);
                Entry::Archive { len, mark, members: Arc::new(whole.then_some(members)?) }
            }
            _ => return None,
        };
        entries.insert(path, entry);
    }
    input.0.is_empty().then_some(entries)
}

/// Writes numbers as LEB128, and byte strings after their length.
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn mark(&mut self, mark: &Mark) {
        [mark.modified, mark.changed, mark.inode].into_iter().for_each(|number| self.number(number));
    }

    fn numbers(&mut self, numbers: impl ExactSizeIterator<Item = u64>) {
        self.number(numbers.len() as u64);
        numbers.for_each(|number| self.number(number));
    }

    fn names(&mut self, names: &Names) {
        self.number(names.len() as u64);
        names.iter().for_each(|name| self.bytes(name));
    }

    fn paths(&mut self, paths: &Paths) {
        self.names(&paths.folders);
        self.numbers(paths.folder_of.iter().map(|&folder| folder.into()));
        self.names(&paths.files);
    }

    /// Leaves out the other fields: listings with something broken are not kept, what is wrong with an
    /// archive is stored in `Members`, and parts are worked out later.
    fn left_out(&mut self, left_out: &LeftOut) {
        self.number(left_out.count as u64);
        self.number(left_out.files.len() as u64);
        for file in &left_out.files {
            self.bytes(file.name.as_bytes());
            self.bytes(file.reason.as_bytes());
        }
    }
}

/// Reads what [`Writer`] wrote; `None` if the bytes are something else. Memory is allocated only for data that are
/// there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn mark(&mut self) -> Option<Mark> {
        Some(Mark { modified: self.number()?, changed: self.number()?, inode: self.number()? })
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn numbers(&mut self) -> Option<Vec<u64>> {
        let count = self.number()?;
        (0..count).map(|_| self.number()).collect()
    }

    fn names(&mut self) -> Option<Names> {
        let mut names = Names::default();
        for _ in 0..self.number()? {
            names.push(self.bytes()?);
        }
        names.shrink_to_fit();
        Some(names)
    }

    fn paths(&mut self) -> Option<Paths> {
        let folders = self.names()?;
        let mut folder_of = Vec::new();
        for _ in 0..self.number()? {
            folder_of.push(
                u32::try_from(self.number()?).ok().filter(|&folder| (folder as usize) < folders.len())?,
            );
        }
        folder_of.shrink_to_fit();
        let files = self.names()?;
        (files.len() == folder_of.len()).then_some(Paths { folders, folder_of, files })
    }

    fn left_out(&mut self) -> Option<LeftOut> {
        let count = usize::try_from(self.number()?).ok()?;
        let mut files = Vec::new();
        for _ in 0..self.number()? {
            files.push(LeftOutFile { name: self.text()?, reason: self.text()? });
        }
        // `LeftOut::extend` relies on there being no more than `REMEMBERED`.
        (files.len() <= count.min(REMEMBERED)).then_some(LeftOut { count, files, ..LeftOut::default() })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn entries() -> BTreeMap<PathBuf, Entry> {
        let mut names = Names::default();
        names.push(b"a.jpg");
        names.push(b"b/c.png");
        let mut images = Paths::default();
        images.folders.push(b"");
        images.folders.push(b"deep/er");
        images.push(0, b"x.jpg");
        images.push(1, b"y.jpg");
        let mut left_out = LeftOut::default();
        left_out.push("n.txt".to_owned(), "not an image (.txt)");
        let stamps =
            vec![Stamp { path: b"deep".to_vec(), mark: Mark { modified: u64::MAX, changed: 0, inode: 7 } }];
        let listing = Listing {
            images,
            archives: Paths::default(),
            left_out: left_out.clone(),
            stamps,
            passing: false,
        };
        let members = Members {
            packing: Packing::Zstd,
            names,
            offsets: vec![512, 1 << 40],
            lens: vec![0, 300],
            labels: vec![7, u32::MAX],
            left_out,
            broken: Some("torn".to_owned()),
            doubt: Some("without an end".to_owned()),
        };
        BTreeMap::from([
            ("/data".into(), Entry::Folder { listed: 12345, listing: Arc::new(listing) }),
            (
                "/a.tar".into(),
                Entry::Archive {
                    len: 3,
                    mark: Mark { modified: 4, changed: 5, inode: 6 },
                    members: Arc::new(members),
                },
            ),
        ])
    }

    #[test]
    fn an_index_comes_back() {
        let bytes = encode(&entries());
        assert_eq!(format!("{:?}", decode(&bytes).unwrap()), format!("{:?}", entries()));
    }

    #[test]
    fn a_damaged_index_is_none() {
        let bytes = encode(&entries());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            assert!(decode(&damaged).is_none(), "byte {at}");
            assert!(decode(&bytes[..at]).is_none(), "cut at {at}");
            // With its checksum corrected it may mean something else, but must never panic.
            let checked = damaged.len() - 4;
            let checksum = crc32c::crc32c(&damaged[..checked]);
            damaged[checked..].copy_from_slice(&checksum.to_le_bytes());
            let _ = decode(&damaged);
        }
    }
}
