//! The regularised cross-entropy and its gradient.

use rayon::prelude::*;
use simclr_kernels::product::{Operand, multiply};

use crate::Targets;

/// Rows per matrix product: at 128 values per row they stay in a core's second-level cache between the scores and the
/// gradient.
const BLOCK: usize = 512;
/// The most partial gradients held, each as large as the parameters.
const PARTS: usize = 32;

/// Mean loss + l2 / (2 n) ||W||^2 over fixed, standardised rows.
///
/// Products are f32, sums over rows and parameters f64. Rows are cut into parts by their number alone, and parts are
/// summed in order: the same bits for any number of threads.
pub(super) struct Objective<'a> {
    rows: &'a [f32],
    targets: &'a Targets,
    dim: usize,
    classes: usize,
    /// l2 / n.
    weight: f64,
    /// Rows per part, a multiple of [`BLOCK`].
    part: usize,
    parts: Vec<Part>,
}

/// What one part contributes.
struct Part {
    /// Its first row.
    first: usize,
    loss: f64,
    /// Laid out as the parameters: weights, then biases.
    gradient: Vec<f32>,
    /// The scores of a block, then their gradient.
    scores: Vec<f32>,
}

impl<'a> Objective<'a> {
    pub(super) fn new(rows: &'a [f32], targets: &'a Targets, dim: usize, classes: usize, l2: f64) -> Self {
        let count = targets.rows();
        let part = count.div_ceil(PARTS).next_multiple_of(BLOCK);
        let make = |number| Part {
            first: number * part,
            loss: 0.0,
            gradient: vec![0.0; classes * (dim + 1)],
            scores: vec![0.0; BLOCK.min(count) * classes],
        };
        let parts = (0..count.div_ceil(part)).map(make).collect();
        Objective { rows, targets, dim, classes, weight: l2 / count as f64, part, parts }
    }

    /// Changes the L2 weight.
    pub(super) fn set_l2(&mut self, l2: f64) {
        self.weight = l2 / self.targets.rows() as f64;
    }

    /// The objective at `parameters` (`classes` rows of `dim` weights, then `classes` biases); `gradient` is
    /// overwritten.
    pub(super) fn evaluate(&mut self, parameters: &[f64], gradient: &mut [f64]) -> f64 {
        let (dim, classes) = (self.dim, self.classes);
        let narrow: Vec<f32> = parameters.iter().map(|&p| p as f32).collect();
        let targets = self.targets;
        self.parts
            .par_iter_mut()
            .zip(self.rows.par_chunks(self.part * dim))
            .for_each(|(part, rows)| part.evaluate(rows, targets, &narrow, dim, classes));

        let count = targets.rows() as f64;
        let regularised = classes * dim;
        let parts = &self.parts;
        gradient.par_iter_mut().with_min_len(1024).enumerate().for_each(|(i, gradient)| {
            let sum: f64 = parts.iter().map(|part| f64::from(part.gradient[i])).sum();
            let decay = if i < regularised { self.weight * parameters[i] } else { 0.0 };
            *gradient = sum / count + decay;
        });
        let square: f64 = parameters[..regularised].iter().map(|w| w * w).sum();
        parts.iter().map(|part| part.loss).sum::<f64>() / count + self.weight / 2.0 * square
    }
}

impl Part {
    fn evaluate(&mut self, rows: &[f32], targets: &Targets, parameters: &[f32], dim: usize, classes: usize) {
        let (weights, bias) = parameters.split_at(classes * dim);
        self.loss = 0.0;
        self.gradient.fill(0.0);
        let (weight_gradient, bias_gradient) = self.gradient.split_at_mut(classes * dim);
        for (block, rows) in rows.chunks(BLOCK * dim).enumerate() {
            let scores = &mut self.scores[..rows.len() / dim * classes];
            scores.chunks_exact_mut(classes).for_each(|row| row.copy_from_slice(bias));
            multiply(Operand::new(rows, dim), Operand::new(weights, dim).t(), scores, true);
            for (i, row) in scores.chunks_exact_mut(classes).enumerate() {
                self.loss += targets.of(self.first + block * BLOCK + i).loss(row);
                bias_gradient.iter_mut().zip(&*row).for_each(|(sum, g)| *sum += g);
            }
            multiply(Operand::new(scores, classes).t(), Operand::new(rows, dim), weight_gradient, true);
        }
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
        let mut objective = Objective::new(rows, targets, 5, 3, 300.0);
        let (mut gradient, mut unused) = (vec![0.0; 18], vec![0.0; 18]);
        objective.evaluate(&x, &mut gradient);
        for i in 0..x.len() {
            let (at, step) = (x[i], 1e-2);
            x[i] = at + step;
            let above = objective.evaluate(&x, &mut unused);
            x[i] = at - step;
            let below = objective.evaluate(&x, &mut unused);
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
            let value =
                pool.install(|| Objective::new(&rows, targets, 5, 3, 1.0).evaluate(&x, &mut gradient));
            (value.to_bits(), gradient.into_iter().map(f64::to_bits).collect::<Vec<_>>())
        };
        for targets in [&labels, &several] {
            assert_eq!(run(1, targets), run(2, targets));
            assert_eq!(run(1, targets), run(4, targets));
        }
    }
}
