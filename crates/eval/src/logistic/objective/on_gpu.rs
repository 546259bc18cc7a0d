//! The mean loss and its gradient on a GPU.

use rayon::prelude::*;
use simclr_engine::{Arithmetic, Device, EngineError, Tensor, ops};

/// The most rows of a block. Sums within a block are f32, over blocks f64.
const BLOCK: usize = 1 << 16;
/// The most scores of a block: 64 Mi, which with their gradient take 512 MiB.
const SCORES: usize = 1 << 26;

/// The mean softmax cross-entropy over fixed rows, block by block.
///
/// Blocks that fit stay on the GPU; the others go there for each evaluation. Either way the bits are the same.
pub(super) struct OnGpu<'a> {
    device: &'a Device,
    dim: usize,
    classes: usize,
    rows: usize,
    blocks: Vec<Block<'a>>,
    dw: Tensor,
    dbias: Tensor,
}

/// Some of the rows.
struct Block<'a> {
    values: &'a [f32],
    labels: &'a [u32],
    /// The values, if they stay on the GPU.
    resident: Option<Tensor>,
}

impl<'a> OnGpu<'a> {
    pub(super) fn new(
        device: &'a Device,
        rows: &'a [f32],
        labels: &'a [u32],
        dim: usize,
        classes: usize,
    ) -> Result<Self, EngineError> {
        let block = (SCORES / classes).clamp(1, BLOCK);
        // Beside rows: the scores of a block and their gradient, two sets of parameters, a block that does not stay,
        // and as much again, since nobody else should run out of memory.
        let scratch = 2 * 4 * (2 * block * classes + 2 * classes * (dim + 1) + block * dim) as u64;
        let left = device.free_bytes()?.unwrap_or(0).saturating_sub(scratch);
        OnGpu::of_blocks(device, (rows, labels), dim, classes, block, left)
    }

    /// Blocks of `block` rows, of which as many stay on the GPU as fit into `left` bytes.
    fn of_blocks(
        device: &'a Device,
        (rows, labels): (&'a [f32], &'a [u32]),
        dim: usize,
        classes: usize,
        block: usize,
        mut left: u64,
    ) -> Result<Self, EngineError> {
        let mut blocks = Vec::with_capacity(labels.len().div_ceil(block));
        for (values, labels) in rows.chunks(block * dim).zip(labels.chunks(block)) {
            let bytes = size_of_val(values) as u64;
            let resident = match left.checked_sub(bytes) {
                Some(rest) => {
                    left = rest;
                    Some(upload(device, values, dim)?)
                }
                None => None,
            };
            blocks.push(Block { values, labels, resident });
        }
        let (dw, dbias) = (Tensor::zeros(device, &[classes, dim])?, Tensor::zeros(device, &[classes])?);
        Ok(OnGpu { device, dim, classes, rows: labels.len(), blocks, dw, dbias })
    }

    /// The mean loss at `parameters`; `gradient` is overwritten. Products are f32 without rounding to tf32: the
    /// solver's line search would not make out small steps otherwise.
    pub(super) fn evaluate(&mut self, parameters: &[f32], gradient: &mut [f64]) -> Result<f64, EngineError> {
        let device = self.device;
        device.with_arithmetic(Arithmetic::default(), || self.sum_blocks(parameters, gradient))
    }

    fn sum_blocks(&mut self, parameters: &[f32], gradient: &mut [f64]) -> Result<f64, EngineError> {
        let OnGpu { device, dim, classes, rows, .. } = *self;
        let (weights, biases) = parameters.split_at(classes * dim);
        let w = Tensor::from_slice(device, &[classes, dim], weights)?;
        let bias = Tensor::from_slice(device, &[classes], biases)?;
        gradient.fill(0.0);
        let (of_weights, of_biases) = gradient.split_at_mut(classes * dim);
        let mut loss = 0.0;
        for Block { values, labels, resident } in &self.blocks {
            let share = labels.len() as f64 / rows as f64;
            let uploaded;
            let x = match resident {
                Some(rows) => rows,
                None => {
                    uploaded = upload(device, values, dim)?;
                    &uploaded
                }
            };
            let (dw, dbias) = (&mut self.dw, &mut self.dbias);
            loss += share * ops::softmax_regression(x, &w, &bias, labels, dw, dbias)?;
            for (sums, of_block) in [(&mut *of_weights, dw.to_vec()?), (&mut *of_biases, dbias.to_vec()?)] {
                let sums = sums.par_iter_mut().zip(of_block).with_min_len(1 << 14);
                sums.for_each(|(sum, g)| *sum += share * f64::from(g));
            }
        }
        Ok(loss)
    }
}

fn upload(device: &Device, values: &[f32], dim: usize) -> Result<Tensor, EngineError> {
    Tensor::from_slice(device, &[values.len() / dim, dim], values)
}

#[cfg(test)]
mod tests {
    use super::super::on_cpu::OnCpu;
    use super::*;
    use crate::Targets;

    #[test]
    fn blocks_that_stay_and_blocks_that_do_not_give_the_same_bits() {
        let rows: Vec<f32> = (0..1300 * 5).map(|i| ((i * 37 % 101) as f32 * 0.13).sin()).collect();
        let labels: Vec<u32> = (0..1300).map(|i| (i * i % 7 % 3) as u32).collect();
        let parameters: Vec<f32> = (0..18).map(|i| (i as f32 * 0.7).cos() * 0.5).collect();
        // Blocks are summed alike on any device.
        let device = Device::cpu(1).unwrap();
        let with = |left: u64| {
            let mut gradient = vec![9.0; 18];
            let mut loss = OnGpu::of_blocks(&device, (&rows, &labels), 5, 3, 400, left).unwrap();
            let resident = loss.blocks.iter().filter(|block| block.resident.is_some()).count();
            (resident, loss.evaluate(&parameters, &mut gradient).unwrap(), gradient)
        };
        let (all, some, none) = (with(1 << 20), with(2 * 400 * 5 * 4 + 100), with(0));
        assert_eq!([all.0, some.0, none.0], [4, 2, 0]);
        assert_eq!((all.1, &all.2), (some.1, &some.2));
        assert_eq!((all.1, &all.2), (none.1, &none.2));
        let mut gradient = vec![0.0; 18];
        let loss =
            OnCpu::new(&rows, &Targets::One(labels.clone()), 5, 3).evaluate(&parameters, &mut gradient);
        assert!((loss - all.1).abs() < 1e-6, "{loss} {}", all.1);
        assert!(gradient.iter().zip(&all.2).all(|(a, b)| (a - b).abs() < 1e-6), "{gradient:?} {:?}", all.2);
    }
}
