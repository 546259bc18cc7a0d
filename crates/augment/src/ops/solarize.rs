//! Solarisation: bright values are inverted.

use serde::{Deserialize, Serialize};

use super::{Draw, Step, Steps};
use crate::simd::{Vector, each};
use crate::{AugmentError, Stream, check, decimal};

/// Inverts every value at or above a threshold, as in torchvision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Solarize {
    /// Probability.
    #[serde(serialize_with = "decimal::one")]
    pub prob: f32,
    /// Smallest and largest threshold, in [0, 1]; uniform between them.
    #[serde(serialize_with = "decimal::pair")]
    pub threshold: [f32; 2],
}

impl Default for Solarize {
    fn default() -> Self {
        Self { prob: 1.0, threshold: [0.5, 0.5] }
    }
}

impl Draw for Solarize {
    fn check(&self) -> Result<(), AugmentError> {
        check::probability("solarize.prob", self.prob)?;
        check::range(
            "solarize.threshold",
            self.threshold,
            |v| (0.0..=1.0).contains(&v),
            "two thresholds [smallest, largest], each from 0 to 1",
        )
    }

    fn draw(&self, _side: u32, stream: &mut Stream, steps: &mut Steps) {
        if stream.chance(self.prob) {
            steps.push(Step::Solarize(stream.uniform(self.threshold.map(f64::from)) as f32));
        }
    }
}

/// `1 - value` where `value >= threshold`.
#[inline(always)]
pub(crate) fn solarize<V: Vector>(pixels: [V; 3], threshold: f32) -> [V; 3] {
    let threshold = V::splat(threshold);
    each!(pixels, value => value.if_less(threshold, value, V::splat(1.0) - value))
}
