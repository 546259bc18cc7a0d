//! Image files below a folder, sorted by path.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Files;
use super::archive::{Opened, by_folders};
use crate::decode::{Claim, DecodeOptions, read_file, read_sample};
use crate::error::name_of;
use crate::fault::{Unread, probe_file};
use crate::layout::Root;
use crate::listing::Listing;
use crate::names::os_name;

/// The files of a listing.
pub(super) struct DiskFiles {
    pub root: PathBuf,
    pub listing: Arc<Listing>,
}

impl DiskFiles {
    fn path(&self, index: usize) -> PathBuf {
        self.root.join(os_name(&self.listing.images.get(index)))
    }
}

impl Files for DiskFiles {
    fn len(&self) -> usize {
        self.listing.images.len()
    }

    fn name(&self, index: usize) -> String {
        name_of(&self.listing.images.get(index))
    }

    fn bytes(&self, index: usize) -> Option<u64> {
        self.path(index).metadata().ok().map(|found| found.len())
    }

    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<Claim, String> {
        read_file(&self.path(index), out)
    }

    fn sample(&self, index: usize, out: &mut Vec<u8>) -> Result<bool, String> {
        let path = self.path(index);
        let metadata = path.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Ok(false);
        }
        let file = File::open(&path).map_err(|error| error.to_string())?;
        read_sample(&file, 0, metadata.len(), out)
    }

    fn probe(&self, index: usize) -> Result<(), Unread> {
        probe_file(self.path(index))
    }
}

/// Opens the images of a listing; their folders determine parts and classes.
pub(crate) fn open(root: &Path, listing: Arc<Listing>, options: DecodeOptions) -> Opened {
    let folders: Vec<&[u8]> = (0..listing.images.len()).map(|index| listing.images.folder(index)).collect();
    let files = Arc::new(DiskFiles { root: root.to_owned(), listing: Arc::clone(&listing) });
    by_folders(files, &folders, Root::Given, listing.left_out.clone(), options)
}
