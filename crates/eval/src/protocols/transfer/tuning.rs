//! The settings of fine-tuning, and the grid it chooses rate and decay from.

use serde::{Deserialize, Serialize};
use simclr_train::config::{Auto, Memory};

use crate::EvalError;
use crate::protocols::sgd::Sgd;

/// Settings for fine-tuning a network on a data set; [`Default`] has the paper's (arXiv:2002.05709, B.8).
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// Steps per training.
    pub steps: u64,
    /// Images per step, at most half of the training images.
    pub batch: usize,
    /// The rates and decays to choose from.
    pub grid: Grid,
    /// What is kept for the backward pass; it does not change the result's bits.
    pub memory: Auto<Memory>,
}

/// Rates and decays; every combination is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Rates of the first step, from which a cosine schedule goes down to 0.
    pub rates: Vec<f64>,
    /// Decays, which are divided by the rate: at the first rate, a step shrinks weights by this share. 0 means none.
    pub decays: Vec<f64>,
}

/// A rate and a decay that were tried, with the result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GridPoint {
    /// The rate.
    pub rate: f64,
    /// The decay, not yet divided by the rate.
    pub decay: f64,
    /// The data set's metric on the validation images; `None` if training diverged.
    pub validation: Option<f64>,
    /// Validation images that could be read.
    pub validation_images: usize,
    /// Whether training on all images diverged, after this point was chosen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fails_on_all: bool,
    /// How long it took.
    pub seconds: f64,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning { steps: 20_000, batch: 256, grid: Grid::default(), memory: Auto::Auto }
    }
}

impl Default for Grid {
    /// 7 rates from 1e-4 to 1e-1; 7 decays from 1e-6 to 1e-3, and 0; both log-spaced.
    fn default() -> Grid {
        let spaced = |first: i32| (0..7).map(move |i| 10f64.powf(f64::from(first) + f64::from(i) / 2.0));
        Grid { rates: spaced(-4).collect(), decays: std::iter::once(0.0).chain(spaced(-6)).collect() }
    }
}

impl Grid {
    /// Every (rate, decay), in the order of the rates.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.rates.iter().flat_map(|&rate| self.decays.iter().map(move |&decay| (rate, decay)))
    }
}

impl Tuning {
    /// Images per step for a set of `images`, up to half of which may be broken.
    pub fn batch_of(&self, images: usize) -> usize {
        self.batch.min(images.div_ceil(2)).max(1)
    }

    pub(super) fn check(&self) -> Result<(), EvalError> {
        let option = |name, found, expected| Err(EvalError::Option { name, found, expected });
        let Grid { rates, decays } = &self.grid;
        match (rates.is_empty(), decays.is_empty()) {
            (true, _) => return option("rates", "empty".to_owned(), "at least one"),
            (_, true) => return option("decays", "empty".to_owned(), "at least one, 0 for none"),
            _ => {}
        }
        self.grid.points().try_for_each(|(rate, decay)| self.sgd(1, rate, decay, 0).check_ranges())
    }

    /// The settings of one training in batches of `batch`.
    pub(super) fn sgd(&self, batch: usize, rate: f64, decay: f64, seed: u64) -> Sgd {
        Sgd { epochs: 1, steps: Some(self.steps), batch, rate, weight_decay: decay / rate, seed }
    }
}

/// The decay of BatchNorm's running averages while a network is fine-tuned on `images` images: max(1 - 10 / s, 0.9)
/// for s steps per epoch, so that they average over a tenth of an epoch or more.
pub(super) fn norm_decay(images: usize, batch: usize) -> f32 {
    let steps = (images / batch.max(1)).max(1);
    (1.0 - 10.0 / steps as f64).max(0.9) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_the_papers() {
        let Grid { rates, decays } = Grid::default();
        let close = |value: f64, expected: f64| (value / expected - 1.0).abs() < 1e-12;
        assert_eq!((rates.len(), decays.len(), Grid::default().points().count()), (7, 8, 56));
        assert!(close(rates[0], 1e-4) && close(rates[2], 1e-3) && close(rates[6], 1e-1), "{rates:?}");
        assert!(close(decays[1], 1e-6) && close(decays[3], 1e-5) && close(decays[7], 1e-3), "{decays:?}");
        assert_eq!(decays[0], 0.0);
        for values in [&rates[..], &decays[1..]] {
            assert!(values.windows(2).all(|pair| close(pair[1] / pair[0], 10f64.sqrt())), "{values:?}");
        }
        let sgd = Tuning::default().sgd(256, 1e-2, 1e-5, 0);
        assert!(close(sgd.weight_decay, 1e-3) && sgd.steps == Some(20_000), "{sgd:?}");
    }

    #[test]
    fn averages_follow_the_epoch() {
        // 45,000 images are 175 steps of 256; up to 100 steps the usual 0.9 holds.
        assert_eq!(norm_decay(45_000, 256), (1.0 - 10.0 / 175.0) as f32);
        assert_eq!(norm_decay(256 * 1000, 256), 0.99);
        for images in [10, 256, 25_600] {
            assert_eq!(norm_decay(images, 256), 0.9);
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let fail = |tuning: Tuning| tuning.check().unwrap_err().to_string();
        let grid = |rates: &[f64], decays: &[f64]| Grid { rates: rates.to_vec(), decays: decays.to_vec() };
        let usual = Tuning::default;
        assert!(usual().check().is_ok());
        assert!(fail(Tuning { steps: 0, ..usual() }).contains("steps is 0"));
        assert!(fail(Tuning { grid: grid(&[], &[0.0]), ..usual() }).contains("rates is empty"));
        assert!(fail(Tuning { grid: grid(&[0.1], &[]), ..usual() }).contains("decays is empty"));
        assert!(fail(Tuning { grid: grid(&[0.1, -1.0], &[0.0]), ..usual() }).contains("rate is -1"));
        assert!(fail(Tuning { grid: grid(&[0.1], &[-1.0]), ..usual() }).contains("weight decay is -10"));
        assert_eq!((usual().batch_of(1000), usual().batch_of(100)), (256, 50));
    }
}
