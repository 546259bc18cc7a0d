//! How much of the range of 256 values the images use.

use crate::dataset::Decoded;
use crate::decode::{StoredAs, range, thousandth};

/// If all values lie within less than this, a quarter of the full range, little can be seen.
const NARROW: u8 = 64;

/// Of an image of more than twice as many pixels, only about so many are counted, or more.
const COUNTED: usize = 1 << 14;

/// The range of the 8-bit values of some images, over all their channels, without the darkest and the brightest of
/// each image, as many as 0.1% of its pixels (rounded) have: a hot pixel leaves an image as dark as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    /// The number of images.
    pub images: usize,
    /// The darkest of these values of any.
    pub least: u8,
    /// The brightest of these values of any.
    pub most: u8,
}

impl Default for Values {
    fn default() -> Self {
        Values { images: 0, least: u8::MAX, most: 0 }
    }
}

impl Values {
    /// The values of one image.
    pub(crate) fn of(image: Decoded<'_>) -> Values {
        // The channels of a grey pixel are equal: counted apart, none waits for another.
        let mut counts = [[0u32; 256]; 3];
        let pixels = image.pixels.as_chunks::<3>().0;
        let counted = pixels.iter().step_by(stride(pixels.len(), image.width as usize));
        let total = counted.len() as u64;
        for pixel in counted {
            counts.iter_mut().zip(pixel).for_each(|(counts, &value)| counts[usize::from(value)] += 1);
        }
        let [mut all, others @ ..] = counts;
        others.iter().for_each(|counts| all.iter_mut().zip(counts).for_each(|(all, more)| *all += more));
        let (least, most) = range(&all, 3 * thousandth(total));
        Values { images: 1, least: least as u8, most: most as u8 }
    }

    /// Whether there are such images, and all their values lie within a narrow range.
    pub fn are_narrow(&self) -> bool {
        self.images > 0 && self.most.saturating_sub(self.least) < NARROW
    }

    fn add(&mut self, other: Values) {
        self.images += other.images;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }
}

/// The values of the images that the [`Window`](crate::Window) acts on, after it is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tones {
    /// Images that are stored with 16 bits a channel.
    pub deep: Values,
    /// The darkest and the brightest value of these as they are stored, before the window is applied; `None` if there
    /// are none.
    pub deep_stored: Option<[u16; 2]>,
    /// Grey images that are stored with 8 bits.
    pub grey: Values,
}

impl Tones {
    /// Counts an image with these values, stored as `stored` says.
    pub(crate) fn count(&mut self, values: Values, stored: StoredAs) {
        match (stored.bits > 8, stored.grey) {
            (true, _) => {
                self.deep.add(values);
                self.add_stored(stored.range);
            }
            (false, true) => self.grey.add(values),
            (false, false) => {}
        }
    }

    /// Adds the counts of `other`.
    pub(crate) fn add(&mut self, other: Tones) {
        self.deep.add(other.deep);
        self.add_stored(other.deep_stored);
        self.grey.add(other.grey);
    }

    fn add_stored(&mut self, range: Option<[u16; 2]>) {
        let Some([least, most]) = range else { return };
        let [so_least, so_most] = self.deep_stored.unwrap_or([least, most]);
        self.deep_stored = Some([so_least.min(least), so_most.max(most)]);
    }
}

/// Each how-manieth of some pixels is counted, in rows of `width`.
pub(crate) fn stride(pixels: usize, width: usize) -> usize {
    // With a divisor in common, only some of the columns would count.
    let least = (pixels / COUNTED).max(1);
    (least..).find(|&stride| common_divisor(stride, width) == 1).unwrap_or(least)
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_pixel_hides_no_dark_image() {
        let values = |side: usize, hot: usize| {
            let mut pixels = [1, 2, 3].repeat(side * side);
            pixels[..3 * hot].fill(255);
            Values::of(Decoded { width: side as u32, height: side as u32, pixels: &pixels })
        };
        for (side, hot) in [(28, 0), (28, 1), (100, 10)] {
            assert_eq!(values(side, hot), Values { images: 1, least: 1, most: 3 }, "{side} {hot}");
        }
        assert!(values(100, 10).are_narrow() && !values(100, 11).are_narrow());
        assert_eq!(values(10, 1).most, 255);
    }

    #[test]
    fn of_a_large_image_pixels_of_all_columns_are_counted() {
        for (width, height) in [(1, 40_000), (1024, 1024), (600, 600), (16_384, 12), (8191, 16_384)] {
            let step = stride(width * height, width);
            let counted = (width * height).div_ceil(step);
            assert!((COUNTED / 2..=2 * COUNTED).contains(&counted), "{width} {height}: {counted}");
        }
        // Bright in one column of eight, whichever it is.
        for column in 0..8 {
            let pixels: Vec<u8> =
                (0..1024 * 1024).flat_map(|at| [if at % 8 == column { 200 } else { 9 }; 3]).collect();
            let image = Decoded { width: 1024, height: 1024, pixels: &pixels };
            assert_eq!(Values::of(image), Values { images: 1, least: 9, most: 200 });
        }
        assert_eq!(stride(100 * 100, 100), 1);
    }
}
