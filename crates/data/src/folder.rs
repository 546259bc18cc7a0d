//! A folder of image files, with or without classes.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use crate::dataset::{Dataset, Decoded};
use crate::decode::{DecodeScratch, decode_named_file};
use crate::error::{DataError, shown};
use crate::listing::{LeftOut, Listing, list};

/// Image files below a root, sorted by path.
///
/// Labelled if at least two sub-folders of the root hold images directly, at least one of them more than one image: then
/// the class of an image is the sub-folder it lies in, at any depth, and images beside the class folders are left out.
/// Otherwise (albums by year and month, one folder per image, a single folder) it is unlabelled.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    files: Vec<PathBuf>,
    classes: Vec<String>,
    /// One per file, empty when unlabelled.
    labels: Vec<u32>,
}

impl Folder {
    /// Lists the images below `root`.
    ///
    /// # Errors
    /// [`DataError::NotFound`], [`DataError::Io`], or [`DataError::NoImages`].
    pub fn open(root: &Path) -> Result<(Self, LeftOut), DataError> {
        let Listing { mut images, mut left_out } = list(root)?;
        if images.is_empty() {
            return Err(DataError::NoImages { path: root.to_owned(), files: left_out.count });
        }
        let classes = class_folders(&images);
        let mut labels = Vec::new();
        if !classes.is_empty() {
            images.retain(|path| {
                let keep = first_folder(path).is_some();
                if !keep {
                    left_out.push(shown(path), "lies beside the class folders, in none of them");
                }
                keep
            });
            let number: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
            labels.extend(images.iter().map(|path| {
                let folder = first_folder(path).unwrap_or_default();
                number[folder.as_str()]
            }));
        }
        images.shrink_to_fit();
        Ok((Self { root: root.to_owned(), files: images, classes, labels }, left_out))
    }

    /// Numbers the labels by `classes` (those of the training part) instead of by this folder's own.
    pub(crate) fn relabel(&mut self, classes: &[String]) -> Result<(), DataError> {
        let mut new_label = Vec::with_capacity(self.classes.len());
        for class in &self.classes {
            match classes.iter().position(|known| known == class) {
                Some(label) => new_label.push(label as u32),
                None => {
                    return Err(DataError::malformed(
                        &self.root.join(class),
                        "this class has no folder of the same name in the training part",
                    ));
                }
            }
        }
        for label in &mut self.labels {
            *label = new_label[*label as usize];
        }
        self.classes = classes.to_vec();
        Ok(())
    }

    /// The file of image `index`.
    pub fn path(&self, index: usize) -> PathBuf {
        self.root.join(&self.files[index])
    }
}

/// The first-level folder that `path` lies in, as text; `None` for a file of the root itself.
fn first_folder(path: &Path) -> Option<String> {
    let mut components = path.components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(folder)), Some(_)) => Some(folder.to_string_lossy().into_owned()),
        _ => None,
    }
}

/// The first-level folders, sorted, if they are classes; else nothing.
fn class_folders(images: &[PathBuf]) -> Vec<String> {
    // Images per first-level folder: (directly in it, in all).
    let mut folders: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for path in images {
        if let Some(folder) = first_folder(path) {
            let counts = folders.entry(folder).or_default();
            counts.0 += usize::from(path.components().count() == 2);
            counts.1 += 1;
        }
    }
    let holding_images = folders.values().filter(|counts| counts.0 > 0).count();
    // One image in every folder is a way of storing images, not of naming classes.
    let more_than_one = folders.values().any(|counts| counts.1 > 1);
    match holding_images >= 2 && more_than_one {
        true => folders.into_keys().collect(),
        false => Vec::new(),
    }
}

impl Dataset for Folder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied()
    }

    fn name(&self, index: usize) -> String {
        shown(&self.files[index])
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut DecodeScratch) -> Result<Decoded<'a>, DataError> {
        decode_named_file(&self.path(index), || self.name(index), scratch)
    }
}
