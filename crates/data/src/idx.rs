//! IDX files, the format of MNIST and its relatives.
//!
//! Big-endian: two zero bytes, the element type (8 = unsigned byte), the number of dimensions, each dimension as 32
//! bits, then the elements. Images have dimensions (n, height, width), grey, or (n, height, width, 3); labels have (n).
//! Whole files are held in memory: 55 MB for the 70,000 images of MNIST.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::binary::{Binary, Pixels};
use crate::decode::{DecodeOptions, DecodeScratch, MAX_PIXELS, Window};
use crate::error::DataError;

/// A parsed IDX file of unsigned bytes.
#[derive(Debug, PartialEq, Eq)]
struct Idx {
    /// The dimensions, outermost first.
    dims: Vec<usize>,
    /// Where the elements lie within the file.
    data: Range<usize>,
}

/// Reads the header of an IDX file and checks that `bytes` holds exactly the elements that it declares.
///
/// # Errors
/// A sentence saying what is wrong.
fn parse(bytes: &[u8]) -> Result<Idx, String> {
    let [0, 0, kind, dimensions, rest @ ..] = bytes else {
        return Err(
            "not an IDX file: it does not begin with two zero bytes, a type and a dimension count".to_owned()
        );
    };
    if *kind != 8 {
        return Err(format!("IDX element type {kind:#04x} is not read; unsigned bytes (0x08) are"));
    }
    let dimensions = usize::from(*dimensions);
    let Some((header, elements)) = rest.split_at_checked(4 * dimensions) else {
        return Err(format!("cut short within its header of {dimensions} dimensions"));
    };
    let dims: Vec<usize> =
        header.as_chunks::<4>().0.iter().map(|&bytes| u32::from_be_bytes(bytes) as usize).collect();
    let declared = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    if declared != Some(elements.len()) {
        return Err(format!(
            "cut short or damaged: it declares {dims:?} elements and holds {} bytes",
            elements.len()
        ));
    }
    let start = bytes.len() - elements.len();
    Ok(Idx { dims, data: start..bytes.len() })
}

/// The images of one IDX file.
#[derive(Debug)]
pub(crate) struct Images {
    file: Vec<u8>,
    start: usize,
    count: usize,
    width: u32,
    height: u32,
    channels: usize,
    /// Applies to grey images only.
    window: Window,
}

impl Images {
    fn load(path: &Path, window: Window) -> Result<Self, DataError> {
        let file = std::fs::read(path).map_err(|e| DataError::io(path, e))?;
        let bad = |reason: String| DataError::malformed(path, reason);
        let idx = parse(&file).map_err(bad)?;
        let (count, height, width, channels) = match idx.dims[..] {
            [count, height, width] => (count, height, width, 1),
            [count, height, width, 3] => (count, height, width, 3),
            _ => {
                return Err(bad(format!(
                    "holds {} dimensions, {:?}; images have (n, height, width) or (n, height, width, 3)",
                    idx.dims.len(),
                    idx.dims
                )));
            }
        };
        let area = (height as u64).saturating_mul(width as u64);
        if count == 0 || area == 0 || area > MAX_PIXELS {
            return Err(bad(format!("declares {count} images of {width} x {height} pixels")));
        }
        let start = idx.data.start;
        Ok(Self { start, file, count, width: width as u32, height: height as u32, channels, window })
    }
}

/// Gives both parts the classes of the part with more, so that a label means the same in each.
pub(crate) fn share_classes(one: &mut Binary<Images>, other: &mut Binary<Images>) {
    match one.classes.len() < other.classes.len() {
        true => one.classes.clone_from(&other.classes),
        false => other.classes.clone_from(&one.classes),
    }
}

fn load_labels(path: &Path, images: usize) -> Result<Vec<u8>, DataError> {
    let mut file = std::fs::read(path).map_err(|e| DataError::io(path, e))?;
    let idx = parse(&file).map_err(|reason| DataError::malformed(path, reason))?;
    if idx.dims != [images] {
        return Err(DataError::malformed(
            path,
            format!("holds {:?} labels for {images} images; expected one per image", idx.dims),
        ));
    }
    file.drain(..idx.data.start);
    Ok(file)
}

/// A file of images and the file of labels that belongs to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub images: PathBuf,
    pub labels: Option<PathBuf>,
}

impl Pair {
    /// Pairs `images` with the label file of the corresponding name, if it exists.
    pub(crate) fn of(images: PathBuf) -> Self {
        let name = images.file_name().and_then(|n| n.to_str()).unwrap_or("");
        let labels = images.with_file_name(name.replace("images", "labels").replace("idx3", "idx1"));
        let labels = Some(labels).filter(|path| *path != images && path.is_file());
        Self { images, labels }
    }

    /// Loads both. `part` ("train" or "test") is used to name the images.
    ///
    /// # Errors
    /// [`DataError::Malformed`] if a file is cut short or the two do not belong together.
    pub(crate) fn load(
        &self,
        part: &'static str,
        options: DecodeOptions,
    ) -> Result<Binary<Images>, DataError> {
        let pixels = Images::load(&self.images, options.window)?;
        let labels = match &self.labels {
            Some(path) => load_labels(path, pixels.count)?,
            None => Vec::new(),
        };
        let classes = labels.iter().max().map_or(0, |&largest| usize::from(largest) + 1);
        let classes = (0..classes).map(|class| class.to_string()).collect();
        Ok(Binary { pixels, labels, classes, part, shrink: options.shrink })
    }
}

/// True if `file` begins like an IDX file of images.
pub(crate) fn is_images(file: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && matches!(magic, [0, 0, 8, 3 | 4])
}

/// How many entries of a folder are looked at: a folder of a million images is not searched for IDX files.
const MAX_ENTRIES: usize = 20_000;

/// Looks for IDX files directly in `folder`: (training, test). `None` if there are none.
pub(crate) fn find(folder: &Path) -> Result<Option<(Pair, Option<Pair>)>, DataError> {
    let mut train = Vec::new();
    let mut test = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|e| DataError::io(folder, e))?;
    for entry in entries.take(MAX_ENTRIES) {
        let path = entry.map_err(|e| DataError::io(folder, e))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).map(str::to_ascii_lowercase) else {
            continue;
        };
        if name.starts_with('.') || !name.contains("images") || !name.contains("idx3") || !path.is_file() {
            continue;
        }
        if name.ends_with(".gz") {
            // A compressed file beside the unpacked one does no harm.
            if !path.with_extension("").is_file() {
                return Err(DataError::malformed(&path, "is compressed; unpack it first (gunzip)"));
            }
            continue;
        }
        match name.contains("t10k") || name.contains("test") {
            true => test.push(path),
            false => train.push(path),
        }
    }
    for files in [&train, &test] {
        if let [first, second, ..] = &files[..] {
            let names =
                [first, second].map(|p| p.file_name().unwrap_or_default().to_string_lossy().into_owned());
            return Err(DataError::malformed(
                folder,
                format!("holds two sets of IDX images, {} and {}; give one of the files", names[0], names[1]),
            ));
        }
    }
    let (train, test) = (train.pop(), test.pop());
    Ok(match train {
        Some(train) => Some((Pair::of(train), test.map(Pair::of))),
        None => test.map(|only| (Pair::of(only), None)),
    })
}

impl Pixels for Images {
    fn len(&self) -> usize {
        self.count
    }

    fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut DecodeScratch) -> Result<&'a [u8], String> {
        let bytes = self.width as usize * self.height as usize * self.channels;
        let stored = &self.file[self.start + index * bytes..][..bytes];
        if self.channels == 3 {
            return Ok(stored);
        }
        scratch.pixels.clear();
        scratch.pixels.extend(stored.iter().flat_map(|&grey| [grey; 3]));
        self.window.apply_to_grey(&mut scratch.pixels);
        Ok(&scratch.pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics_and_stays_within_the_file(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(parsed) = parse(&bytes) {
                prop_assert!(parsed.data.end == bytes.len());
                prop_assert_eq!(parsed.dims.iter().product::<usize>(), parsed.data.len());
            }
        }

        #[test]
        fn headers_are_believed_only_if_the_file_bears_them_out(
            dims in proptest::collection::vec(any::<u32>(), 0..6),
            data in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut bytes = vec![0, 0, 8, dims.len() as u8];
            bytes.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
            bytes.extend(&data);
            let declared = dims.iter().fold(1u128, |product, &dim| product.saturating_mul(u128::from(dim)));
            prop_assert_eq!(parse(&bytes).is_ok(), declared == data.len() as u128);
        }

        #[test]
        fn round_trips(height in 1usize..5, width in 1usize..5, count in 1usize..5) {
            let mut bytes = vec![0, 0, 8, 3];
            bytes.extend([count, height, width].iter().flat_map(|&dim| (dim as u32).to_be_bytes()));
            bytes.extend(vec![7; count * height * width]);
            let parsed = parse(&bytes).unwrap();
            prop_assert_eq!(parsed.dims, vec![count, height, width]);
            prop_assert_eq!(parsed.data, 16..bytes.len());
        }
    }
}
