//! Colour jitter: brightness, contrast, saturation and hue, in a random order.

use serde::{Deserialize, Serialize};
use simclr_words::words;

use super::{Draw, Step, Steps};
use crate::{AugmentError, Stream, check, decimal};

words! {
    /// What the brightness factor does to a value.
    #[derive(Default)]
    Brightness {
        /// Multiplies, by a factor in [max(0, 1 - 0.8 s), 1 + 0.8 s]: SimCLR v2 and torchvision.
        #[default]
        Multiplicative = "multiplicative",
        /// Adds a shift in [-0.8 s, 0.8 s]: the first version of the authors' code.
        Additive = "additive",
    }
}

/// Brightness, contrast, saturation and hue, in a random order, each followed by a clip to [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColorJitter {
    /// Probability of all four together.
    #[serde(serialize_with = "decimal::one")]
    pub prob: f32,
    /// Strength s, in [0, 2.5]: brightness, contrast and saturation factors in [max(0, 1 - 0.8 s), 1 + 0.8 s],
    /// hue shift in [-0.2 s, 0.2 s] of a full turn.
    #[serde(serialize_with = "decimal::one")]
    pub strength: f32,
    /// Whether brightness multiplies or adds.
    pub brightness: Brightness,
}

impl Default for ColorJitter {
    fn default() -> Self {
        Self { prob: 0.8, strength: 1.0, brightness: Brightness::Multiplicative }
    }
}

impl Draw for ColorJitter {
    fn most_steps(&self) -> usize {
        4
    }

    fn check(&self) -> Result<(), AugmentError> {
        check::probability("color_jitter.prob", self.prob)?;
        check::value(
            "color_jitter.strength",
            self.strength,
            |v| (0.0..=2.5).contains(&v),
            "from 0 (no colour jitter) to 2.5 (hue by up to half a turn)",
        )
    }

    /// Draws the four parameters, then the order, uniform over all 24.
    fn draw(&self, _side: u32, stream: &mut Stream, steps: &mut Steps) {
        // At strength 0 each operator would be the identity, at full cost.
        let prob = if self.strength > 0.0 { self.prob } else { 0.0 };
        if !stream.chance(prob) {
            return;
        }
        let reach = 0.8 * f64::from(self.strength);
        let factors = [(1.0 - reach).max(0.0), 1.0 + reach];
        let brightness = match self.brightness {
            Brightness::Multiplicative => Step::Brightness(stream.uniform(factors) as f32),
            Brightness::Additive => Step::BrightnessShift(stream.uniform([-reach, reach]) as f32),
        };
        let turn = 0.2 * f64::from(self.strength);
        let mut operators = [
            brightness,
            Step::Contrast(stream.uniform(factors) as f32),
            Step::Saturation(stream.uniform(factors) as f32),
            Step::Hue(stream.uniform([-turn, turn]) as f32),
        ];
        for last in (1..operators.len()).rev() {
            operators.swap(last, stream.below(last as u32 + 1) as usize);
        }
        operators.into_iter().for_each(|operator| steps.push(operator));
    }
}
