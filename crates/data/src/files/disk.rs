//! Image files on disk: below a folder, sorted by path, or given one by one.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::{Opened, by_folders};
use super::{Files, ImageFiles};
use crate::common_folder::{common_folder, whole};
use crate::dataset::Dataset;
use crate::decode::{Claim, DecodeOptions, read_file, read_sample};
use crate::error::{DataError, inert_bytes, name_of};
use crate::fault::{Unread, probe_file};
use crate::layout::{Classes, Root, first, split_named};
use crate::listing::Listing;
use crate::names::{bytes_of, os_name};

/// The files of a listing.
pub(super) struct DiskFiles {
    pub root: PathBuf,
    pub listing: Arc<Listing>,
}

impl DiskFiles {
    /// The files at these paths, absolute or relative to `root`, in this order.
    pub fn at<'a>(root: &Path, paths: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut listing = Listing::default();
        listing.images.folders.push(b"");
        paths.for_each(|path| listing.images.push(0, path));
        listing.images.files.shrink_to_fit();
        Self { root: root.to_owned(), listing: Arc::new(listing) }
    }

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
    let mut opened = by_folders(files, &folders, Root::Given, listing.left_out.clone(), options);
    opened.left_out.notes.extend(without_images(&opened.train, &folders, &listing));
    opened
}

/// The most folders that a note names.
const NAMED: usize = 20;

/// A note about the folders that would be classes, as they lie beside those of the classes of `train`, if there were
/// any images in them; `folders` are those of the images.
fn without_images(train: &ImageFiles, folders: &[&[u8]], listing: &Listing) -> Option<String> {
    let labelled = (0..train.len()).find_map(|image| Some((image, train.label(image)?)));
    let (image, label) = labelled?;
    let class_of_root = inert_bytes(first(folders[train.file(image)]));
    let in_parts = class_of_root != train.classes()[label as usize];
    let depth = if in_parts { 2 } else { 1 };
    // Where a class at that depth ends in a path.
    let end = |folder: &[u8]| {
        let slashes = folder.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        slashes.chain([folder.len()]).nth(depth - 1)
    };
    let used: HashSet<&[u8]> = folders.iter().filter_map(|folder| Some(&folder[..end(folder)?])).collect();
    let is_part = |folder: &[u8]| std::str::from_utf8(first(folder)).ok().and_then(split_named).is_some();
    let empty = listing.images.folders.iter().filter(|folder| {
        !folder.is_empty()
            && end(folder) == Some(folder.len())
            && !used.contains(folder)
            && (!in_parts || is_part(folder))
    });
    let empty: Vec<String> = empty.map(inert_bytes).collect();
    let rest = empty.len().checked_sub(NAMED).filter(|&rest| rest > 0);
    let rest = rest.map_or(String::new(), |rest| format!(" and {rest} more"));
    let names = empty[..empty.len().min(NAMED)].join(", ") + &rest;
    match empty.len() {
        0 => None,
        1 => Some(format!("1 folder beside those of the classes holds no images: {names}")),
        count => Some(format!("{count} folders beside those of the classes hold no images: {names}")),
    }
}

/// Opens image files that are given one by one: images without labels, called by these paths, in this order.
///
/// # Errors
/// [`DataError::Unrecognised`] of a path that is not Unicode, on systems other than Unix.
pub(crate) fn open_each(paths: &[PathBuf], options: DecodeOptions) -> Result<ImageFiles, DataError> {
    let names = paths.iter().map(|path| {
        bytes_of(path.as_os_str()).ok_or_else(|| {
            let found = "has a name that is not Unicode".to_owned();
            DataError::Unrecognised { path: path.clone(), found }
        })
    });
    let names: Vec<&[u8]> = names.collect::<Result<_, _>>()?;
    let files = DiskFiles::at(Path::new(""), names.into_iter());
    let whole: Vec<PathBuf> = paths.iter().map(whole).collect();
    let shared = common_folder(whole.iter().map(PathBuf::as_path));
    let files = Arc::new(SingleFiles { files, shared });
    Ok(ImageFiles::new(files, Classes::default(), options))
}

/// Files given one by one.
struct SingleFiles {
    files: DiskFiles,
    /// The folder that all of them lie in or below.
    shared: PathBuf,
}

impl Files for SingleFiles {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn name(&self, index: usize) -> String {
        self.files.name(index)
    }

    fn name_within(&self, index: usize) -> String {
        let path = whole(self.files.path(index));
        let below = path.strip_prefix(&self.shared).ok().and_then(|below| bytes_of(below.as_os_str()));
        below.map_or_else(|| self.name(index), name_of)
    }

    fn bytes(&self, index: usize) -> Option<u64> {
        self.files.bytes(index)
    }

    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<Claim, String> {
        self.files.read(index, out)
    }

    fn sample(&self, index: usize, out: &mut Vec<u8>) -> Result<bool, String> {
        self.files.sample(index, out)
    }

    fn probe(&self, index: usize) -> Result<(), Unread> {
        self.files.probe(index)
    }
}
