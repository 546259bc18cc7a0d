//! Horizontal flip: left becomes right.

use serde::{Deserialize, Serialize};

use super::{Draw, Step, Steps};
use crate::planes::Planes;
use crate::{AugmentError, Stream, check, decimal};

/// Mirrors a view left to right. Directly after the crop it is part of the resize and costs nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HorizontalFlip {
    /// Probability.
    #[serde(serialize_with = "decimal::one")]
    pub prob: f32,
}

impl Default for HorizontalFlip {
    fn default() -> Self {
        Self { prob: 0.5 }
    }
}

impl Draw for HorizontalFlip {
    fn check(&self) -> Result<(), AugmentError> {
        check::probability("horizontal_flip.prob", self.prob)
    }

    fn draw(&self, _side: u32, stream: &mut Stream, steps: &mut Steps) {
        if stream.chance(self.prob) {
            steps.push(Step::Flip);
        }
    }
}

/// Mirrors every row.
pub(crate) fn flip(planes: &mut Planes) {
    planes.rows_mut().for_each(<[f32]>::reverse);
}
