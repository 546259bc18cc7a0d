//! Image files below a folder, sorted by path.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Files, ImageFiles};
use crate::decode::{DecodeOptions, read_file};
use crate::error::inert;
use crate::layout::classes;
use crate::listing::{LeftOut, Listing};
use crate::loader::NO_LABEL;
use crate::names::os_name;

/// The files of a listing.
pub(crate) struct DiskFiles {
    root: PathBuf,
    listing: Arc<Listing>,
}

impl Files for DiskFiles {
    fn len(&self) -> usize {
        self.listing.images.len()
    }

    fn name(&self, index: usize) -> String {
        inert(&String::from_utf8_lossy(&self.listing.images.get(index)))
    }

    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<(), String> {
        read_file(&self.root.join(os_name(&self.listing.images.get(index))), out)
    }
}

/// The images of a listing, labelled where their folders are classes, and what was left out.
pub(crate) fn folder(
    root: &Path,
    listing: Arc<Listing>,
    options: DecodeOptions,
) -> (ImageFiles<DiskFiles>, LeftOut) {
    let mut left_out = listing.left_out.clone();
    let images = &listing.images;
    let mut classes = classes((0..images.len()).map(|index| images.folder(index)));
    let strays = classes.labels.contains(&NO_LABEL);
    let mut chosen: Vec<u32> = Vec::new();
    if strays {
        chosen = (0..images.len() as u32).filter(|&i| classes.labels[i as usize] != NO_LABEL).collect();
        for index in (0..images.len()).filter(|&index| classes.labels[index] == NO_LABEL) {
            let name = inert(&String::from_utf8_lossy(&images.get(index)));
            left_out.push(name, "lies beside the class folders, in none of them");
        }
        classes.labels.retain(|&label| label != NO_LABEL);
    }
    let files = DiskFiles { root: root.to_owned(), listing };
    let set = match strays {
        true => ImageFiles::some(files, chosen, classes, options),
        false => ImageFiles::new(files, classes, options),
    };
    (set, left_out)
}
