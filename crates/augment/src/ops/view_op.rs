//! An entry of a list of operators.

use serde::{Deserialize, Serialize};

use super::auto_augment::AutoAugment;
use super::blur::GaussianBlur;
use super::color_jitter::ColorJitter;
use super::cutout::Cutout;
use super::gaussian_noise::GaussianNoise;
use super::grayscale::Grayscale;
use super::horizontal_flip::HorizontalFlip;
use super::random_resized_crop::RandomResizedCrop;
use super::rotation::Rotation;
use super::sobel::Sobel;
use super::solarize::Solarize;
use super::{Draw, Steps};
use crate::{AugmentError, Stream};

/// An operator with its settings: an entry `[[view.a]]` of a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ViewOp {
    /// Cut a random part out and resize it: only as the first of its list, without which the whole image is resized.
    RandomResizedCrop(RandomResizedCrop),
    /// Mirror left to right.
    HorizontalFlip(HorizontalFlip),
    /// Brightness, contrast, saturation and hue.
    ColorJitter(ColorJitter),
    /// Three equal channels.
    Grayscale(Grayscale),
    /// Gaussian blur.
    GaussianBlur(GaussianBlur),
    /// Invert bright values.
    Solarize(Solarize),
    /// Fill a square.
    Cutout(Cutout),
    /// Turn by right angles.
    Rotation(Rotation),
    /// Add normal noise.
    GaussianNoise(GaussianNoise),
    /// Leave edges only.
    Sobel(Sobel),
    /// A pair of operators of a policy.
    AutoAugment(AutoAugment),
}

/// Calls `$method` of the law inside a [`ViewOp`], or `$crop` on that of a crop.
macro_rules! law {
    ($op:expr, $crop:pat => $of_crop:expr, $law:ident => $of_law:expr) => {
        match $op {
            $crop => $of_crop,
            ViewOp::HorizontalFlip($law) => $of_law,
            ViewOp::ColorJitter($law) => $of_law,
            ViewOp::Grayscale($law) => $of_law,
            ViewOp::GaussianBlur($law) => $of_law,
            ViewOp::Solarize($law) => $of_law,
            ViewOp::Cutout($law) => $of_law,
            ViewOp::Rotation($law) => $of_law,
            ViewOp::GaussianNoise($law) => $of_law,
            ViewOp::Sobel($law) => $of_law,
            ViewOp::AutoAugment($law) => $of_law,
        }
    };
}

impl ViewOp {
    /// Checks every setting.
    pub(crate) fn check(&self) -> Result<(), AugmentError> {
        law!(self, Self::RandomResizedCrop(crop) => crop.check(), law => law.check())
    }

    /// The most steps that a draw makes.
    pub(crate) fn most_steps(&self) -> usize {
        fn of<D: Draw>(_: &D) -> usize {
            D::MOST_STEPS
        }
        law!(self, Self::RandomResizedCrop(_) => 0, law => of(law))
    }

    /// Draws the steps of a view of `side` x `side` pixels. A crop makes none.
    pub(crate) fn draw(&self, side: u32, stream: &mut Stream, steps: &mut Steps) {
        law!(self, Self::RandomResizedCrop(_) => (), law => law.draw(side, stream, steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of the operators of studies, which no key of `[view]` sets.
    #[test]
    fn defaults_stay_what_they_are() {
        for (op, whole) in [
            ("solarize", r#""prob":1.0,"threshold":[0.5,0.5]"#),
            ("cutout", r#""prob":1.0,"side":[0.25,0.5],"fill":0.0"#),
            ("rotation", r#""prob":1.0,"degrees":[90.0,270.0]"#),
            ("gaussian_noise", r#""prob":1.0,"sigma":[0.05,0.2]"#),
            ("sobel", r#""prob":1.0"#),
            ("auto_augment", r#""prob":1.0,"policy":"imagenet""#),
        ] {
            let named: ViewOp = serde_json::from_str(&format!(r#"{{"op":"{op}"}}"#)).unwrap();
            let told: ViewOp = serde_json::from_str(&format!(r#"{{"op":"{op}",{whole}}}"#)).unwrap();
            assert_eq!(named, told);
        }
    }
}
