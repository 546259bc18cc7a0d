//! Greyscale: three equal channels.

use serde::{Deserialize, Serialize};

use super::{Draw, Step, Steps};
use crate::simd::Vector;
use crate::{AugmentError, Stream, check, decimal};

/// Luma weights of BT.601, as Pillow and TensorFlow round them to three digits.
pub(crate) const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// Turns a view grey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grayscale {
    /// Probability.
    #[serde(serialize_with = "decimal::one")]
    pub prob: f32,
}

impl Default for Grayscale {
    fn default() -> Self {
        Self { prob: 0.2 }
    }
}

impl Draw for Grayscale {
    fn check(&self) -> Result<(), AugmentError> {
        check::probability("grayscale.prob", self.prob)
    }

    fn draw(&self, _side: u32, stream: &mut Stream, steps: &mut Steps) {
        if stream.chance(self.prob) {
            steps.push(Step::Gray);
        }
    }
}

/// Grey values of pixels.
#[inline(always)]
pub(crate) fn luma<V: Vector>([red, green, blue]: [V; 3]) -> V {
    V::splat(LUMA[0]) * red + V::splat(LUMA[1]) * green + V::splat(LUMA[2]) * blue
}

/// Replaces each channel by the pixel's grey value, 0.299 R + 0.587 G + 0.114 B.
#[inline(always)]
pub(crate) fn grayscale<V: Vector>(pixels: [V; 3]) -> [V; 3] {
    [luma(pixels); 3]
}
