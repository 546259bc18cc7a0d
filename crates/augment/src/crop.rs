//! Random resized crop: where to cut.

use crate::{AspectLaw, Stream, ViewConfig};

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

/// Tries before the whole image is taken, as in the authors' code.
const TRIES: usize = 100;

/// The law of random resized crops for square views.
#[derive(Debug, Clone)]
pub(crate) struct CropLaw {
    area: [f64; 2],
    aspect: [f64; 2],
    aspect_law: AspectLaw,
}

impl CropLaw {
    /// `config` has been validated.
    pub fn new(config: &ViewConfig) -> Self {
        Self {
            area: config.crop_area.map(f64::from),
            aspect: config.crop_aspect.map(f64::from),
            aspect_law: config.crop_aspect_law,
        }
    }

    /// Draws an area and an aspect ratio (width / height) until the box that they make fits into an image of
    /// `width` x `height` pixels, then its place, uniform over all whole-pixel places. The whole image if 100
    /// boxes do not fit.
    pub fn draw(&self, width: u32, height: u32, stream: &mut Stream) -> CropBox {
        let image_area = f64::from(width) * f64::from(height);
        for _ in 0..TRIES {
            let area = stream.uniform(self.area) * image_area;
            let aspect = match self.aspect_law {
                AspectLaw::Uniform => stream.uniform(self.aspect),
                AspectLaw::LogUniform => stream.uniform(self.aspect.map(f64::ln)).exp(),
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

    fn law(area: [f32; 2], aspect: [f32; 2], aspect_law: AspectLaw) -> CropLaw {
        CropLaw::new(&ViewConfig {
            crop_area: area,
            crop_aspect: aspect,
            crop_aspect_law: aspect_law,
            ..ViewConfig::default()
        })
    }

    #[test]
    fn boxes_always_fit() {
        let law = law([0.08, 1.0], [0.75, 4.0 / 3.0], AspectLaw::Uniform);
        let mut stream = Stream::new(1, 0, 0, 0);
        for (width, height) in [(1, 1), (1, 2), (3, 1), (30_000, 1), (1, 30_000), (32, 32), (500, 375)] {
            for _ in 0..200 {
                let crop = law.draw(width, height, &mut stream);
                assert!(crop.fits(width, height), "{crop:?} in {width} x {height}");
            }
        }
    }

    #[test]
    fn the_whole_image_is_taken_when_no_box_fits() {
        let law = law([1.0, 1.0], [1.0, 1.0], AspectLaw::Uniform);
        let mut stream = Stream::new(1, 0, 0, 0);
        assert_eq!(law.draw(100, 10, &mut stream), CropBox::whole(100, 10));
        assert_eq!(law.draw(48, 48, &mut stream), CropBox::whole(48, 48));
    }

    #[test]
    fn fits_does_not_overflow() {
        let crop = CropBox { left: u32::MAX, top: 0, width: u32::MAX, height: 1 };
        assert!(!crop.fits(u32::MAX, 1));
        assert!(!CropBox::whole(0, 1).fits(4, 4));
    }
}
