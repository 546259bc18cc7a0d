//! How much of the range of 256 values the images use.

use crate::dataset::Decoded;
use crate::decode::StoredAs;

/// If all values lie within less than this, a quarter of the full range, little can be seen.
const NARROW: u8 = 64;

/// The range of the 8-bit values of some images, over all their channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    /// The number of images.
    pub images: usize,
    /// The darkest value of any.
    pub least: u8,
    /// The brightest value of any.
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
        let (least, most) = image
            .pixels
            .iter()
            .fold((u8::MAX, 0), |(least, most), &value| (value.min(least), value.max(most)));
        Values { images: 1, least, most }
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
    /// Grey images that are stored with 8 bits.
    pub grey: Values,
}

impl Tones {
    /// Counts an image with these values, stored as `stored` says.
    pub(crate) fn count(&mut self, values: Values, stored: StoredAs) {
        match (stored.bits > 8, stored.grey) {
            (true, _) => self.deep.add(values),
            (false, true) => self.grey.add(values),
            (false, false) => {}
        }
    }

    /// Adds the counts of `other`.
    pub(crate) fn add(&mut self, other: Tones) {
        self.deep.add(other.deep);
        self.grey.add(other.grey);
    }
}
