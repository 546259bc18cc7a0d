//! Rotation by right angles.

use serde::{Deserialize, Serialize};

use super::{Draw, Step, Steps};
use crate::planes::Planes;
use crate::{AugmentError, Stream, check, decimal};

/// Turns a view counterclockwise by 90, 180 or 270 degrees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// Probability.
    #[serde(serialize_with = "decimal::one")]
    pub prob: f32,
    /// Smallest and largest angle, each 90, 180 or 270; each right angle between them is equally likely.
    #[serde(serialize_with = "decimal::pair")]
    pub degrees: [f32; 2],
}

impl Default for Rotation {
    fn default() -> Self {
        Self { prob: 1.0, degrees: [90.0, 270.0] }
    }
}

impl Draw for Rotation {
    fn check(&self) -> Result<(), AugmentError> {
        check::probability("rotation.prob", self.prob)?;
        check::range(
            "rotation.degrees",
            self.degrees,
            |v| [90.0, 180.0, 270.0].contains(&v),
            "two angles [smallest, largest], each 90, 180 or 270",
        )
    }

    fn draw(&self, _side: u32, stream: &mut Stream, steps: &mut Steps) {
        if stream.chance(self.prob) {
            let [low, high] = self.degrees.map(|degrees| degrees as u32 / 90);
            steps.push(Step::Rotate { quarters: low + stream.below(high - low + 1) });
        }
    }
}

/// Turns the view counterclockwise by `quarters` right angles.
pub(crate) fn rotate(planes: &mut Planes, quarters: u32, spare: &mut Vec<f32>) {
    let last = planes.side().saturating_sub(1);
    planes.resample(spare, |x, y| {
        Some(match quarters % 4 {
            0 => (x, y),
            1 => (last - y, x),
            2 => (last - x, last - y),
            _ => (y, last - x),
        })
    });
}
