//! The parameters of one view.

use crate::{CropBox, Step, Steps};

/// All random parameters of one view, drawn for an image of one size. They apply in the order of the fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Width and height in pixels of the image that the recipe was drawn for.
    pub image: (u32, u32),
    /// The part of the image that is cut out and resized to the view.
    pub crop: CropBox,
    /// Whether the view is mirrored left to right as it is resized.
    pub flip: bool,
    /// The steps after the resize.
    pub steps: Steps,
}

impl Recipe {
    /// Creates the recipe that only resizes the whole of an image of `width` x `height` pixels.
    pub fn identity(width: u32, height: u32) -> Self {
        Self {
            image: (width, height),
            crop: CropBox::whole(width, height),
            flip: false,
            steps: Steps::default(),
        }
    }

    /// Describes the operators in order, a few words each: "crop 31%" (of the area), "aspect 1.20" (of the crop,
    /// width / height), "flip", "brightness x1.42", "contrast x0.70", "saturation x1.05", "hue -0.08" (turns),
    /// "gray", "blur 1.3" (sigma).
    pub fn describe(&self) -> Vec<String> {
        let (width, height) = (f64::from(self.crop.width), f64::from(self.crop.height));
        let area = width * height / (f64::from(self.image.0) * f64::from(self.image.1));
        let mut words = vec![format!("crop {:.0}%", 100.0 * area), format!("aspect {:.2}", width / height)];
        if self.flip {
            words.push(Step::Flip.describe());
        }
        words.extend(self.steps.iter().map(|step| step.describe()));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlurPadding;

    #[test]
    fn the_words_follow_the_order_of_application() {
        let recipe = Recipe {
            image: (100, 50),
            crop: CropBox { left: 1, top: 2, width: 60, height: 40 },
            flip: true,
            steps: Steps::from([
                Step::Hue(0.08),
                Step::Brightness(1.424),
                Step::Saturation(0.5),
                Step::Contrast(0.7),
                Step::Gray,
                Step::Blur { sigma: 1.26, padding: BlurPadding::Zero },
            ]),
        };
        assert_eq!(
            recipe.describe(),
            [
                "crop 48%",
                "aspect 1.50",
                "flip",
                "hue +0.08",
                "brightness x1.42",
                "saturation x0.50",
                "contrast x0.70",
                "gray",
                "blur 1.3"
            ]
        );
        assert_eq!(Recipe::identity(3, 4).describe(), ["crop 100%", "aspect 0.75"]);
        assert_eq!(Step::BrightnessShift(-0.5).describe(), "brightness -0.50");
    }
}
