//! The mean loss and its gradient on a GPU.

use rayon::prelude::*;
use simclr_engine::{Arithmetic, Device, EngineError, Tensor, ops};

/// The most rows of a block. Sums within a block are f32, over blocks f64.
const BLOCK: usize = 1 << 16;
/// The most scores of a block: 64 Mi, which with their gradient take 512 MiB.
const SCORES: usize = 1 << 26;
/// Bytes to leave for what is no tensor: the libraries' kernels and workspaces.
const KERNELS: u64 = 1 << 30;

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
        let block = (SCORES / classes).clamp(1, BLOCK).min(labels.len().max(1));
        let beside = 4 * scratch(block, dim, classes) as u64 + KERNELS;
        let left = device.free_bytes()?.unwrap_or(0).saturating_sub(beside);
        OnGpu::of_blocks(device, (rows, labels), dim, classes, block, left)
    }

    /// Blocks of `block` rows, of which as many stay on the GPU as fit into `left` bytes, and into its memory: that may
    /// be in pieces, or other programs may take some.
    fn of_blocks(
        device: &'a Device,
        (rows, labels): (&'a [f32], &'a [u32]),
        dim: usize,
        classes: usize,
        block: usize,
        mut left: u64,
    ) -> Result<Self, EngineError> {
        // Rows leave what an evaluation takes.
        let room = Tensor::empty(device, &[scratch(block, dim, classes)]);
        let mut blocks = Vec::with_capacity(labels.len().div_ceil(block));
        for (values, labels) in rows.chunks(block * dim).zip(labels.chunks(block)) {
            let rest = left.checked_sub(size_of_val(values) as u64);
            let resident = match rest.map(|_| upload(device, values, dim)).transpose() {
                Err(EngineError::OutOfMemory(_)) => None,
                resident => resident?,
            };
            left = rest.filter(|_| resident.is_some()).unwrap_or(0);
            blocks.push(Block { values, labels, resident });
        }
        drop(room);
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

/// Values that an evaluation takes beside the rows that stay: the scores of a block and their gradient, two sets of
/// parameters, a block that does not stay, and as much again, since nobody else should run out of memory.
fn scratch(block: usize, dim: usize, classes: usize) -> usize {
    2 * (2 * block * classes + 2 * classes * (dim + 1) + block * dim)
}

fn upload(device: &Device, values: &[f32], dim: usize) -> Result<Tensor, EngineError> {
    Tensor::from_slice(device, &[values.len() / dim, dim], values)
}

#[cfg(all(test, feature = "cuda"))]
#[path = "../../../../train/tests/on_gpu/mod.rs"]
mod gpu;

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
        let mut gradient = vec![0.0; 18];
        let loss =
            OnCpu::new(&rows, &Targets::One(labels.clone()), 5, 3).evaluate(&parameters, &mut gradient);
        // Blocks are summed alike on any device.
        let check = |device: &Device| {
            let with = |left: u64| {
                let mut gradient = vec![9.0; 18];
                let mut loss = OnGpu::of_blocks(device, (&rows, &labels), 5, 3, 400, left).unwrap();
                let resident = loss.blocks.iter().filter(|block| block.resident.is_some()).count();
                (resident, loss.evaluate(&parameters, &mut gradient).unwrap(), gradient)
            };
            let (all, some, none) = (with(1 << 20), with(2 * 400 * 5 * 4 + 100), with(0));
            assert_eq!([all.0, some.0, none.0], [4, 2, 0]);
            assert_eq!((all.1, &all.2), (some.1, &some.2));
            assert_eq!((all.1, &all.2), (none.1, &none.2));
            assert!((loss - all.1).abs() < 1e-6, "{loss} {}", all.1);
            let near = gradient.iter().zip(&all.2).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(near, "{gradient:?} {:?}", all.2);
        };
        check(&Device::cpu(1).unwrap());
        #[cfg(feature = "cuda")]
        if let Some((gpu, _alone)) = super::gpu::gpu(2) {
            check(&gpu);
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn blocks_for_which_there_is_no_memory_do_not_stay() {
        let Some((gpu, _alone)) = super::gpu::gpu(2) else { return };
        // Filling all of a GPU's memory takes long.
        if !gpu.to_string().contains("stand-in") {
            return;
        }
        let rows: Vec<f32> = (0..1300 * 64).map(|i| ((i * 37 % 101) as f32 * 0.13).sin()).collect();
        let labels: Vec<u32> = (0..1300).map(|i| (i * i % 7 % 3) as u32).collect();
        let parameters: Vec<f32> = (0..195).map(|i| (i as f32 * 0.7).cos() * 0.1).collect();
        let with = |left| {
            let mut gradient = vec![9.0; 195];
            let mut loss = OnGpu::of_blocks(&gpu, (&rows, &labels), 64, 3, 400, left).unwrap();
            let resident: Vec<bool> = loss.blocks.iter().map(|block| block.resident.is_some()).collect();
            (resident, loss.evaluate(&parameters, &mut gradient).unwrap(), gradient)
        };
        let none = with(0);
        // What is left is enough for an evaluation and some of the blocks, of 102,400 bytes each.
        let mut taken = Vec::new();
        for size in (10..28).rev() {
            taken.extend(std::iter::from_fn(|| Tensor::zeros(&gpu, &[1 << size]).ok()));
        }
        taken.retain(|tensor| tensor.len() >= 1 << 17);
        let some = with(u64::MAX);
        assert_eq!(some.0, [true, true, false, false]);
        assert_eq!((some.1, some.2), (none.1, none.2));
        // Their memory goes back before another test may have it.
        drop(taken);
        drop(gpu);
    }
}
