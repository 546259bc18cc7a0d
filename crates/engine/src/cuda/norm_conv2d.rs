//! Fused BatchNorm, ReLU and convolution on a GPU: only in f16, and not if the same step must give the same bits.

use half::f16;
use simclr_kernels::Conv2dGeometry;

use super::CudaKernels;
use crate::{NormConv2d, Result, Tensor};

impl NormConv2d for CudaKernels {
    fn pays(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
    ) -> Result<bool> {
        typed!(x, E => {
            let (x, coefficients, w, y) = (x.gpu::<E>()?, coefficients.gpu()?, w.gpu()?, y.gpu_mut(&self.gpu)?);
            Ok(self.gpu.norm_conv2d_pays(g, self.convolutions(), x, coefficients, w, y)?)
        })
    }

    fn forward(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
        sums: &mut Tensor,
    ) -> Result<()> {
        let (mode, w) = (self.convolutions(), self.narrowed::<f16>(w)?);
        let (y, sums) = (y.gpu_mut(&self.gpu)?, sums.gpu_mut(&self.gpu)?);
        Ok(self.gpu.norm_conv2d_forward(g, mode, x.gpu()?, coefficients.gpu()?, w.read(), y, sums)?)
    }

    fn backward_weight(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        dy: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()> {
        let (mode, dw) = (self.convolutions(), dw.gpu_mut(&self.gpu)?);
        let (x, coefficients) = (x.gpu()?, coefficients.gpu()?);
        Ok(self.gpu.norm_conv2d_backward_weight(g, mode, x, coefficients, dy.gpu()?, dw)?)
    }
}
