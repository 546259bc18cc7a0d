//! Gaussian noise, independent for each value.

use serde::{Deserialize, Serialize};

use super::{Draw, Step, Steps};
use crate::planes::Planes;
use crate::{AugmentError, Stream, check, decimal};

/// Adds normal noise of mean 0 to every channel of every pixel, and clips.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GaussianNoise {
    /// Probability.
    #[serde(serialize_with = "decimal::one")]
    pub prob: f32,
    /// Smallest and largest standard deviation in units of the full range, in [0, 1]; uniform between them.
    #[serde(serialize_with = "decimal::pair")]
    pub sigma: [f32; 2],
}

impl Default for GaussianNoise {
    fn default() -> Self {
        Self { prob: 1.0, sigma: [0.05, 0.2] }
    }
}

impl Draw for GaussianNoise {
    fn check(&self) -> Result<(), AugmentError> {
        check::probability("gaussian_noise.prob", self.prob)?;
        check::range(
            "gaussian_noise.sigma",
            self.sigma,
            |v| (0.0..=1.0).contains(&v),
            "two standard deviations [smallest, largest], each from 0 to 1 (the full range)",
        )
    }

    fn draw(&self, _side: u32, stream: &mut Stream, steps: &mut Steps) {
        if stream.chance(self.prob) {
            let sigma = stream.uniform(self.sigma.map(f64::from)) as f32;
            let key = u64::from(stream.below(u32::MAX));
            steps.push(Step::Noise { sigma, key });
        }
    }
}

/// `clip(value + sigma * n)`, n standard normal (Box and Muller), from the random stream keyed by `key`.
pub(crate) fn noise(planes: &mut Planes, sigma: f32, key: u64) {
    let mut stream = Stream::new(key, 0, 0, 0);
    let mut waiting = None;
    let mut normal = || {
        waiting.take().unwrap_or_else(|| {
            // 1 - u is never 0.
            let length = (-2.0 * (1.0 - stream.unit()).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * stream.unit()).sin_cos();
            waiting = Some(length * sin);
            length * cos
        })
    };
    for value in planes.rows_mut().flatten() {
        *value = (*value + sigma * normal() as f32).clamp(0.0, 1.0);
    }
}
