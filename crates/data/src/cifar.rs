//! CIFAR-10 and CIFAR-100 in their binary form.
//!
//! A record is the label bytes (CIFAR-10: one; CIFAR-100: coarse, then fine) and 32 x 32 pixels as three planes, red,
//! green, blue. Whole files are held in memory, 184 MB for all 60,000 images; the planes are interleaved once, when
//! they are loaded.

use std::path::{Path, PathBuf};

use crate::binary::{self, Binary, Pixels};
use crate::decode::DecodeScratch;
use crate::error::DataError;

/// Height and width of every image.
const SIDE: u32 = 32;
const PLANE: usize = (SIDE * SIDE) as usize;
const IMAGE: usize = 3 * PLANE;

const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Which of the two data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// 10 classes, one label byte.
    Cifar10,
    /// 100 classes, the fine label after the coarse one.
    Cifar100,
}

impl Variant {
    fn label_bytes(self) -> usize {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }

    /// The number of classes.
    pub(crate) fn classes(self) -> usize {
        match self {
            Self::Cifar10 => 10,
            Self::Cifar100 => 100,
        }
    }

    /// Bytes of one image with its labels.
    pub(crate) fn record_bytes(self) -> usize {
        self.label_bytes() + IMAGE
    }
}

/// The images of one part (training or test), interleaved.
#[derive(Debug)]
pub(crate) struct Images(Vec<u8>);

/// Loads `files` one after another. `part` ("train" or "test") is used to name the images.
///
/// # Errors
/// [`DataError::Malformed`] if a file is not a whole number of records or holds a label out of range.
pub(crate) fn load(
    files: &[PathBuf],
    variant: Variant,
    classes: Vec<String>,
    part: &'static str,
    shrink: Option<u32>,
) -> Result<Binary<Images>, DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for file in files {
        binary::records(file, variant.record_bytes(), "a CIFAR")?;
        let contents = std::fs::read(file).map_err(|e| DataError::io(file, e))?;
        append(&contents, variant, &mut pixels, &mut labels)
            .map_err(|reason| DataError::malformed(file, reason))?;
    }
    Ok(Binary { pixels: Images(pixels), labels, classes, part, shrink })
}

/// Adds the records in `bytes` to `pixels` (interleaved) and `labels`.
///
/// # Errors
/// A sentence, if `bytes` is not a whole number of records or a label is out of range.
fn append(bytes: &[u8], variant: Variant, pixels: &mut Vec<u8>, labels: &mut Vec<u8>) -> Result<(), String> {
    let record = variant.record_bytes();
    if !bytes.len().is_multiple_of(record) {
        return Err(format!(
            "cut short: {} bytes are not a whole number of records of {record} bytes",
            bytes.len()
        ));
    }
    let images = bytes.len() / record;
    pixels.try_reserve(images * IMAGE).map_err(|_| format!("no memory for {images} images"))?;
    for (number, record) in bytes.chunks_exact(record).enumerate() {
        let (head, planes) = record.split_at(variant.label_bytes());
        let label = head[head.len() - 1];
        if usize::from(label) >= variant.classes() {
            return Err(format!(
                "not a CIFAR-{} file: image {number} has the label {label}, but the largest is {}",
                variant.classes(),
                variant.classes() - 1
            ));
        }
        labels.push(label);
        let (red, rest) = planes.split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        pixels.extend(red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]));
    }
    Ok(())
}

/// The training and the test files found in a folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub variant: Variant,
    pub train: Vec<PathBuf>,
    pub test: Vec<PathBuf>,
}

/// The parts of CIFAR-10's training images.
const PARTS: usize = 5;

impl Files {
    /// A sentence on the last parts of CIFAR-10's training images, if they are missing.
    pub(crate) fn missing(&self) -> Option<String> {
        let found = self.train.len();
        (self.variant == Variant::Cifar10 && (1..PARTS).contains(&found)).then(|| {
            format!(
                "data_batch_{PARTS}.bin is missing: of the {PARTS} parts of CIFAR-10's training images there are {found}"
            )
        })
    }
}

/// Looks for CIFAR files directly in `folder`; `None` if there are none.
pub(crate) fn find(folder: &Path) -> Result<Option<Files>, DataError> {
    let existing = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let test: Vec<PathBuf> = existing("test_batch.bin").into_iter().collect();
    let train: Vec<Option<PathBuf>> = (1..=PARTS).map(|i| existing(&format!("data_batch_{i}.bin"))).collect();
    if let Some(last) = train.iter().rposition(Option::is_some) {
        if let Some(gap) = train[..last].iter().position(Option::is_none) {
            let missing = folder.join(format!("data_batch_{}.bin", gap + 1));
            return Err(DataError::malformed(
                &missing,
                "this part of CIFAR-10 is missing, but later parts exist",
            ));
        }
        let train = train.into_iter().flatten().collect();
        return Ok(Some(Files { variant: Variant::Cifar10, train, test }));
    }
    let (train, test100) = (existing("train.bin"), existing("test.bin"));
    let known = existing("fine_label_names.txt").is_some();
    match train {
        Some(train) if known || Variant::guess(&train)? == Some(Variant::Cifar100) => Ok(Some(Files {
            variant: Variant::Cifar100,
            train: vec![train],
            test: test100.into_iter().collect(),
        })),
        _ => Ok(None),
    }
}

impl Variant {
    /// The variant of a single `.bin` file, from its name, else from its size; `None` if it fits neither.
    pub(crate) fn guess(file: &Path) -> Result<Option<Self>, DataError> {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if name.starts_with("data_batch_") || name == "test_batch.bin" {
            return Ok(Some(Self::Cifar10));
        }
        if file.with_file_name("fine_label_names.txt").is_file() {
            return Ok(Some(Self::Cifar100));
        }
        let bytes = std::fs::metadata(file).map_err(|e| DataError::io(file, e))?.len();
        Ok([Self::Cifar10, Self::Cifar100]
            .into_iter()
            .find(|variant| bytes > 0 && bytes.is_multiple_of(variant.record_bytes() as u64)))
    }

    /// The class names: from the file beside the data where there is one, else the known names or numbers.
    pub(crate) fn class_names(self, folder: &Path) -> Result<Vec<String>, DataError> {
        let file = folder.join(match self {
            Self::Cifar10 => "batches.meta.txt",
            Self::Cifar100 => "fine_label_names.txt",
        });
        Ok(binary::class_names(&file, self.classes())?.unwrap_or_else(|| match self {
            Self::Cifar10 => CIFAR10_CLASSES.map(str::to_owned).to_vec(),
            Self::Cifar100 => (0..self.classes()).map(|i| format!("class {i:02}")).collect(),
        }))
    }
}

impl Pixels for Images {
    fn len(&self) -> usize {
        self.0.len() / IMAGE
    }

    fn size(&self) -> (u32, u32) {
        (SIDE, SIDE)
    }

    fn read<'a>(&'a self, index: usize, _: &'a mut DecodeScratch) -> Result<&'a [u8], String> {
        Ok(&self.0[index * IMAGE..(index + 1) * IMAGE])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics_and_is_all_or_an_error(
            records in 0usize..3,
            extra in 0usize..5,
            fill: u8,
            label: u8,
            hundred: bool,
        ) {
            let variant = if hundred { Variant::Cifar100 } else { Variant::Cifar10 };
            let mut bytes = vec![fill; records * variant.record_bytes() + extra];
            for record in bytes.chunks_exact_mut(variant.record_bytes()) {
                record[usize::from(hundred)] = label;
            }
            let (mut pixels, mut labels) = (Vec::new(), Vec::new());
            let result = append(&bytes, variant, &mut pixels, &mut labels);
            let right = extra == 0 && (records == 0 || usize::from(label) < variant.classes());
            prop_assert_eq!(result.is_ok(), right);
            if right {
                prop_assert_eq!(labels, vec![label; records]);
                prop_assert_eq!(pixels, vec![fill; records * 3072]);
            }
        }
    }
}
