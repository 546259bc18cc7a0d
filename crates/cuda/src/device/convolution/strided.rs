//! Strided 1 x 1 convolutions: the pixels that the stride selects are gathered before, or scattered after, a matrix
//! product.

use simclr_kernels::Write;

use super::{ConvolutionPass, Convolutions, Key, NAME, Operands};
use crate::device::Device;
use crate::element::typed;
use crate::launcher::Scratch;
use crate::ops::strided;
use crate::{CudaError, Element, Result, Slice, SliceMut};

impl Key {
    /// The key of the convolution that [`super::route::Route::Strided`] computes on the gathered pixels. None unless
    /// the convolution is 1 x 1 and strided, and nothing but a matrix product.
    pub(super) fn together(&self) -> Option<Key> {
        let plain = self.pass != ConvolutionPass::ForwardWithSums && !self.normalised;
        (plain && strided::serves(&self.geometry)).then(|| Key {
            geometry: strided::together(&self.geometry),
            adds: false,
            ..*self
        })
    }
}

impl Convolutions {
    /// Computes a convolution for which [`Key::together`] is not None.
    ///
    /// # Safety
    /// The operands must have the key's lengths, and the result be borrowed exclusively.
    pub(super) unsafe fn strided(&mut self, device: &Device, key: &Key, operands: Operands) -> Result<()> {
        // SAFETY: the caller's promise, and this is the key's type.
        unsafe { typed!(key.element, E => self.strided_of::<E>(device, key, operands)) }
    }

    /// The same for operands of type `E`.
    ///
    /// # Safety
    /// As [`Convolutions::strided`], and the type must be that of the key.
    unsafe fn strided_of<E: Element>(
        &mut self,
        device: &Device,
        key: &Key,
        operands: Operands,
    ) -> Result<()> {
        let g = &key.geometry;
        let together = key.together().ok_or_else(|| CudaError::Call {
            what: NAME,
            reason: format!("{key:?} is not a strided 1 x 1 convolution without sums"),
        })?;
        let mut pixels = Scratch::<E>::new(device, together.geometry.input_len())?;
        let of_pixels = Operands { x: pixels.address(), ..operands };
        if key.pass == ConvolutionPass::BackwardInput {
            self.compute(device, &together, of_pixels)?;
            // SAFETY: the caller's promise; x is the result.
            let dx = unsafe { SliceMut::<E>::from_raw(operands.x, g.input_len()) };
            let write = if key.adds { Write::Add } else { Write::Over };
            return strided::scatter(device, g, pixels.as_ref(), dx, write);
        }
        // SAFETY: the caller's promise.
        let x = unsafe { Slice::<E>::from_raw(operands.x, g.input_len()) };
        strided::gather(device, g, x, pixels.as_mut())?;
        self.compute(device, &together, of_pixels)
    }
}
