//! Decoded images in a file, which later runs of the program reuse.
//!
//! ```text
//! magic (16 bytes), fingerprint (8), then records of
//! tag, image, width, height, checksum of the pixels, checksum of these five (4 bytes each), pixels
//! ```
//!
//! Numbers are little-endian. Several threads write records, so one of the last may be unfinished: all that follows it
//! is discarded. A record's pixels are checked against their checksum whenever they are read.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::DiskBudget;
use crate::dataset::Decoded;
use crate::decode::resize;
use crate::error::DataError;
use crate::positioned::{read_exact_at, write_all_at};

const MAGIC: &[u8; 16] = b"simclr images 2\n";
const START: u64 = 24;
/// The free space of the disk is checked each time this many bytes have been written.
const LOOK_EVERY: u64 = 16 << 20;
const TAG: u32 = u32::from_le_bytes(*b"imag");
/// Bytes before the pixels of a record.
pub(super) const HEAD: u64 = 24;

/// Where an image lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    offset: u64,
    pub width: u32,
    pub height: u32,
    checksum: u32,
}

impl Place {
    /// Bytes of pixels; more than a file has where the sides are damaged.
    fn bytes(&self) -> u64 {
        (u64::from(self.width) * u64::from(self.height)).saturating_mul(3)
    }
}

/// A cache file that is open for reading and writing.
pub(super) struct CacheFile {
    file: File,
    /// Where the next record goes.
    end: AtomicU64,
    /// The largest offset at which a record may end.
    limit: u64,
    /// Bytes left free on the disk; as many are freed when others have filled it.
    spare: u64,
    /// The offset at which the free space is checked next.
    look_at: AtomicU64,
    /// Set when no more records are written.
    full: AtomicBool,
    /// Set when `spare` has been given back.
    given: AtomicBool,
}

impl CacheFile {
    /// Opens the file at `path`, and returns the images in it of a data set of `images` images; a file with another
    /// `fingerprint` is emptied. Records take at most `budget` bytes, and fewer where less than `spare` bytes would be
    /// left free on the disk.
    pub fn open(
        path: &Path,
        fingerprint: u64,
        images: usize,
        DiskBudget { bytes: budget, spare }: DiskBudget,
    ) -> Result<(Self, Vec<(u32, Place)>), DataError> {
        let io = |error| DataError::io(path, error);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut head = [0; START as usize];
        let known = read_exact_at(&file, &mut head, 0).is_ok() && head == start(fingerprint);
        let cache = Self {
            end: AtomicU64::new(START),
            limit: START.saturating_add(budget),
            spare,
            look_at: AtomicU64::new(START),
            full: AtomicBool::new(false),
            given: AtomicBool::new(false),
            file,
        };
        let places = if known { cache.scan(images).map_err(io)? } else { Vec::new() };
        let end = places.last().map_or(START, |(_, last)| last.offset + last.bytes());
        cache.file.set_len(end).map_err(io)?;
        write_all_at(&cache.file, &start(fingerprint), 0).map_err(io)?;
        cache.end.store(end, Ordering::Relaxed);
        cache.look_at.store(end, Ordering::Relaxed);
        Ok((cache, places))
    }

    /// Forgets all images.
    pub fn clear(&self) -> std::io::Result<()> {
        self.end.store(START, Ordering::Relaxed);
        self.look_at.store(START, Ordering::Relaxed);
        self.file.set_len(START)
    }

    /// Bytes of records.
    pub fn used(&self) -> u64 {
        self.end.load(Ordering::Relaxed) - START
    }

    /// The records before the first that is not whole.
    fn scan(&self, images: usize) -> std::io::Result<Vec<(u32, Place)>> {
        let len = self.file.metadata()?.len();
        let (mut places, mut at) = (Vec::new(), START);
        while at + HEAD <= len {
            let mut head = [0; HEAD as usize];
            read_exact_at(&self.file, &mut head, at)?;
            let (fields, own) = head.split_at(HEAD as usize - 4);
            let field = |i: usize| u32::from_le_bytes(std::array::from_fn(|byte| head[4 * i + byte]));
            let place = Place { offset: at + HEAD, width: field(2), height: field(3), checksum: field(4) };
            let whole = field(0) == TAG
                && own == crc32c::crc32c(fields).to_le_bytes()
                && (field(1) as usize) < images
                && place.offset.checked_add(place.bytes()).is_some_and(|end| end <= len);
            if !whole {
                break;
            }
            at = place.offset + place.bytes();
            places.push((field(1), place));
        }
        Ok(places)
    }

    /// Whether there is room for an image of `bytes` of pixels.
    pub fn has_room(&self, bytes: u64) -> bool {
        let end = self.end.load(Ordering::Relaxed).checked_add(HEAD + bytes);
        !self.full.load(Ordering::Relaxed) && end.is_some_and(|end| end <= self.limit)
    }

    /// Keeps no more images.
    fn stop(&self, reason: &str) {
        // Warn once.
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!("the cache on disk can keep no more images: {reason}");
        }
    }

    /// Checks the free space of the disk now and then, and keeps no more images when little is left.
    fn look_at_disk(&self) {
        let end = self.end.load(Ordering::Relaxed);
        let due = |at: u64| (end >= at).then_some(end + LOOK_EVERY);
        if self.look_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok()
            && free_bytes(&self.file).is_some_and(|free| free < self.spare.saturating_add(LOOK_EVERY))
        {
            self.stop("the rest of the disk is left to checkpoints and logs");
        }
    }

    /// Frees the last `spare` bytes of records on a disk that others have filled, the first time it is called, and
    /// keeps no more images. Returns whether any space was freed.
    pub fn give_way(&self) -> bool {
        if self.given.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.stop("the disk is full");
        // Images that lay there fail to be read back, and are read from the data set again.
        let end = self.end.load(Ordering::Relaxed);
        let cut = end.saturating_sub(self.spare).max(START);
        cut < end && self.file.set_len(cut).is_ok()
    }

    /// Writes an image, if there is room.
    pub fn put(&self, index: u32, image: Decoded<'_>) -> Option<Place> {
        self.look_at_disk();
        if self.full.load(Ordering::Relaxed) {
            return None;
        }
        let bytes = HEAD + image.pixels.len() as u64;
        let room = |end: u64| end.checked_add(bytes).filter(|&end| end <= self.limit);
        let at = self.end.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let (width, height, checksum) = (image.width, image.height, crc32c::crc32c(image.pixels));
        let mut record = Vec::with_capacity(bytes as usize);
        for field in [TAG, index, width, height, checksum] {
            record.extend(field.to_le_bytes());
        }
        record.extend(crc32c::crc32c(&record).to_le_bytes());
        record.extend_from_slice(image.pixels);
        if let Err(error) = write_all_at(&self.file, &record, at) {
            self.stop(&error.to_string());
            self.give_way();
            return None;
        }
        Some(Place { offset: at + HEAD, width, height, checksum })
    }

    /// Reads the image at `place` into `pixels`; returns whether they are what was written.
    pub fn get(&self, place: &Place, pixels: &mut Vec<u8>) -> bool {
        resize(pixels, place.bytes() as usize).is_ok()
            && read_exact_at(&self.file, pixels, place.offset).is_ok()
            && crc32c::crc32c(pixels) == place.checksum
    }
}

fn start(fingerprint: u64) -> [u8; START as usize] {
    let mut start = [0; START as usize];
    start[..MAGIC.len()].copy_from_slice(MAGIC);
    start[MAGIC.len()..].copy_from_slice(&fingerprint.to_le_bytes());
    start
}

/// The bytes still available on the disk of `file`, where the system reports them.
fn free_bytes(file: &File) -> Option<u64> {
    #[cfg(unix)]
    return rustix::fs::fstatvfs(file).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    #[cfg(not(unix))]
    {
        let _ = file;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_of_damaged_records_are_of_no_small_image() {
        let of = |width, height| Place { offset: START, width, height, checksum: 0 }.bytes();
        assert_eq!(of(5, 4), 60);
        // 2^64 + 2^31 bytes.
        assert_eq!(of(1 << 31, 2_863_311_531), u64::MAX);
    }
}
