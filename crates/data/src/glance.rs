//! A quick look at a few images, to see whether anything can be learnt from the data set.

use std::collections::HashSet;

use crate::copies::hash_pixels;
use crate::dataset::Dataset;
use crate::decode::DecodeScratch;
use crate::sample::{SAMPLE_SIZE, look};
use crate::tones::{Tones, Values};

/// The number of images looked at where each costs more than itself, such as a block of an archive.
const FEW: usize = 4;

/// The findings on a few images, spread evenly over a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// The number of images looked at, without those that could not be read.
    pub images: usize,
    /// How many of them have the same pixels as one looked at before.
    pub superfluous: usize,
    /// The values of those that the window acts on.
    pub tones: Tones,
}

impl Glance {
    /// Looks at up to 16 images, or 4 where each costs more than itself; always the same ones for the same data set.
    pub fn at(dataset: &dyn Dataset) -> Glance {
        let (mut hashes, mut glance) = (HashSet::new(), Glance::default());
        let count = if dataset.locality().is_free() { SAMPLE_SIZE } else { FEW };
        look(
            dataset,
            count,
            DecodeScratch::thorough(),
            |image| (hash_pixels(image), Values::of(image)),
            |(hash, values), stored| {
                glance.images += 1;
                glance.superfluous += usize::from(!hashes.insert(hash));
                stored.iter().for_each(|&stored| glance.tones.count(values, stored));
                true
            },
        );
        glance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::Synthetic;

    #[test]
    fn images_that_differ_and_one_again_and_again() {
        let made = Synthetic::new(50, 24, 1);
        let glance = Glance::at(&made);
        assert!((8..=16).contains(&glance.images));
        assert_eq!((glance.superfluous, glance.tones), (0, Tones::default()));

        let folder = tempfile::tempdir().unwrap();
        for number in 0..20 {
            let image = image::ImageBuffer::from_fn(9, 9, |x, y| image::Luma([(400 * x + y) as u16]));
            image.save(folder.path().join(format!("{number}.png"))).unwrap();
        }
        let glance = Glance::at(crate::open(folder.path()).unwrap().train.as_ref());
        assert_eq!(glance.superfluous, glance.images - 1);
        assert_eq!(glance.tones.deep, Values { images: glance.images, least: 0, most: 12 });
        assert_eq!(glance.tones.deep_stored, Some([0, 3208]));
        assert!(glance.tones.deep.are_narrow() && !glance.tones.grey.are_narrow());
    }
}
