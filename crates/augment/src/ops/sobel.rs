//! Sobel filter: edges.

use serde::{Deserialize, Serialize};

use super::{Draw, Step, Steps};
use crate::planes::Planes;
use crate::{AugmentError, Stream, check, decimal};

/// Replaces each channel by the magnitude of its gradient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sobel {
    /// Probability.
    #[serde(serialize_with = "decimal::one")]
    pub prob: f32,
}

impl Default for Sobel {
    fn default() -> Self {
        Self { prob: 1.0 }
    }
}

impl Draw for Sobel {
    fn check(&self) -> Result<(), AugmentError> {
        check::probability("sobel.prob", self.prob)
    }

    fn draw(&self, _side: u32, stream: &mut Stream, steps: &mut Steps) {
        if stream.chance(self.prob) {
            steps.push(Step::Sobel);
        }
    }
}

/// `clip(sqrt(dx^2 + dy^2))` with the kernels [-1 0 1; -2 0 2; -1 0 1] and its transpose, the view mirrored at its
/// outermost pixels: TensorFlow's `sobel_edges`.
pub(crate) fn sobel(planes: &mut Planes, spare: &mut Vec<f32>) {
    let (side, pitch) = (planes.side(), planes.pitch());
    // The two neighbours of a row or column; at the border, the inner one also replaces the missing one.
    let around = |place: usize| match place {
        0 => [1.min(side - 1); 2],
        place if place == side - 1 => [place - 1; 2],
        place => [place - 1, place + 1],
    };
    for plane in planes.split_mut() {
        spare.clear();
        spare.extend_from_slice(plane);
        for y in 0..side {
            let [above, below] = around(y);
            for x in 0..side {
                let [left, right] = around(x);
                let at = |y: usize, x: usize| spare[y * pitch + x];
                let dx = (at(above, right) - at(above, left))
                    + 2.0 * (at(y, right) - at(y, left))
                    + (at(below, right) - at(below, left));
                let dy = (at(below, left) - at(above, left))
                    + 2.0 * (at(below, x) - at(above, x))
                    + (at(below, right) - at(above, right));
                plane[y * pitch + x] = (dx * dx + dy * dy).sqrt().min(1.0);
            }
        }
    }
}
