//! Cutout: fills a square (DeVries and Taylor, arXiv:1708.04552).

use serde::{Deserialize, Serialize};

use super::{Draw, Step, Steps};
use crate::planes::Planes;
use crate::{AugmentError, Stream, check, decimal};

/// Fills a square whose centre is uniform over the view; the part beyond the border is cut off, as in the authors'
/// code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cutout {
    /// Probability.
    #[serde(serialize_with = "decimal::one")]
    pub prob: f32,
    /// Smallest and largest side of the square, as a fraction of the view's, in (0, 1]; uniform between them.
    #[serde(serialize_with = "decimal::pair")]
    pub side: [f32; 2],
    /// The value of the filled pixels, in [0, 1]: 0 is black.
    #[serde(serialize_with = "decimal::one")]
    pub fill: f32,
}

impl Default for Cutout {
    fn default() -> Self {
        Self { prob: 1.0, side: [0.25, 0.5], fill: 0.0 }
    }
}

impl Draw for Cutout {
    fn check(&self) -> Result<(), AugmentError> {
        check::probability("cutout.prob", self.prob)?;
        check::range(
            "cutout.side",
            self.side,
            |v| v > 0.0 && v <= 1.0,
            "two fractions of the view's side [smallest, largest], above 0 and at most 1",
        )?;
        check::value("cutout.fill", self.fill, |v| (0.0..=1.0).contains(&v), "a value from 0 to 1")
    }

    fn draw(&self, side: u32, stream: &mut Stream, steps: &mut Steps) {
        if !stream.chance(self.prob) {
            return;
        }
        let length = (stream.uniform(self.side.map(f64::from)) * f64::from(side)).round().max(1.0) as u32;
        let mut span = || {
            let center = stream.below(side);
            let start = center.saturating_sub(length / 2);
            [start, (center + length - length / 2).min(side)]
        };
        let (columns, rows) = (span(), span());
        steps.push(Step::Cutout { columns, rows, fill: self.fill });
    }
}

/// Fills the rectangle of `columns` and `rows`, each as [first, end).
pub(crate) fn cutout(planes: &mut Planes, columns: [u32; 2], rows: [u32; 2], fill: f32) {
    for y in rows[0]..rows[1] {
        for row in planes.row_mut(y as usize) {
            row[columns[0] as usize..columns[1] as usize].fill(fill);
        }
    }
}
