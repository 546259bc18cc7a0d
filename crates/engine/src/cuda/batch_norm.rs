//! Conversions of what BatchNorm kernels read and write.

use simclr_cuda::ops::batch_norm;

use super::CudaKernels;
use crate::tensor::Stored;
use crate::{BackwardSums, Gate, Result};

impl CudaKernels {
    /// Where a kernel writes its sums and what is computed from them.
    pub(super) fn backward_sums<'a>(&self, to: BackwardSums<'a>) -> Result<batch_norm::BackwardSums<'a>> {
        let gpu = &self.gpu;
        let mut on_gpu = batch_norm::BackwardSums::from(to.sums.gpu_mut(gpu)?);
        if let Some([dgamma, dbeta]) = to.gradients {
            on_gpu.gradients = Some([dgamma.gpu_mut(gpu)?, dbeta.gpu_mut(gpu)?]);
        }
        if let Some((count, abc)) = to.coefficients {
            on_gpu.coefficients = Some((count, abc.gpu_mut(gpu)?));
        }
        Ok(on_gpu)
    }
}

/// The gate of a BatchNorm on values of type `E`.
pub(super) fn typed_gate<'a, E: Stored>(gate: Gate<'a>) -> Result<batch_norm::Gate<'a, E>> {
    Ok(match gate {
        Gate::Open => batch_norm::Gate::Open,
        Gate::Output(y) => batch_norm::Gate::Output(y.gpu()?),
        Gate::Affine => batch_norm::Gate::Affine,
        Gate::Mask(mask) => batch_norm::Gate::Mask(mask.gpu()?),
    })
}
