//! The learning rate as a function of the step.

use std::f64::consts::PI;

use crate::Config;
use crate::config::ScheduleKind;

/// Linear warm-up from 0, then cosine decay to 0 or a constant.
///
/// A pure function of the step, so a resumed run cannot restart it. With N images, a batch of B and E epochs, the
/// warm-up takes `round(warmup_epochs * N // B)` steps and the cosine reaches 0 at step `N * E // B + 1`, as in the
/// official code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    peak: f64,
    kind: ScheduleKind,
    warmup: u64,
    end: u64,
}

impl Schedule {
    /// The schedule of a configuration on `images` training images.
    pub fn new(config: &Config, images: u64) -> Self {
        let batch = config.train.batch.max(1);
        let warmup = (config.optim.warmup_epochs * images as f64 / batch as f64).floor();
        let end = u128::from(images) * u128::from(config.train.epochs) / batch as u128 + 1;
        Self {
            peak: config.optim.peak_rate(batch),
            kind: config.optim.schedule,
            warmup: warmup as u64,
            end: u64::try_from(end).unwrap_or(u64::MAX),
        }
    }

    /// The number of steps that show each of `images` at least `epochs` times in batches of `batch`; a batch may end
    /// one epoch and begin the next.
    pub fn steps(images: u64, batch: u64, epochs: u64) -> u64 {
        let steps = (u128::from(images) * u128::from(epochs)).div_ceil(u128::from(batch.max(1)));
        u64::try_from(steps).unwrap_or(u64::MAX)
    }

    /// The learning rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step as f64 / self.warmup as f64);
        }
        match self.kind {
            ScheduleKind::Constant => self.peak,
            ScheduleKind::Cosine if step >= self.end => 0.0,
            ScheduleKind::Cosine => {
                let done = (step - self.warmup) as f64 / (self.end - self.warmup) as f64;
                self.peak * 0.5 * (1.0 + (PI * done).cos())
            }
        }
    }

    /// The peak learning rate.
    pub fn peak(&self) -> f64 {
        self.peak
    }

    /// The number of warm-up steps.
    pub fn warmup_steps(&self) -> u64 {
        self.warmup
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auto, Scaling};

    fn config(batch: usize, epochs: u64, rate: f64, scaling: Scaling, warmup: f64) -> Config {
        let mut config = Config::default();
        config.train.batch = batch;
        config.train.epochs = epochs;
        config.optim.rate = Auto::Value(rate);
        config.optim.scaling = scaling;
        config.optim.warmup_epochs = warmup;
        config
    }

    /// `WarmUpAndCosineDecay` of the official code with the CosineDecay that it calls, line by line.
    fn official(step: f64, images: f64, batch: f64, epochs: f64, warmup_epochs: f64, scaled: f64) -> f64 {
        let warmup_steps = (warmup_epochs * images / batch).floor().round();
        let rate = if warmup_steps != 0.0 { step / warmup_steps * scaled } else { scaled };
        let total_steps = (images * epochs / batch).floor() + 1.0;
        if step < warmup_steps {
            return rate;
        }
        let decay_steps = total_steps - warmup_steps;
        let completed = (step - warmup_steps).min(decay_steps) / decay_steps;
        scaled * 0.5 * (1.0 + (PI * completed).cos())
    }

    #[test]
    fn steps_end_where_the_cosine_does() {
        let steps = |images, batch| Schedule::steps(images, batch, 1000);
        // The official code takes 50,000 x 1000 // 512 + 1 steps; here it is one less if the division is exact.
        assert_eq!((steps(50_000, 512), steps(51_200, 512), steps(1000, 600)), (97_657, 100_000, 1667));
        for (images, batch) in [(50_000, 512), (1000, 600), (1000, 1000)] {
            let schedule = Schedule::new(&config(batch, 1000, 1.0, Scaling::None, 10.0), images);
            let last = schedule.rate(steps(images, batch as u64) - 1);
            assert!(last > 0.0 && last < 1e-4, "{last}");
        }
    }

    #[test]
    fn hand_values_of_the_cifar10_preset() {
        // 50,000 images, batch 512: 976.56 steps of warm-up, floored; zero at 50,000,000 / 512 + 1 = 97,657.
        let schedule = Schedule::new(&config(512, 1000, 1.0, Scaling::Linear, 10.0), 50_000);
        assert_eq!(schedule.warmup_steps(), 976);
        assert_eq!(schedule.peak(), 2.0);
        assert_eq!(schedule.rate(0), 0.0);
        assert_eq!(schedule.rate(488), 1.0);
        assert_eq!(schedule.rate(976), 2.0);
        assert!((schedule.rate(976 + (97_657 - 976) / 2) - 1.0).abs() < 1e-4);
        assert!(schedule.rate(97_656) > 0.0);
        assert_eq!(schedule.rate(97_657), 0.0);
        assert_eq!(schedule.rate(u64::MAX), 0.0);
    }

    #[test]
    fn equals_the_official_code() {
        for (images, batch, epochs, warmup) in
            [(50_000, 512, 5, 1.0), (1_281_167, 4096, 3, 0.5), (1000, 256, 7, 0.0), (300, 256, 1, 1.0)]
        {
            for (scaling, rate) in [(Scaling::Linear, 0.3), (Scaling::Sqrt, 0.075), (Scaling::None, 1.0)] {
                let schedule = Schedule::new(&config(batch, epochs, rate, scaling, warmup), images);
                let scaled = match scaling {
                    Scaling::Linear => rate * batch as f64 / 256.0,
                    Scaling::Sqrt => rate * (batch as f64).sqrt(),
                    Scaling::None => rate,
                };
                for step in 0..images * epochs / batch as u64 + 5 {
                    let expected =
                        official(step as f64, images as f64, batch as f64, epochs as f64, warmup, scaled);
                    assert!((schedule.rate(step) - expected).abs() < 1e-12 * scaled, "step {step}");
                }
            }
        }
    }

    #[test]
    fn constant_stays_at_the_peak_after_warm_up() {
        let mut config = config(100, 10, 0.5, Scaling::None, 2.0);
        config.optim.schedule = ScheduleKind::Constant;
        let schedule = Schedule::new(&config, 1000);
        assert_eq!(schedule.rate(10), 0.25);
        assert!((20..500).all(|step| schedule.rate(step) == 0.5));
    }

    #[test]
    fn paper_rates() {
        assert_eq!(Schedule::new(&config(4096, 100, 0.3, Scaling::Linear, 10.0), 1_281_167).peak(), 4.8);
        assert!(
            (Schedule::new(&config(4096, 100, 0.075, Scaling::Sqrt, 10.0), 1_281_167).peak() - 4.8).abs()
                < 1e-12
        );
    }

    #[test]
    fn never_rises_after_warm_up_even_where_warm_up_is_all_there_is() {
        for warmup in [0.0, 1.0, 2.5, 4.0] {
            let schedule = Schedule::new(&config(32, 4, 1.0, Scaling::None, warmup), 1000);
            let rates: Vec<_> = (schedule.warmup_steps()..200).map(|step| schedule.rate(step)).collect();
            assert!(
                rates.windows(2).all(|pair| pair[1] <= pair[0]) && rates.iter().all(|rate| rate.is_finite())
            );
        }
    }
}
