//! A network's fused first layer on a GPU: for small images, in 16 bits.

use simclr_cuda::ops::first_layer;
use simclr_kernels::Conv2dGeometry;

use super::CudaKernels;
use crate::{BackwardSums, FirstLayer, Result, Tensor};

impl FirstLayer for CudaKernels {
    fn sums(&self, g: &Conv2dGeometry, images: &Tensor, w: &Tensor, sums: &mut Tensor) -> Result<()> {
        let (gpu, w, sums) = (&self.gpu, w.gpu()?, sums.gpu_mut(&self.gpu)?);
        typed!(images, E => first_layer::sums::<E>(gpu, g, images.gpu()?, w, sums)?);
        Ok(())
    }

    fn forward(
        &self,
        g: &Conv2dGeometry,
        images: &Tensor,
        w: &Tensor,
        coefficients: &Tensor,
        to: &mut Tensor,
    ) -> Result<()> {
        let (gpu, w, coefficients) = (&self.gpu, w.gpu()?, coefficients.gpu()?);
        typed!(images, E => {
            first_layer::forward::<E>(gpu, g, images.gpu()?, w, coefficients, to.gpu_mut(gpu)?)?
        });
        Ok(())
    }

    fn backward_sums(
        &self,
        g: &Conv2dGeometry,
        images: &Tensor,
        w: &Tensor,
        coefficients: &Tensor,
        dy: &Tensor,
        correlations: &mut Tensor,
        to: BackwardSums,
    ) -> Result<()> {
        let (gpu, w, coefficients) = (&self.gpu, w.gpu()?, coefficients.gpu()?);
        let (correlations, to) = (correlations.gpu_mut(gpu)?, self.backward_sums(to)?);
        typed!(images, E => {
            let (images, dy) = (images.gpu::<E>()?, dy.gpu()?);
            first_layer::backward_sums(gpu, g, images, w, coefficients, dy, correlations, to)?
        });
        Ok(())
    }

    fn backward_weight(
        &self,
        g: &Conv2dGeometry,
        images: &Tensor,
        w: &Tensor,
        correlations: &Tensor,
        backward: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()> {
        let (gpu, w, correlations) = (&self.gpu, w.gpu()?, correlations.gpu()?);
        let (backward, dw) = (backward.gpu()?, dw.gpu_mut(gpu)?);
        typed!(images, E => first_layer::backward_weight::<E>(gpu, g, w, correlations, backward, dw)?);
        Ok(())
    }
}
