//! Image files below a folder, sorted by path.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Files;
use super::archive::{Opened, by_folders};
use crate::decode::{DecodeOptions, MAX_FILE_BYTES, read_file};
use crate::error::{DataError, inert_bytes};
use crate::layout::Root;
use crate::listing::Listing;
use crate::names::os_name;

/// The files of a listing.
pub(crate) struct DiskFiles {
    root: PathBuf,
    listing: Arc<Listing>,
}

impl DiskFiles {
    fn path(&self, index: usize) -> PathBuf {
        self.root.join(os_name(&self.listing.images.get(index)))
    }
}

/// Why none of the files below `root` can be read any more, where `path` could not be.
pub(super) fn lost(root: &Path, path: &Path) -> Option<DataError> {
    let lost = |path: &Path, reason: String| Some(DataError::Lost { path: path.to_owned(), reason });
    match fs::read_dir(root).map(|mut entries| entries.next().is_none()) {
        Err(error) => return lost(root, error.to_string()),
        // What was mounted there has gone.
        Ok(true) => return lost(root, "nothing is in it".to_owned()),
        Ok(false) => {}
    }
    let read = fs::metadata(path).and_then(|found| match found.is_file() {
        true => io::copy(&mut File::open(path)?.take(MAX_FILE_BYTES), &mut io::sink()),
        // A pipe would be waited for.
        false => Ok(0),
    });
    read.err().filter(is_of_the_disk).and_then(|error| lost(path, error.to_string()))
}

/// Whether an error is of the disk, or of the network to it, or of a system that has run out of files.
fn is_of_the_disk(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    /// Of all Unix systems: an error of input or output, too many files in the system, or in the process.
    const EIO: i32 = 5;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    let of_unix = cfg!(unix) && matches!(error.raw_os_error(), Some(EIO | ENFILE | EMFILE));
    of_unix
        || matches!(
            error.kind(),
            E::StaleNetworkFileHandle
                | E::NotConnected
                | E::NetworkDown
                | E::NetworkUnreachable
                | E::HostUnreachable
                | E::TimedOut
        )
}

impl Files for DiskFiles {
    fn len(&self) -> usize {
        self.listing.images.len()
    }

    fn name(&self, index: usize) -> String {
        inert_bytes(&self.listing.images.get(index))
    }

    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<(), String> {
        read_file(&self.path(index), out)
    }

    fn lost(&self, index: usize) -> Option<DataError> {
        lost(&self.root, &self.path(index))
    }
}

/// The images of a listing, with parts and classes by their folders.
pub(crate) fn open(root: &Path, listing: Arc<Listing>, options: DecodeOptions) -> Result<Opened, DataError> {
    let folders: Vec<&[u8]> = (0..listing.images.len()).map(|index| listing.images.folder(index)).collect();
    let files = Arc::new(DiskFiles { root: root.to_owned(), listing: Arc::clone(&listing) });
    by_folders(root, files, &folders, Root::Given, listing.left_out.clone(), options)
}
