//! Fused pairs of BatchNorms, their sum and a ReLU, on a GPU.

use simclr_cuda::ops::norm_pair;

use super::CudaKernels;
use crate::{BackwardSums, Mask, NormPair, Result, Tensor};

impl NormPair for CudaKernels {
    fn forward(
        &self,
        [x, other]: [&Tensor; 2],
        [by, other_by]: [&Tensor; 2],
        y: &mut Tensor,
        mask: &mut Mask,
    ) -> Result<()> {
        let (gpu, by) = (&self.gpu, [by.gpu()?, other_by.gpu()?]);
        typed!(x, E => {
            let (x, y) = ([x.gpu::<E>()?, other.gpu()?], y.gpu_mut(gpu)?);
            norm_pair::forward(gpu, x, by, y, mask.gpu_mut(gpu)?)?
        });
        Ok(())
    }

    fn backward_sums(
        &self,
        dy: &Tensor,
        mask: &Mask,
        [x, other]: [&Tensor; 2],
        [by, other_by]: [&Tensor; 2],
        [to, other_to]: [BackwardSums; 2],
    ) -> Result<()> {
        let (gpu, by) = (&self.gpu, [by.gpu()?, other_by.gpu()?]);
        let to = [self.backward_sums(to)?, self.backward_sums(other_to)?];
        typed!(x, E => {
            let x = [x.gpu::<E>()?, other.gpu()?];
            norm_pair::backward_sums(gpu, dy.gpu()?, mask.gpu()?, x, by, to)?
        });
        Ok(())
    }

    fn backward_input(
        &self,
        dy: &Tensor,
        mask: &Mask,
        [x, other]: [&mut Tensor; 2],
        [backward, other_backward]: [&Tensor; 2],
    ) -> Result<()> {
        let (gpu, abc) = (&self.gpu, [backward.gpu()?, other_backward.gpu()?]);
        typed!(dy, E => {
            let x = [x.gpu_mut::<E>(gpu)?, other.gpu_mut(gpu)?];
            norm_pair::backward_input(gpu, dy.gpu()?, mask.gpu()?, x, abc)?
        });
        Ok(())
    }
}
