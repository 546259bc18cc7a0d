//! The mean loss and its gradient on the CPU.

use rayon::prelude::*;
use simclr_kernels::product::{Operand, multiply};

use crate::Targets;

/// Rows per matrix product: at 128 values per row they stay in a core's second-level cache between the scores and the
/// gradient.
const BLOCK: usize = 512;
/// The most partial gradients held, each as large as the parameters.
const PARTS: usize = 32;

/// The mean loss over fixed rows.
///
/// Products are f32, sums over rows f64. Rows are cut into parts by their number alone, and parts are summed in order:
/// the same bits for any number of threads.
pub(super) struct OnCpu<'a> {
    rows: &'a [f32],
    targets: &'a Targets,
    dim: usize,
    classes: usize,
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

impl<'a> OnCpu<'a> {
    pub(super) fn new(rows: &'a [f32], targets: &'a Targets, dim: usize, classes: usize) -> Self {
        let count = targets.rows();
        let part = count.div_ceil(PARTS).next_multiple_of(BLOCK);
        let make = |number| Part {
            first: number * part,
            loss: 0.0,
            gradient: vec![0.0; classes * (dim + 1)],
            scores: vec![0.0; BLOCK.min(count) * classes],
        };
        let parts = (0..count.div_ceil(part)).map(make).collect();
        OnCpu { rows, targets, dim, classes, part, parts }
    }

    /// The mean loss at `parameters`; `gradient` is overwritten.
    pub(super) fn evaluate(&mut self, parameters: &[f32], gradient: &mut [f64]) -> f64 {
        let (dim, classes, targets) = (self.dim, self.classes, self.targets);
        self.parts
            .par_iter_mut()
            .zip(self.rows.par_chunks(self.part * dim))
            .for_each(|(part, rows)| part.evaluate(rows, targets, parameters, dim, classes));
        let count = targets.rows() as f64;
        let parts = &self.parts;
        gradient.par_iter_mut().with_min_len(1024).enumerate().for_each(|(i, gradient)| {
            *gradient = parts.iter().map(|part| f64::from(part.gradient[i])).sum::<f64>() / count;
        });
        parts.iter().map(|part| part.loss).sum::<f64>() / count
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
