//! What a few images tell about all of them.

use crate::dataset::{Dataset, Decoded};
use crate::decode::DecodeScratch;

/// What some of the images of a data set, spread evenly over it, are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// How many were looked at; those that could not be read are not counted.
    pub images: usize,
    /// The median of their widths, in pixels; 0 if there are none.
    pub width: u32,
    /// The median of their heights, in pixels; 0 if there are none.
    pub height: u32,
}

impl Sample {
    /// Looks at up to `count` images. The same images for the same data set.
    pub fn of(dataset: &dyn Dataset, count: usize) -> Self {
        let (mut widths, mut heights) = (Vec::new(), Vec::new());
        look(dataset, count, |image| {
            widths.push(image.width);
            heights.push(image.height);
            true
        });
        Self { images: widths.len(), width: median(widths), height: median(heights) }
    }
}

/// Whether up to `count` images, spread evenly over a data set, are all grey: three equal channels at every pixel. Operators that
/// change colours then mean nothing. The first that is not decides.
pub fn all_grey(dataset: &dyn Dataset, count: usize) -> bool {
    let mut grey = 0;
    let end = look(dataset, count, |image| {
        grey += 1;
        image.pixels.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b)
    });
    end && grey > 0
}

/// Shows `each` up to `count` of the images that can be read, until it has seen enough; whether it wanted all.
fn look(dataset: &dyn Dataset, count: usize, mut each: impl FnMut(Decoded<'_>) -> bool) -> bool {
    let stride = dataset.len().div_ceil(count.max(1)).max(1);
    let mut scratch = DecodeScratch::default();
    (0..dataset.len()).step_by(stride).all(|index| match dataset.read(index, &mut scratch) {
        Ok(image) => each(image),
        Err(_) => true,
    })
}

fn median(mut values: Vec<u32>) -> u32 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::Made;

    #[test]
    fn the_size_of_a_few() {
        let sample = Sample::of(&Made::new(50, 24, 1), 16);
        assert_eq!((sample.width, sample.height), (24, 24));
        assert!(!all_grey(&Made::new(50, 24, 1), 16));
        assert!(!all_grey(&Made::new(0, 24, 1), 16));
        assert!((8..=16).contains(&sample.images));
        assert_eq!(Sample::of(&Made::new(0, 24, 1), 16), Sample::default());
    }
}
