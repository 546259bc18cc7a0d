//! Images that a program has in memory.

use std::fmt;

use simclr_augment::ImageRef;

use crate::dataset::{Dataset, Decoded};
use crate::decode::{DecodeScratch, Region};
use crate::error::DataError;

/// Decoded images in memory, with labels or without.
///
/// ```
/// use std::sync::Arc;
///
/// use simclr_data::{Dataset, EvalLoader, InMemory, Reading, Source, SourceKind};
///
/// # fn main() -> Result<(), simclr_data::DataError> {
/// // Width, height, and rows from the top, interleaved red, green, blue.
/// let images = vec![(40, 30, vec![10; 40 * 30 * 3]), (16, 16, vec![200; 16 * 16 * 3])];
/// let classes = vec!["dark".to_owned(), "bright".to_owned()];
/// let images: Arc<dyn Dataset> = Arc::new(InMemory::new(images)?.with_labels(vec![0, 1], classes)?);
/// assert_eq!((images.len(), images.label(1)), (2, Some(1)));
///
/// // Loaders and what is above them take it as any other data set.
/// let reading = Reading { threads: 1, strict: true };
/// let batch = EvalLoader::new(images.clone(), 32, 2, reading).next_batch()?;
/// assert_eq!(batch.map(|batch| batch.views.len()), Some(2 * 32 * 32 * 3));
///
/// // What takes what a path holds takes it so.
/// let source = Source::of(SourceKind::InMemory, images);
/// assert_eq!(source.to_pretrain().len(), 2);
/// # Ok(())
/// # }
/// ```
///
/// For images that are made or fetched on demand, implement [`Dataset`]; five of its functions are required:
///
/// ```
/// use simclr_data::{DataError, Dataset, DecodeOptions, DecodeScratch, Decoded, Region, decode_bytes};
///
/// /// Files that something else holds, without labels.
/// struct Fetched(Vec<Vec<u8>>);
///
/// impl Dataset for Fetched {
///     fn len(&self) -> usize {
///         self.0.len()
///     }
///
///     fn classes(&self) -> &[String] {
///         &[]
///     }
///
///     fn label(&self, _index: usize) -> Option<u32> {
///         None
///     }
///
///     fn name(&self, index: usize) -> String {
///         format!("fetched {index}")
///     }
///
///     // Whoever decodes whole images need not ask which part is needed.
///     fn read_part<'a>(
///         &'a self,
///         index: usize,
///         _needed: &dyn Fn(u32, u32) -> Region,
///         scratch: &'a mut DecodeScratch,
///     ) -> Result<Decoded<'a>, DataError> {
///         decode_bytes(&self.name(index), &self.0[index], &DecodeOptions::default(), scratch)
///     }
/// }
/// # let set = Fetched(vec![b"P6 1 1 255 abc".to_vec()]);
/// # assert_eq!(set.read(0, &mut DecodeScratch::default()).unwrap().pixels, b"abc");
/// ```
#[derive(Clone)]
pub struct InMemory {
    images: Vec<(u32, u32, Vec<u8>)>,
    /// One per image, or empty.
    labels: Vec<Option<u32>>,
    classes: Vec<String>,
}

impl InMemory {
    /// Takes `images`, each its width and height in pixels, both at least 1, and `height * width * 3` bytes: 8-bit RGB,
    /// rows from the top, interleaved. They are named "image 0" and so on.
    ///
    /// # Errors
    /// [`DataError::Image`] for the first image that has no pixels, or the wrong number of bytes.
    pub fn new(images: Vec<(u32, u32, Vec<u8>)>) -> Result<Self, DataError> {
        let all = Self { images, labels: Vec::new(), classes: Vec::new() };
        (0..all.images.len()).try_for_each(|index| all.image(index).map(drop))?;
        Ok(all)
    }

    /// Adds a label, or `None`, for each image, and the names of the classes in the order of the labels.
    ///
    /// # Errors
    /// [`DataError::Setting`] if there are fewer or more labels than images, or a label is not below the number of
    /// classes.
    pub fn with_labels<L: Into<Option<u32>>>(
        self,
        labels: Vec<L>,
        classes: Vec<String>,
    ) -> Result<Self, DataError> {
        let wrong = |reason: String| Err(DataError::Setting { key: "labels", reason });
        let labels: Vec<Option<u32>> = labels.into_iter().map(Into::into).collect();
        if labels.len() != self.images.len() {
            return wrong(format!(
                "{} for {} images; expected one per image",
                labels.len(),
                self.images.len()
            ));
        }
        let greatest = labels.iter().flatten().max();
        if let Some(label) = greatest.filter(|&&label| label as usize >= classes.len()) {
            return wrong(format!("{label} with {} classes; they are numbered from 0", classes.len()));
        }
        Ok(Self { labels, classes, ..self })
    }

    fn image(&self, index: usize) -> Result<ImageRef<'_>, DataError> {
        let bad = |reason: String| DataError::Image { name: self.name(index), reason };
        let Some((width, height, pixels)) = self.images.get(index) else {
            return Err(bad(format!("there are {} images, numbered from 0", self.images.len())));
        };
        ImageRef::new(*width, *height, pixels).map_err(|error| bad(error.to_string()))
    }
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied().flatten()
    }

    fn name(&self, index: usize) -> String {
        format!("image {index}")
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        _: &dyn Fn(u32, u32) -> Region,
        _: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        self.image(index)
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (images, classes) = (self.images.len(), &self.classes);
        f.debug_struct("InMemory").field("images", &images).field("classes", classes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_labels_are_checked() {
        let two = || InMemory::new(vec![(2, 1, vec![0; 6]), (1, 1, vec![7; 3])]).unwrap();
        let message = |result: Result<InMemory, DataError>| result.unwrap_err().to_string();
        assert_eq!(
            message(InMemory::new(vec![(2, 1, vec![0; 6]), (1, 1, vec![7; 4])])),
            "image 1: image of 1 x 1 pixels in 4 bytes: 8-bit RGB needs exactly 3 bytes"
        );
        assert!(InMemory::new(vec![(0, 1, Vec::new())]).is_err());
        let classes = || vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            message(two().with_labels(vec![0], classes())),
            "labels: 1 for 2 images; expected one per image"
        );
        assert_eq!(
            message(two().with_labels(vec![0, 2], classes())),
            "labels: 2 with 2 classes; they are numbered from 0"
        );
        let some = two().with_labels(vec![None, Some(1)], classes()).unwrap();
        assert_eq!((some.label(0), some.label(1), two().label(1)), (None, Some(1), None));
        assert_eq!(some.read(1, &mut DecodeScratch::default()).unwrap().pixels, [7; 3]);
        assert!(some.read(2, &mut DecodeScratch::default()).is_err());
    }
}
