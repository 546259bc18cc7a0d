//! What a file leaves open: how its values become 8 bits, and the background behind transparency.

use serde::{Deserialize, Serialize};

/// How to decode images, where the file itself does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The background that shows through transparent pixels, 8-bit RGB. White by default.
    pub background: [u8; 3],
    /// How stored values become 8 bits.
    pub window: Window,
    /// Images whose shorter side has more pixels than this are shrunk to it (antialiased), keeping their aspect ratio.
    /// `None` shrinks none.
    pub shrink: Option<u32>,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { background: [255; 3], window: Window::Full, shrink: None }
    }
}

/// The range of stored values that is mapped to 0 to 255; values outside are clamped.
///
/// It acts on 16-bit images and on grey images of up to 8 bits. 8-bit colour images stay as they are.
///
/// Values are meant as the file stores them: in a PNM up to the maximum that it declares, such as 4095. But grey values
/// of fewer than 8 bits are first scaled to 8, because programs that write PNG store images of few levels so, unasked.
///
/// Written as `"full"`, `"image"` or `[low, high]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Window {
    /// The full range of the depth: 0 to 65535, or 0 to 255.
    #[default]
    Full,
    /// The range of each image's values, over all its channels, without the darkest and the brightest 0.1% (rounded):
    /// a few hot pixels do not leave the image dark. If that leaves a single value, the range of all its values.
    Image,
    /// From `low` to `high`, as stored: `low` becomes 0 and `high` 255.
    Values {
        /// What becomes black.
        low: u16,
        /// What becomes white, above `low`.
        high: u16,
    },
}

impl Window {
    /// Whether it maps stored values, whatever others an image has.
    pub(super) fn is_of_values(self) -> bool {
        matches!(self, Self::Values { .. })
    }

    /// The bounds for an image that stores `values`, where its depth allows values up to `full`.
    fn bounds(self, values: impl Iterator<Item = u16> + Clone, full: u16) -> (u16, u16) {
        match self {
            Self::Full => (0, full),
            Self::Values { low, high } => (low, high),
            Self::Image => {
                let ends = |(least, most): (u16, u16), value| (least.min(value), most.max(value));
                let (least, most) = values.clone().fold((u16::MAX, 0), ends);
                // A uniform image has no range: it stays as it is.
                if least >= most {
                    return (0, full);
                }
                let beyond = thousandth(values.clone().count() as u64);
                if beyond == 0 {
                    return (least, most);
                }
                let mut counts = vec![0u32; usize::from(most - least) + 1];
                values.for_each(|value| counts[usize::from(value - least)] += 1);
                match range(&counts, beyond) {
                    (low, high) if low < high => (least + low, least + high),
                    _ => (least, most),
                }
            }
        }
    }

    /// The map of 16-bit values to 8 bits for an image whose `values` are scaled from 0 to `most`, as it stores them,
    /// to 16 bits.
    pub(super) fn of_16_bits(
        self,
        values: impl Iterator<Item = u16> + Clone,
        most: u16,
    ) -> impl Fn(u16) -> u8 {
        let (low, high) = self.bounds(values, u16::MAX);
        let is_scaled = self.is_of_values() && most < u16::MAX;
        move |value| match is_scaled {
            true => scaled(as_stored(value, u16::MAX, most), low, high),
            false => scaled(value, low, high),
        }
    }

    /// Maps the 8-bit values of a grey image in place.
    pub(crate) fn apply_to_grey(self, pixels: &mut [u8]) {
        self.apply_to_scaled_grey(pixels, u8::MAX.into());
    }

    /// Like [`apply_to_grey`](Self::apply_to_grey), for values that are scaled from 0 to `most`, as the image stores
    /// them, to 8 bits.
    pub(super) fn apply_to_scaled_grey(self, pixels: &mut [u8], most: u16) {
        self.apply_to_each(1, pixels, most);
    }

    /// Like [`apply_to_grey`](Self::apply_to_grey), for pixels of three equal values.
    pub(super) fn apply_to_grey_rgb(self, pixels: &mut [u8]) {
        self.apply_to_each(3, pixels, u8::MAX.into());
    }

    /// Maps the values of pixels of `channels` equal ones, each of which counts once.
    fn apply_to_each(self, channels: usize, pixels: &mut [u8], most: u16) {
        if self == Self::Full {
            return;
        }
        let (low, high) = self.bounds(pixels.iter().step_by(channels).copied().map(u16::from), 255);
        let most = if self.is_of_values() { most } else { 255 };
        let table: [u8; 256] =
            std::array::from_fn(|value| scaled(as_stored(value as u16, 255, most), low, high));
        pixels.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
    }
}

/// A thousandth of `total` values, rounded: so many may be outliers at either end of their range.
pub(crate) fn thousandth(total: u64) -> u64 {
    (total + 500) / 1000
}

/// The darkest and the brightest value without the `beyond` darkest and the `beyond` brightest; `counts` has the number
/// of each value.
pub(crate) fn range(counts: &[u32], beyond: u64) -> (u16, u16) {
    fn first<'a>(mut counts: impl Iterator<Item = &'a u32>, beyond: u64) -> usize {
        let mut sum = 0;
        let place = counts.position(|&count| {
            sum += u64::from(count);
            sum > beyond
        });
        place.unwrap_or(0)
    }
    let low = first(counts.iter(), beyond);
    let high = (counts.len() - 1).saturating_sub(first(counts.iter().rev(), beyond));
    (low as u16, high as u16)
}

/// The value from 0 to `most` that was scaled to `value` of `full`.
pub(super) fn as_stored(value: u16, full: u16, most: u16) -> u16 {
    ((u32::from(value) * u32::from(most) + u32::from(full) / 2) / u32::from(full)) as u16
}

/// `value` on a scale from `low` = 0 to `high` = 255, rounded.
fn scaled(value: u16, low: u16, high: u16) -> u8 {
    let range = u32::from(high.saturating_sub(low)).max(1);
    let above = u32::from(value.saturating_sub(low)).min(range);
    ((above * 255 + range / 2) / range) as u8
}

/// The form of a [`Window`] in files.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Word(String),
    Values([u16; 2]),
}

impl From<Window> for Written {
    fn from(window: Window) -> Self {
        match window {
            Window::Full => Self::Word("full".to_owned()),
            Window::Image => Self::Word("image".to_owned()),
            Window::Values { low, high } => Self::Values([low, high]),
        }
    }
}

impl TryFrom<Written> for Window {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Word(word) if word == "full" => Ok(Self::Full),
            Written::Word(word) if word == "image" => Ok(Self::Image),
            Written::Values([low, high]) if low < high => Ok(Self::Values { low, high }),
            _ => Err("expected \"full\", \"image\" or [low, high] with low < high"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_map_their_ends_to_black_and_white() {
        let full = Window::Full.of_16_bits([].into_iter(), u16::MAX);
        assert_eq!([0, 128, 129, 257, 65406, 65407, 65535].map(full), [0, 0, 1, 1, 254, 255, 255]);
        let twelve_bits = Window::Values { low: 100, high: 4095 }.of_16_bits([].into_iter(), u16::MAX);
        assert_eq!([0, 100, 2098, 4095, 60000].map(twelve_bits), [0, 0, 128, 255, 255]);
        let own = Window::Image.of_16_bits([300, 500, 400].into_iter(), u16::MAX);
        assert_eq!([300, 400, 500].map(own), [0, 128, 255]);
        // Hot and dead pixels are as white and as black as others.
        let outliers = (0..1500).map(|at| [300, 500, 400][at % 3]).chain([65535, 0]);
        let own = Window::Image.of_16_bits(outliers, u16::MAX);
        assert_eq!([0, 300, 400, 500, 65535].map(own), [0, 0, 128, 255, 255]);
        // Three of 1,503 are too many for outliers, and of 400 are each.
        let bright = (0..1500).map(|at| [300, 500, 400][at % 3]).chain([700; 3]);
        assert_eq!(Window::Image.of_16_bits(bright, u16::MAX)(500), 128);
        let few = (0..400).map(|at| 300 + at % 2 * 200).chain([700]);
        assert_eq!(Window::Image.of_16_bits(few, u16::MAX)(500), 128);
        // But for outliers this one would be uniform.
        let stars = Window::Image.of_16_bits([30; 5000].into_iter().chain([80]), u16::MAX);
        assert_eq!([30, 55, 80].map(stars), [0, 128, 255]);
        let even = Window::Image.of_16_bits([257 * 7; 3].into_iter(), u16::MAX);
        assert_eq!(even(257 * 7), 7);
    }

    #[test]
    fn what_was_scaled_is_as_stored_again() {
        for (full, most) in [(255, 1), (255, 100), (255, 254), (65535, 256), (65535, 4095), (65535, 40_000)] {
            for value in 0..=most {
                // As the `image` crate scales.
                let read = (f32::from(value) * (f32::from(full) / f32::from(most))).round() as u16;
                assert_eq!(as_stored(read, full, most), value, "of {most}");
            }
        }
    }

    #[test]
    fn grey_of_8_bits_has_its_own_scale() {
        let mut pixels = [10, 20, 30, 200];
        Window::Full.apply_to_grey(&mut pixels);
        assert_eq!(pixels, [10, 20, 30, 200]);
        Window::Values { low: 10, high: 30 }.apply_to_grey(&mut pixels);
        assert_eq!(pixels, [0, 128, 255, 255]);
        let mut pixels = [40, 50, 60];
        Window::Image.apply_to_grey(&mut pixels);
        assert_eq!(pixels, [0, 128, 255]);
        let mut pixels = [40, 50, 60].repeat(300);
        pixels[0] = 255;
        Window::Image.apply_to_grey(&mut pixels);
        assert_eq!(pixels[..6], [255, 128, 255, 0, 128, 255]);
        // Of 784 values one is an outlier; of three channels each counts once.
        let mut pixels = [40, 50, 60, 50].repeat(196);
        pixels[3] = 255;
        let mut rgb: Vec<u8> = pixels.iter().flat_map(|&value| [value; 3]).collect();
        Window::Image.apply_to_grey(&mut pixels);
        Window::Image.apply_to_grey_rgb(&mut rgb);
        assert_eq!(pixels[..3], [0, 128, 255]);
        assert!(rgb.iter().step_by(3).eq(&pixels));
    }
}
