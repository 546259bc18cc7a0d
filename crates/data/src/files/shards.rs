//! Tar shards (WebDataset), one or many, as one data set.
//!
//! Uncompressed shards allow random access, so every order costs the same. Compressed ones are read from their
//! beginning, a block of members at a time (see `locality`).

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::archive::{Opened, by_folders, numbered};
use super::blocks::{Block, BlockReader, Strands};
use super::parts::{Parts, Unnamed, file_name};
use super::tar::{Packing, decompressed, scan};
use super::{Files, ImageFiles};
use crate::decode::{Claim, DecodeOptions, MAX_FILE_BYTES, check_file_bytes, read_sample, room_for_file};
use crate::error::{DataError, name_of};
use crate::fault::{Fault, Unread, probe_range};
use crate::index::{Index, Members, Scanned};
use crate::layout::{Root, arrange, folder_of};
use crate::listing::LeftOut;
use crate::loader::NO_LABEL;
use crate::locality::{BLOCK_BYTES, Blocks, Locality};
use crate::mark::Mark;
use crate::positioned::read_range;

struct Shard {
    path: PathBuf,
    members: Arc<Members>,
    /// Its length in bytes, and when it was last modified, when its members were found.
    was: (u64, u64),
    /// The number of its first member among those of all shards.
    first: u32,
    /// The file, once it was read, if it is one of those that stay open.
    open: OnceLock<File>,
}

/// The most shards of a process that stay open: a data set may have more than a process may have open files.
const MOST_OPEN: usize = 128;

/// The most that stay open here. Of the files that the system lets the process open, three quarters are left to others.
fn most_open() -> usize {
    #[cfg(unix)]
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let limit: Option<u64> = None;
    limit.and_then(|limit| usize::try_from(limit / 4).ok()).map_or(MOST_OPEN, |few| few.min(MOST_OPEN))
}

/// The shards that stay open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

impl Shard {
    /// Opens its file, if that is still the one whose members were found: in another they lie elsewhere.
    fn open_file(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        self.check(&file.metadata()?)?;
        Ok(file)
    }

    /// Other times and numbers than these two change as well when a file goes and comes back.
    fn check(&self, now: &Metadata) -> io::Result<()> {
        match (now.len(), Mark::of(now).modified) == self.was {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "has changed since it was opened")),
        }
    }

    /// Passes its file to `read`.
    fn with_file<T>(&self, mut read: impl FnMut(&File) -> Result<T, String>) -> Result<T, String> {
        // What fails may succeed with a file that is opened anew, on a network drive that was away.
        if let Some(done) = self.open.get().and_then(|file| read(file).ok()) {
            return Ok(done);
        }
        let file = self.open_file().map_err(|error| error.to_string())?;
        let done = read(&file)?;
        if OPEN.fetch_add(1, Ordering::Relaxed) >= most_open() || self.open.set(file).is_err() {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(done)
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        OPEN.fetch_sub(self.open.get().map_or(0, |_| 1), Ordering::Relaxed);
    }
}

/// The members of several shards, one after another.
struct Shards {
    shards: Vec<Shard>,
    len: usize,
}

impl Shards {
    fn find(&self, index: usize) -> (&Shard, usize) {
        let shard = &self.shards[self.shards.partition_point(|shard| shard.first as usize <= index) - 1];
        (shard, index - shard.first as usize)
    }

    fn name(&self, index: usize) -> String {
        let (shard, member) = self.find(index);
        let name = name_of(shard.members.names.get(member));
        match self.shards.len() {
            1 => name,
            _ => format!("{}/{name}", file_name(&shard.path)),
        }
    }

    fn bytes(&self, index: usize) -> u64 {
        let (shard, member) = self.find(index);
        shard.members.lens[member]
    }

    fn read_plain(&self, index: usize, out: &mut Vec<u8>) -> Result<Claim, String> {
        let (shard, member) = self.find(index);
        let len = shard.members.lens[member];
        let room = room_for_file(len)?;
        shard.with_file(|file| read_range(file, shard.members.offsets[member], len, out))?;
        Ok(room)
    }

    fn sample_plain(&self, index: usize, out: &mut Vec<u8>) -> Result<bool, String> {
        let (shard, member) = self.find(index);
        let (at, len) = (shard.members.offsets[member], shard.members.lens[member]);
        shard.with_file(|file| read_sample(file, at, len, out))
    }

    fn probe_plain(&self, index: usize) -> Result<(), Unread> {
        let (shard, member) = self.find(index);
        let unread = |source, whole| Unread { path: shard.path.clone(), source, whole };
        let file = shard.open_file().map_err(|error| unread(error, true))?;
        probe_range(&Arc::new(file), shard.members.offsets[member], shard.members.lens[member])
            .map_err(|error| unread(error, false))
    }

    /// Fails if the shard is not the one that it was.
    fn probe_packed(&self, index: usize) -> Result<(), Unread> {
        let shard = self.find(index).0;
        let now = shard.path.metadata().and_then(|now| shard.check(&now));
        let changed = now.err().filter(|error| error.kind() == io::ErrorKind::InvalidData);
        changed.map_or(Ok(()), |source| Err(Unread { path: shard.path.clone(), source, whole: true }))
    }
}

/// Shards none of which is compressed.
struct PlainShards(Shards);

impl Files for PlainShards {
    fn len(&self) -> usize {
        self.0.len
    }

    fn name(&self, index: usize) -> String {
        self.0.name(index)
    }

    fn bytes(&self, index: usize) -> Option<u64> {
        Some(self.0.bytes(index))
    }

    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<Claim, String> {
        self.0.read_plain(index, out)
    }

    fn sample(&self, index: usize, out: &mut Vec<u8>) -> Result<bool, String> {
        self.0.sample_plain(index, out)
    }

    fn probe(&self, index: usize) -> Result<(), Unread> {
        self.0.probe_plain(index)
    }
}

/// Shards some of which are compressed. A shard is a strand.
struct PackedShards {
    shards: Shards,
    blocks: Arc<Blocks>,
}

impl PackedShards {
    fn new(shards: Shards) -> Self {
        let mut blocks = Blocks { len: shards.len as u32, ..Blocks::default() };
        for shard in &shards.shards {
            let Members { offsets, lens, .. } = &*shard.members;
            if !offsets.is_empty() {
                blocks.strands.push(blocks.starts.len() as u32);
            }
            let mut bytes = u64::MAX;
            for (member, len) in (0..).zip(lens) {
                // Members that are too large to be read take no room in a block.
                let len = if *len > MAX_FILE_BYTES { 0 } else { *len };
                if bytes.saturating_add(len) > BLOCK_BYTES {
                    blocks.starts.push(shard.first + member);
                    bytes = 0;
                }
                bytes += len;
            }
        }
        Self { shards, blocks: Arc::new(blocks) }
    }

    fn shard(&self, strand: usize) -> &Shard {
        let first = self.blocks.images(self.blocks.blocks_of(strand).start).start;
        self.shards.find(first as usize).0
    }
}

/// A shard being decompressed, and the position reached.
struct Unpacking {
    reader: Box<dyn Read + Send>,
    at: u64,
}

impl Unpacking {
    fn skip_to(&mut self, offset: u64) -> Result<(), String> {
        let gap = offset.checked_sub(self.at).ok_or("lies before the member that precedes it")?;
        let passed = std::io::copy(&mut self.reader.by_ref().take(gap), &mut std::io::sink())
            .map_err(|error| error.to_string())?;
        self.at += passed;
        if passed < gap { Err("the archive is cut short".to_owned()) } else { Ok(()) }
    }

    fn append(&mut self, len: u64, bytes: &mut Vec<u8>) -> Result<(), String> {
        bytes.try_reserve(len as usize).map_err(|_| format!("no memory for its {len} bytes"))?;
        let start = bytes.len();
        self.reader.by_ref().take(len).read_to_end(bytes).map_err(|error| error.to_string())?;
        let read = (bytes.len() - start) as u64;
        self.at += read;
        if read < len { Err("the archive is cut short".to_owned()) } else { Ok(()) }
    }
}

impl Strands for PackedShards {
    type Stream = Unpacking;

    fn path(&self, strand: usize) -> &Path {
        &self.shard(strand).path
    }

    fn open(&self, strand: usize, fault: &Fault) -> Result<Unpacking, String> {
        let shard = self.shard(strand);
        if let Ok(now) = shard.path.metadata() {
            shard.check(&now).map_err(|error| error.to_string())?;
        }
        let reader =
            decompressed(&shard.path, shard.members.packing, fault).map_err(|error| error.to_string())?;
        Ok(Unpacking { reader, at: 0 })
    }

    fn next(&self, stream: &mut Unpacking, number: usize) -> Result<Block, String> {
        let images = self.blocks.images(number);
        let mut block = Block::default();
        for index in images {
            let (shard, member) = self.shards.find(index as usize);
            let (offset, len) = (shard.members.offsets[member], shard.members.lens[member]);
            if let Err(reason) = check_file_bytes(len) {
                block.files.push(Err(reason));
                continue;
            }
            let start = block.bytes.len();
            // The members before a tear are whole.
            let read = stream.skip_to(offset).and_then(|()| stream.append(len, &mut block.bytes));
            if let Err(reason) = &read
                && start == 0
            {
                return Err(reason.clone());
            }
            block.files.push(read.map(|()| start..block.bytes.len()));
        }
        Ok(block)
    }
}

impl Files for BlockReader<PackedShards> {
    fn len(&self) -> usize {
        self.source().shards.len
    }

    fn name(&self, index: usize) -> String {
        self.source().shards.name(index)
    }

    fn bytes(&self, index: usize) -> Option<u64> {
        Some(self.source().shards.bytes(index))
    }

    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<Claim, String> {
        let (shard, _) = self.source().shards.find(index);
        match shard.members.packing {
            Packing::None => self.source().shards.read_plain(index, out),
            _ => BlockReader::read(self, index, out),
        }
    }

    fn sample(&self, index: usize, out: &mut Vec<u8>) -> Result<bool, String> {
        match self.source().shards.find(index).0.members.packing {
            Packing::None => self.source().shards.sample_plain(index, out),
            _ => Ok(false),
        }
    }

    fn probe(&self, index: usize) -> Result<(), Unread> {
        match self.source().shards.find(index).0.members.packing {
            Packing::None => self.source().shards.probe_plain(index),
            _ => {
                self.source().shards.probe_packed(index)?;
                BlockReader::probe(self, index)
            }
        }
    }

    fn locality(&self) -> Locality {
        Locality::blocks(Arc::clone(self.blocks()))
    }
}

/// Opens tar shards, with `threads` threads.
pub(crate) fn open(
    paths: &[PathBuf],
    unnamed: Unnamed,
    options: DecodeOptions,
    threads: usize,
    index: &mut Index,
) -> Result<Opened, DataError> {
    let mut left_out = LeftOut::default();
    let parts = Parts::of(paths, unnamed, &mut left_out);
    let train = load(&parts.train, threads, index, &mut left_out)?;
    let open = |paths: &[PathBuf]| {
        let mut left_out = LeftOut::default();
        Ok((load(paths, threads, index, &mut left_out)?, left_out))
    };
    let is_labelled = |(test, _): &(Shards, LeftOut)| test.is_labelled();
    let test = parts.open_test(|| train.is_labelled(), is_labelled, open, &mut left_out)?;
    let Some((test, more)) = test else {
        return match train.labels() {
            Some(labels) => {
                let set = ImageFiles::new(train.into_files(), numbered(labels), options);
                Ok(Opened { train: set, test: None, unlabelled: None, left_out })
            }
            None => Ok(train.by_folders(left_out, options)),
        };
    };
    left_out.extend(more);
    let (Some(train_labels), Some(test_labels)) = (train.labels(), test.labels()) else {
        let train = train.by_folders(left_out, options);
        let Opened { train: mut test, left_out, .. } = test.by_folders(train.left_out, options);
        test.relabel(train.train.classes());
        return Ok(Opened { test: Some(test), left_out, ..train });
    };
    // Both parts get the classes of both, so that a label means the same in each.
    let both: Vec<u32> = train_labels.iter().chain(&test_labels).copied().collect();
    let classes = |labels| crate::layout::Classes { labels, ..numbered(both.clone()) };
    let train = ImageFiles::new(train.into_files(), classes(train_labels), options);
    let test = ImageFiles::new(test.into_files(), classes(test_labels), options);
    Ok(Opened { train, test: Some(test), unlabelled: None, left_out })
}

fn load(
    paths: &[PathBuf],
    threads: usize,
    index: &mut Index,
    left_out: &mut LeftOut,
) -> Result<Shards, DataError> {
    let mut shards = Shards { shards: Vec::with_capacity(paths.len()), len: 0 };
    for (path, scanned) in paths.iter().zip(index.members(paths, threads, scan)?) {
        let Scanned { members, len, mark } = scanned;
        let mut own = members.left_out.clone();
        own.files.iter_mut().for_each(|file| file.name = format!("{}: {}", file_name(path), file.name));
        left_out.extend(own);
        if let Some(reason) = &members.broken {
            left_out.push_broken(file_name(path), reason);
        }
        if let Some(reason) = &members.doubt {
            left_out.push_doubtful(file_name(path), reason);
        }
        let first = u32::try_from(shards.len).map_err(|_| {
            DataError::malformed(path, format!("more than {} images in all shards", u32::MAX))
        })?;
        shards.len += members.names.len();
        let was = (len, mark.modified);
        shards.shards.push(Shard { path: path.clone(), members, was, first, open: OnceLock::new() });
    }
    match shards.len {
        0 => Err(DataError::NoImages { path: paths[0].clone(), left_out: Box::new(left_out.clone()) }),
        _ => Ok(shards),
    }
}

impl Shards {
    /// The labels of all members; `None` if no shard has any.
    fn labels(&self) -> Option<Vec<u32>> {
        if self.shards.iter().all(|shard| shard.members.labels.is_empty()) {
            return None;
        }
        let of = |shard: &Shard| match shard.members.labels.is_empty() {
            true => vec![NO_LABEL; shard.members.names.len()],
            false => shard.members.labels.clone(),
        };
        Some(self.shards.iter().flat_map(of).collect())
    }

    /// Whether members have labels, or lie in class folders.
    fn is_labelled(&self) -> bool {
        let names = self.shards.iter().flat_map(|shard| shard.members.names.iter());
        let folders: Vec<&[u8]> = names.map(folder_of).collect();
        self.labels().is_some() || !arrange(&folders, Root::Common).train.classes.names.is_empty()
    }

    /// Opens the members; their folders determine parts and classes.
    fn by_folders(self, left_out: LeftOut, options: DecodeOptions) -> Opened {
        let members: Vec<Arc<Members>> = self.shards.iter().map(|shard| shard.members.clone()).collect();
        let names = members.iter().flat_map(|members| members.names.iter());
        let folders: Vec<&[u8]> = names.map(folder_of).collect();
        by_folders(self.into_files(), &folders, Root::Common, left_out, options)
    }

    fn into_files(mut self) -> Arc<dyn Files> {
        // `find` needs every shard to have a member.
        self.shards.retain(|shard| shard.members.names.len() > 0);
        if self.shards.iter().all(|shard| shard.members.packing == Packing::None) {
            return Arc::new(PlainShards(self));
        }
        let packed = PackedShards::new(self);
        let blocks = Arc::clone(&packed.blocks);
        Arc::new(BlockReader::new(packed, blocks))
    }
}
