//! What a few images tell about all of them.

use crate::dataset::Dataset;
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
    /// Whether all of them are grey: three equal channels at every pixel. Operators that change colours then mean nothing.
    pub grey: bool,
}

impl Sample {
    /// Looks at up to `count` images. The same images for the same data set.
    pub fn of(dataset: &dyn Dataset, count: usize) -> Self {
        let stride = dataset.len().div_ceil(count.max(1)).max(1);
        let mut scratch = DecodeScratch::default();
        let (mut widths, mut heights, mut grey) = (Vec::new(), Vec::new(), true);
        for index in (0..dataset.len()).step_by(stride) {
            if let Ok(image) = dataset.read(index, &mut scratch) {
                widths.push(image.width);
                heights.push(image.height);
                grey = grey && image.pixels.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b);
            }
        }
        let images = widths.len();
        Self { images, width: median(widths), height: median(heights), grey: grey && images > 0 }
    }
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
    fn the_size_and_the_colours_of_a_few() {
        let sample = Sample::of(&Made::new(50, 24, 1), 16);
        assert_eq!((sample.width, sample.height, sample.grey), (24, 24, false));
        assert!((8..=16).contains(&sample.images));
        assert_eq!(Sample::of(&Made::new(0, 24, 1), 16), Sample::default());
    }
}
