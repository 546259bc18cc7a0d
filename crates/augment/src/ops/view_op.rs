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

/// [`ViewOp`], and what each of its operators is called in a configuration.
macro_rules! view_ops {
    ($($(#[$doc:meta])* $operator:ident = $name:literal),+ $(,)?) => {
        /// An operator with its settings: an entry `[[view.a]]` of a configuration.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "op")]
        pub enum ViewOp {
            $($(#[$doc])* #[serde(rename = $name)] $operator($operator),)+
        }

        impl ViewOp {
            /// What the operators are called in a configuration, in their order here.
            pub const NAMES: &[&'static str] = &[$($name),+];

            /// The law of its draws.
            fn law(&self) -> &dyn Draw {
                match self { $(Self::$operator(law) => law,)+ }
            }
        }
    };
}

view_ops! {
    /// Cut a random part out and resize it: only as the first of its list, without which the whole image is resized.
    RandomResizedCrop = "random_resized_crop",
    /// Mirror left to right.
    HorizontalFlip = "horizontal_flip",
    /// Brightness, contrast, saturation and hue.
    ColorJitter = "color_jitter",
    /// Three equal channels.
    Grayscale = "grayscale",
    /// Gaussian blur.
    GaussianBlur = "gaussian_blur",
    /// Invert bright values.
    Solarize = "solarize",
    /// Fill a square.
    Cutout = "cutout",
    /// Turn by right angles.
    Rotation = "rotation",
    /// Add normal noise.
    GaussianNoise = "gaussian_noise",
    /// Leave edges only.
    Sobel = "sobel",
    /// A pair of operators of a policy.
    AutoAugment = "auto_augment",
}

impl ViewOp {
    /// Checks every setting.
    pub(crate) fn check(&self) -> Result<(), AugmentError> {
        self.law().check()
    }

    /// The most steps that a draw makes.
    pub(crate) fn most_steps(&self) -> usize {
        self.law().most_steps()
    }

    /// Draws the steps of a view of `side` x `side` pixels. A crop makes none.
    pub(crate) fn draw(&self, side: u32, stream: &mut Stream, steps: &mut Steps) {
        self.law().draw(side, stream, steps);
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
