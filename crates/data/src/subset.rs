//! Parts of a data set.

use std::fmt;
use std::sync::Arc;

use simclr_augment::Stream;

use crate::copies::HashExtent;
use crate::dataset::{Dataset, Decoded};
use crate::decode::{DecodeScratch, Region};
use crate::error::DataError;
use crate::locality::Locality;
use crate::permutation::shuffle;

/// These replace the image number in the keys of the streams that draw parts; see `permutation`.
const HOLDOUT: u64 = u64::from_le_bytes(*b"held out");
const BALANCED: u64 = u64::from_le_bytes(*b"balanced");

/// Some images of another data set, with its classes.
#[derive(Clone)]
pub struct Subset {
    whole: Arc<dyn Dataset>,
    indices: Vec<u32>,
}

impl Subset {
    /// The images `indices` of `whole`, numbered in that order.
    ///
    /// # Panics
    /// If an index is not below `whole.len()`.
    pub fn new(whole: Arc<dyn Dataset>, indices: Vec<u32>) -> Self {
        assert!(
            indices.iter().all(|&index| (index as usize) < whole.len()),
            "a subset's indices lie within the data set"
        );
        Self { whole, indices }
    }

    /// The numbers, in the whole data set, of the images of this subset.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Splits `whole` at random into (the rest, `held_out` images), each in the order of `whole`. The same seed gives
    /// the same split. Where images are read in many blocks, the held-out ones are of a few dozen of these.
    ///
    /// # Errors
    /// [`DataError::HoldoutTooLarge`] if nothing would be left.
    pub fn split_off_holdout(
        whole: Arc<dyn Dataset>,
        held_out: usize,
        seed: u64,
    ) -> Result<(Self, Self), DataError> {
        let images = whole.len();
        if held_out >= images {
            return Err(DataError::HoldoutTooLarge { held_out, images });
        }
        let holdout = whole.locality().draw(held_out, &mut Stream::new(seed, 0, HOLDOUT, 0));
        let mut next = holdout.iter().copied().peekable();
        let rest = (0..images as u32).filter(|image| next.next_if_eq(image).is_none()).collect();
        Ok((Self { whole: Arc::clone(&whole), indices: rest }, Self { whole, indices: holdout }))
    }
}

/// Draws `images` images of `whole` at random, as many of each class as of any other, in the order of `whole`: the
/// subsets of semi-supervised evaluation (1% and 10% of the labels). If the number does not divide evenly, some
/// classes, also drawn at random, give one more; a class with too few gives all that it has, and the others more. The
/// same seed gives the same subset, and larger subsets contain smaller ones.
///
/// # Errors
/// [`DataError::NoLabels`], or [`DataError::SubsetSize`] if a class would get no image or there are too few labelled
/// images.
pub fn balanced_subset(whole: Arc<dyn Dataset>, images: usize, seed: u64) -> Result<Subset, DataError> {
    let mut by_class = vec![Vec::new(); whole.classes().len()];
    for index in 0..whole.len() {
        if let Some(label) = whole.label(index) {
            by_class[label as usize].push(index as u32);
        }
    }
    for (label, members) in by_class.iter_mut().enumerate() {
        shuffle(members, &mut Stream::new(seed, label as u64, BALANCED, 0));
    }
    let labelled: usize = by_class.iter().map(Vec::len).sum();
    let mut order: Vec<u32> = (0..by_class.len() as u32).collect();
    order.retain(|&label| !by_class[label as usize].is_empty());
    if order.is_empty() {
        return Err(DataError::NoLabels);
    }
    if !(order.len()..=labelled).contains(&images) {
        return Err(DataError::SubsetSize { images, classes: order.len(), labelled });
    }
    shuffle(&mut order, &mut Stream::new(seed, 0, BALANCED, 1));
    // One of each class in turn, until there are enough: every subset is a prefix of the same list.
    let mut indices = Vec::with_capacity(images);
    for turn in 0.. {
        order.retain(|&label| by_class[label as usize].len() > turn);
        let given = order.iter().map(|&label| by_class[label as usize][turn]);
        indices.extend(given.take(images - indices.len()));
        if indices.len() == images {
            break;
        }
    }
    indices.sort_unstable();
    Ok(Subset { whole, indices })
}

impl fmt::Debug for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subset").field("images", &self.indices.len()).finish_non_exhaustive()
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> &[String] {
        self.whole.classes()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.whole.label(self.indices[index] as usize)
    }

    fn name(&self, index: usize) -> String {
        self.whole.name(self.indices[index] as usize)
    }

    fn name_within(&self, index: usize) -> String {
        self.whole.name_within(self.indices[index] as usize)
    }

    fn stored_bytes(&self, index: usize) -> Option<u64> {
        self.whole.stored_bytes(self.indices[index] as usize)
    }

    fn content_hash(&self, index: usize, extent: HashExtent, scratch: &mut DecodeScratch) -> Option<u64> {
        self.whole.content_hash(self.indices[index] as usize, extent, scratch)
    }

    fn locality(&self) -> Locality {
        self.whole.locality().restrict(&self.indices)
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        needed: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        self.whole.read_part(self.indices[index] as usize, needed, scratch)
    }
}
