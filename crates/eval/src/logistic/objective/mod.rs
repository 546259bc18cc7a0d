//! The regularised cross-entropy and its gradient.

mod on_cpu;
mod on_gpu;

use rayon::prelude::*;
use simclr_engine::{Device, EngineError};

use crate::Targets;
use on_cpu::OnCpu;
use on_gpu::OnGpu;

/// Mean loss + l2 / (2 n) ||W||^2 over fixed, standardised rows, on their device.
pub(super) struct Objective<'a> {
    loss: MeanLoss<'a>,
    rows: usize,
    /// The number of parameters that are regularised; they come first.
    regularised: usize,
    /// l2 / n.
    weight: f64,
}

enum MeanLoss<'a> {
    Cpu(OnCpu<'a>),
    Gpu(OnGpu<'a>),
}

impl<'a> Objective<'a> {
    /// The objective with an `l2` of 0, on `device`. Rows that show several classes are few: they stay on the CPU.
    ///
    /// # Errors
    /// A GPU that fails, or has too little memory.
    pub(super) fn new(
        device: &'a Device,
        rows: &'a [f32],
        targets: &'a Targets,
        dim: usize,
        classes: usize,
    ) -> Result<Self, EngineError> {
        let loss = match targets {
            Targets::One(labels) if device.is_gpu() => {
                MeanLoss::Gpu(OnGpu::new(device, rows, labels, dim, classes)?)
            }
            _ => MeanLoss::Cpu(OnCpu::new(rows, targets, dim, classes)),
        };
        Ok(Objective { loss, rows: targets.rows(), regularised: classes * dim, weight: 0.0 })
    }

    /// Changes the L2 weight.
    pub(super) fn set_l2(&mut self, l2: f64) {
        self.weight = l2 / self.rows as f64;
    }

    /// The objective at `parameters` (`classes` rows of `dim` weights, then `classes` biases); `gradient` is
    /// overwritten.
    ///
    /// # Errors
    /// A GPU that fails.
    pub(super) fn evaluate(&mut self, parameters: &[f64], gradient: &mut [f64]) -> Result<f64, EngineError> {
        let narrow: Vec<f32> = parameters.iter().map(|&p| p as f32).collect();
        let loss = match &mut self.loss {
            MeanLoss::Cpu(loss) => loss.evaluate(&narrow, gradient),
            MeanLoss::Gpu(loss) => loss.evaluate(&narrow, gradient)?,
        };
        let (weights, weight) = (&parameters[..self.regularised], self.weight);
        let decayed = gradient.par_iter_mut().zip(weights).with_min_len(1 << 14);
        decayed.for_each(|(gradient, w)| *gradient += weight * w);
        let square: f64 = weights.iter().map(|w| w * w).sum();
        Ok(loss + weight / 2.0 * square)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1300 rows: three parts, the last one short.
    fn problem() -> (Vec<f32>, Targets, Vec<f64>) {
        let rows = (0..1300 * 5).map(|i| ((i * 37 % 101) as f32 * 0.13).sin()).collect();
        let labels = (0..1300).map(|i| (i * i % 7 % 3) as u32).collect();
        let labels = Targets::One(labels);
        let parameters = (0..18).map(|i| (f64::from(i) * 0.7).cos() * 0.5).collect();
        (rows, labels, parameters)
    }

    /// Targets for the same rows, each showing any of three classes.
    fn several() -> Targets {
        Targets::Several { classes: 3, shown: (0..1300 * 3).map(|i| i * i % 11 < 4).collect() }
    }

    #[test]
    fn gradient_is_that_of_the_value() {
        let (rows, labels, x) = problem();
        check_gradient(&rows, &labels, x.clone());
        check_gradient(&rows, &several(), x);
    }

    fn check_gradient(rows: &[f32], targets: &Targets, mut x: Vec<f64>) {
        let device = Device::cpu(1).unwrap();
        let mut objective = Objective::new(&device, rows, targets, 5, 3).unwrap();
        objective.set_l2(300.0);
        let mut evaluate = |x: &[f64], gradient: &mut [f64]| objective.evaluate(x, gradient).unwrap();
        let (mut gradient, mut unused) = (vec![0.0; 18], vec![0.0; 18]);
        evaluate(&x, &mut gradient);
        for i in 0..x.len() {
            let (at, step) = (x[i], 1e-2);
            x[i] = at + step;
            let above = evaluate(&x, &mut unused);
            x[i] = at - step;
            let below = evaluate(&x, &mut unused);
            x[i] = at;
            let slope = (above - below) / (2.0 * step);
            assert!((slope - gradient[i]).abs() < 2e-5, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn same_bits_for_any_number_of_threads() {
        let (rows, labels, x) = problem();
        let several = several();
        let run = |threads, targets| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut gradient = vec![0.0; 18];
            let device = Device::cpu(1).unwrap();
            let mut objective = Objective::new(&device, &rows, targets, 5, 3).unwrap();
            objective.set_l2(1.0);
            let value = pool.install(|| objective.evaluate(&x, &mut gradient)).unwrap();
            (value.to_bits(), gradient.into_iter().map(f64::to_bits).collect::<Vec<_>>())
        };
        for targets in [&labels, &several] {
            assert_eq!(run(1, targets), run(2, targets));
            assert_eq!(run(1, targets), run(4, targets));
        }
    }
}
