//! Judging a data set by a few of its images.

use crate::dataset::{Dataset, Decoded};
use crate::decode::{DecodeScratch, StoredAs};

/// The number of images that a [`Sample`] looks at.
pub(crate) const SAMPLE_SIZE: usize = 16;

/// The sizes of some decoded images, spread evenly over a data set. All 0 if none could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The number of images looked at, without those that could not be read.
    pub images: usize,
    /// The median of their shorter sides, in pixels.
    pub shorter: u32,
    /// The median of their widths, in pixels.
    pub width: u32,
    /// The median of their heights, in pixels.
    pub height: u32,
    /// The longest of their sides, in pixels.
    pub longest: u32,
    /// The average size of a decoded image in bytes.
    pub bytes: u64,
}

impl Sample {
    /// Looks at up to 16 images; always the same ones for the same data set.
    pub fn of(dataset: &dyn Dataset) -> Self {
        let (mut widths, mut heights, mut bytes) = (Vec::new(), Vec::new(), 0);
        let size = |image: Decoded<'_>| (image.width, image.height, image.pixels.len() as u64);
        look(dataset, SAMPLE_SIZE, DecodeScratch::default(), size, |(width, height, length), _| {
            widths.push(width);
            heights.push(height);
            bytes += length;
            true
        });
        let images = widths.len();
        let shorter = median(widths.iter().zip(&heights).map(|(width, height)| *width.min(height)).collect());
        let longest = widths.iter().chain(&heights).max().copied().unwrap_or(0);
        let (width, height) = (median(widths), median(heights));
        Self { images, shorter, width, height, longest, bytes: bytes / images.max(1) as u64 }
    }
}

/// Whether up to `count` images, spread evenly over a data set, are all grey: three equal channels at every pixel.
/// Operators that change colours then have no effect. Stops at the first image that is not grey.
pub fn all_grey(dataset: &dyn Dataset, count: usize) -> bool {
    let mut grey = 0;
    let is_grey =
        |image: Decoded<'_>| image.pixels.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b);
    let end = look(dataset, count, DecodeScratch::default(), is_grey, |is_grey, _| {
        grey += 1;
        is_grey
    });
    end && grey > 0
}

/// The number of images that are tried in place of one that cannot be read.
const INSTEAD: usize = 3;

/// Looks at up to `count` of the images that can be read, with `scratch`. Passes what was `seen` of each, and how it is stored, to
/// `more`, until that returns false; returns whether it never did.
pub(crate) fn look<T>(
    dataset: &dyn Dataset,
    count: usize,
    mut scratch: DecodeScratch,
    seen: impl Fn(Decoded<'_>) -> T,
    mut more: impl FnMut(T, Option<StoredAs>) -> bool,
) -> bool {
    let stride = dataset.len().div_ceil(count.max(1)).max(1);
    (0..dataset.len()).step_by(stride).all(|start| {
        // At an even distance, all images could be of one kind where kinds alternate: pictures and their masks.
        let end = dataset.len().min(start + stride);
        let first = start + scattered(start) % (end - start);
        let mut next = (first..end).chain(start..first).take(1 + INSTEAD);
        let found = next.find_map(|index| dataset.read(index, &mut scratch).ok().map(&seen));
        found.is_none_or(|found| more(found, scratch.stored()))
    })
}

/// A number that follows from another without a pattern: the finaliser of MurmurHash3.
pub(crate) fn scattered(number: usize) -> usize {
    let mut bits = number as u64;
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    // 31 bits are positive in every `usize`.
    ((bits ^ (bits >> 33)) & 0x7fff_ffff) as usize
}

fn median(mut values: Vec<u32>) -> u32 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemory;
    use crate::synthetic::Synthetic;

    #[test]
    fn kinds_of_images_that_alternate_are_all_seen() {
        for period in 2..=8 {
            let kinds = (0..400).map(|i| (1 + u32::from(i % period == 0), 1, i % period == 0));
            let images = kinds.map(|(width, height, coloured)| {
                let pixel = if coloured { [9, 5, 1] } else { [5, 5, 5] };
                (width, height, pixel.repeat((width * height) as usize))
            });
            let images = InMemory::new(images.collect()).unwrap();
            assert!(!all_grey(&images, 64), "one of {period} is coloured");
            let mut widths = Vec::new();
            look(
                &images,
                64,
                DecodeScratch::default(),
                |image| image.width,
                |width, _| {
                    widths.push(width);
                    true
                },
            );
            assert!(widths.contains(&1) && widths.contains(&2), "{period}: {widths:?}");
        }
    }

    #[test]
    fn the_size_of_a_few() {
        let sample = Sample::of(&Synthetic::new(50, 24, 1));
        assert_eq!((sample.shorter, sample.width, sample.height, sample.longest), (24, 24, 24, 24));
        assert_eq!(sample.bytes, 3 * 24 * 24);
        assert!(!all_grey(&Synthetic::new(50, 24, 1), 16));
        assert!(!all_grey(&Synthetic::new(0, 24, 1), 16));
        assert!((8..=16).contains(&sample.images));
        assert_eq!(Sample::of(&Synthetic::new(0, 24, 1)), Sample::default());
    }
}
