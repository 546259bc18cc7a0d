//! STL-10 in its binary form.
//!
//! Images are 96 x 96, three planes (red, green, blue), each column by column; labels count from 1. The files are read
//! image by image, as the 100,000 unlabelled images would take 2.8 GB of memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::binary::{self, Binary, Pixels};
use crate::decode::{DecodeScratch, resize};
use crate::error::DataError;
use crate::fault::{Unread, probe_range};
use crate::positioned::read_range;

/// Height and width of every image.
const SIDE: u32 = 96;
const PLANE: usize = (SIDE * SIDE) as usize;
const IMAGE: usize = 3 * PLANE;

const CLASSES: [&str; 10] =
    ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];

/// One file of images.
#[derive(Debug)]
pub(crate) struct Images {
    path: PathBuf,
    file: Arc<File>,
    count: usize,
}

/// Opens `images` (`train_X.bin`), with the labels that lie beside it (`train_y.bin`), if any. `part` is used to name
/// the images.
///
/// # Errors
/// [`DataError::Malformed`] if a file is cut short, the two do not belong together, or a label is out of range.
pub(crate) fn open(
    images: &Path,
    part: &'static str,
    shrink: Option<u32>,
) -> Result<Binary<Images>, DataError> {
    let count = binary::records(images, IMAGE, "an STL-10")?;
    let file = Arc::new(File::open(images).map_err(|e| DataError::io(images, e))?);
    let (labels, classes) = match labels_of(images) {
        Some(path) => (read_labels(&path, count)?, class_names(&path)?),
        None => (Vec::new(), Vec::new()),
    };
    Ok(Binary { pixels: Images { path: images.to_owned(), file, count }, labels, classes, part, shrink })
}

fn read_labels(path: &Path, images: usize) -> Result<Vec<u8>, DataError> {
    let bad = |reason: String| DataError::malformed(path, reason);
    let bytes = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?.len();
    if bytes != images as u64 {
        return Err(bad(format!("holds {bytes} labels for {images} images; expected one per image")));
    }
    let mut labels = std::fs::read(path).map_err(|e| DataError::io(path, e))?;
    for (number, label) in labels.iter_mut().enumerate() {
        match *label {
            1..=10 => *label -= 1,
            wrong => return Err(bad(format!("image {number} has the label {wrong}; labels are 1 to 10"))),
        }
    }
    Ok(labels)
}

fn class_names(beside: &Path) -> Result<Vec<String>, DataError> {
    let names = binary::class_names(&beside.with_file_name("class_names.txt"), CLASSES.len())?;
    Ok(names.unwrap_or_else(|| CLASSES.map(str::to_owned).to_vec()))
}

/// The files of STL-10 in a folder.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub train: Option<PathBuf>,
    pub test: Option<PathBuf>,
    pub unlabelled: Option<PathBuf>,
}

/// Looks for STL-10 files directly in `folder`; `None` if there are none.
pub(crate) fn find(folder: &Path) -> Option<Files> {
    let existing = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let files = Files {
        train: existing("train_X.bin"),
        test: existing("test_X.bin"),
        unlabelled: existing("unlabeled_X.bin"),
    };
    (files.train.is_some() || files.test.is_some() || files.unlabelled.is_some()).then_some(files)
}

/// Whether a file is one of STL-10's image files, by its name.
pub(crate) fn is_images(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    matches!(name, "train_X.bin" | "test_X.bin" | "unlabeled_X.bin")
}

/// The labels that lie beside `train_X.bin` or `test_X.bin`.
fn labels_of(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?.replace("_X", "_y");
    Some(images.with_file_name(name)).filter(|path| path.is_file())
}

impl Pixels for Images {
    fn len(&self) -> usize {
        self.count
    }

    fn size(&self) -> (u32, u32) {
        (SIDE, SIDE)
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut DecodeScratch) -> Result<&'a [u8], String> {
        let DecodeScratch { file, pixels, .. } = scratch;
        read_range(&self.file, (index * IMAGE) as u64, IMAGE as u64, file)
            .and_then(|()| resize(pixels, IMAGE))?;
        interleave(file, pixels);
        Ok(pixels)
    }

    fn probe(&self, index: usize) -> Result<(), Unread> {
        probe_range(&self.file, (index * IMAGE) as u64, IMAGE as u64).map_err(|source| Unread {
            path: self.path.clone(),
            source,
            whole: false,
        })
    }
}

/// Converts three planes of columns to rows of pixels.
fn interleave(planes: &[u8], pixels: &mut [u8]) {
    let side = SIDE as usize;
    for (at, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let from = at % side * side + at / side;
        *pixel = std::array::from_fn(|channel| planes[channel * PLANE + from]);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::dataset::Dataset;

    #[test]
    fn a_disk_that_fails_is_no_broken_image() {
        // Nothing is mapped at address 0: reading fails with an I/O error.
        let file = Arc::new(File::open("/proc/self/mem").unwrap());
        let pixels = Images { path: "train_X.bin".into(), file, count: 9 };
        let set = Binary { pixels, labels: Vec::new(), classes: Vec::new(), part: "train", shrink: None };
        let error = set.read(3, &mut DecodeScratch::default()).unwrap_err();
        assert!(matches!(error, DataError::Lost { .. }), "{error}");
    }
}
