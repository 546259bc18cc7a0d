//! Code shared by a GPU's convolutions and products: how they may round, conversion of operands, and results with or
//! without sums.

use std::sync::atomic::{AtomicBool, Ordering};

use simclr_cuda::ops::elementwise;
use simclr_cuda::ops::stem::{self, Packing};
use simclr_cuda::{ConvolutionMode, DeviceBuffer, Element, ProductMode, Slice, SliceMut};
use simclr_kernels::Conv2dGeometry;

use super::CudaKernels;
use crate::tensor::Stored;
use crate::{Result, Tensor};

/// A convolution's weights in the type of its activations.
pub(super) enum Narrowed<'w, E> {
    /// Those of the tensor, where that has the type.
    Lent(Slice<'w, E>),
    /// A copy.
    Own(DeviceBuffer<E>),
}

impl<E: Stored> Narrowed<'_, E> {
    pub(super) fn read(&self) -> Slice<'_, E> {
        match self {
            Narrowed::Lent(weights) => *weights,
            Narrowed::Own(weights) => weights.read(),
        }
    }
}

impl CudaKernels {
    /// How convolutions may compute: whether f32 may round to tf32, and whether results must be deterministic.
    pub(super) fn convolutions(&self) -> ConvolutionMode {
        let load = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        ConvolutionMode { tf32: load(&self.tf32), deterministic: load(&self.deterministic) }
    }

    pub(super) fn products(&self) -> ProductMode {
        if self.tf32.load(Ordering::Relaxed) { ProductMode::Tf32 } else { ProductMode::Exact }
    }

    /// f32 weights, converted to the type `E` of a convolution's activations.
    pub(super) fn narrowed<'w, E: Stored + Element>(&self, w: &'w Tensor) -> Result<Narrowed<'w, E>> {
        if E::DTYPE == w.dtype() {
            return Ok(Narrowed::Lent(w.gpu()?));
        }
        let mut narrow = self.gpu.buffer::<E>(w.len())?;
        elementwise::narrow(&self.gpu, w.gpu()?, narrow.write())?;
        Ok(Narrowed::Own(narrow))
    }

    /// Computes y and, if wanted, its sums by channel.
    pub(super) fn convolve<E: Stored + Element>(
        &self,
        g: &Conv2dGeometry,
        x: Slice<E>,
        w: Slice<E>,
        y: SliceMut<E>,
        sums: Option<&mut Tensor>,
    ) -> Result<()> {
        match sums {
            Some(sums) => {
                let sums = sums.gpu_mut(&self.gpu)?;
                self.gpu.conv2d_forward_with_sums(g, self.convolutions(), x, w, y, sums)?
            }
            None => self.gpu.conv2d_forward(g, self.convolutions(), x, w, y)?,
        }
        Ok(())
    }

    /// Packs the images of a convolution.
    pub(super) fn packed<E: Stored + Element>(
        &self,
        packing: &Packing<E>,
        x: &Tensor,
    ) -> Result<DeviceBuffer<E>> {
        let mut packed = self.gpu.buffer::<E>(packing.geometry().input_len())?;
        stem::pack_images(&self.gpu, packing, x.gpu()?, packed.write())?;
        Ok(packed)
    }
}
