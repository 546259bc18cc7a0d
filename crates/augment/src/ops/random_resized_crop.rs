//! Random resized crop: where to cut.

use serde::{Deserialize, Serialize};
use simclr_words::words;

use super::{Draw, Steps};
use crate::{AugmentError, Stream, check, decimal};

/// A rectangle of whole pixels inside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

impl CropBox {
    /// The whole of an image.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    /// Whether the box has pixels and all of them lie inside an image of `width` x `height`.
    pub fn fits(&self, width: u32, height: u32) -> bool {
        let inside = |start: u32, length: u32, end: u32| {
            length > 0 && u64::from(start) + u64::from(length) <= u64::from(end)
        };
        inside(self.left, self.width, width) && inside(self.top, self.height, height)
    }
}

impl CropBox {
    /// Converts a box inside of the part `whole` of an image to a box of the image.
    pub(crate) fn within(self, whole: CropBox) -> Self {
        Self { left: whole.left + self.left, top: whole.top + self.top, ..self }
    }
}

/// How many boxes are tried before the whole image is taken, as in the authors' code.
const TRIES: usize = 100;

words! {
    /// How the aspect ratio of a random resized crop is distributed over its range.
    #[derive(Default)]
    AspectLaw {
        /// Uniform, as in the authors' code.
        #[default]
        Uniform = "uniform",
        /// Uniform in the logarithm, as in torchvision.
        LogUniform = "log_uniform",
    }
}

/// Resizes a random part of the image to the view. Must be the first operator of its list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// Smallest and largest fraction of the image's area, in (0, 1]; uniform between them. [1, 1] on a square image
    /// keeps it whole.
    #[serde(serialize_with = "decimal::pair")]
    pub area: [f32; 2],
    /// Smallest and largest width / height, in [0.01, 100].
    #[serde(serialize_with = "decimal::pair")]
    pub aspect: [f32; 2],
    /// Distribution of the aspect ratio.
    pub aspect_law: AspectLaw,
}

impl Default for RandomResizedCrop {
    fn default() -> Self {
        Self { area: [0.08, 1.0], aspect: [0.75, 4.0 / 3.0], aspect_law: AspectLaw::Uniform }
    }
}

impl Draw for RandomResizedCrop {
    fn most_steps(&self) -> usize {
        0
    }

    fn check(&self) -> Result<(), AugmentError> {
        check::range(
            "random_resized_crop.area",
            self.area,
            |v| v > 0.0 && v <= 1.0,
            "two fractions of the image's area [smallest, largest], above 0 and at most 1",
        )?;
        check::range(
            "random_resized_crop.aspect",
            self.aspect,
            |v| (0.01..=100.0).contains(&v),
            "two ratios of width to height [smallest, largest], each from 0.01 to 100",
        )
    }

    /// Nothing: where to cut is drawn before all steps.
    fn draw(&self, _side: u32, _stream: &mut Stream, _steps: &mut Steps) {}
}

impl RandomResizedCrop {
    /// Draws an area and an aspect ratio (width / height) until the box that they make fits into an image of
    /// `width` x `height` pixels, then its place, uniform over all whole-pixel places. The whole image if 100
    /// boxes do not fit.
    pub(crate) fn draw_box(&self, width: u32, height: u32, stream: &mut Stream) -> CropBox {
        let image_area = f64::from(width) * f64::from(height);
        let (area, aspect) = (self.area.map(f64::from), self.aspect.map(f64::from));
        for _ in 0..TRIES {
            let area = stream.uniform(area) * image_area;
            let aspect = match self.aspect_law {
                AspectLaw::Uniform => stream.uniform(aspect),
                AspectLaw::LogUniform => stream.uniform(aspect.map(f64::ln)).exp(),
            };
            // A float too large for u32 saturates, and then does not fit.
            let crop_width = (area * aspect).sqrt().round() as u32;
            let crop_height = (area / aspect).sqrt().round() as u32;
            if (1..=width).contains(&crop_width) && (1..=height).contains(&crop_height) {
                // Neither sum overflows: a crop is at least one pixel wide and high.
                return CropBox {
                    left: stream.below(width - crop_width + 1),
                    top: stream.below(height - crop_height + 1),
                    width: crop_width,
                    height: crop_height,
                };
            }
        }
        CropBox::whole(width, height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(area: [f32; 2], aspect: [f32; 2], aspect_law: AspectLaw) -> RandomResizedCrop {
        RandomResizedCrop { area, aspect, aspect_law }
    }

    #[test]
    fn boxes_always_fit() {
        let law = law([0.08, 1.0], [0.75, 4.0 / 3.0], AspectLaw::Uniform);
        let mut stream = Stream::new(1, 0, 0, 0);
        for (width, height) in [(1, 1), (1, 2), (3, 1), (30_000, 1), (1, 30_000), (32, 32), (500, 375)] {
            for _ in 0..200 {
                let crop = law.draw_box(width, height, &mut stream);
                assert!(crop.fits(width, height), "{crop:?} in {width} x {height}");
            }
        }
    }

    #[test]
    fn the_whole_image_is_taken_when_no_box_fits() {
        let law = law([1.0, 1.0], [1.0, 1.0], AspectLaw::Uniform);
        let mut stream = Stream::new(1, 0, 0, 0);
        assert_eq!(law.draw_box(100, 10, &mut stream), CropBox::whole(100, 10));
        assert_eq!(law.draw_box(48, 48, &mut stream), CropBox::whole(48, 48));
    }

    #[test]
    fn fits_does_not_overflow() {
        let crop = CropBox { left: u32::MAX, top: 0, width: u32::MAX, height: 1 };
        assert!(!crop.fits(u32::MAX, 1));
        assert!(!CropBox::whole(0, 1).fits(4, 4));
    }
}
