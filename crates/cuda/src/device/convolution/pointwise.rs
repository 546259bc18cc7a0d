//! 1 x 1 convolutions as matrix products, by cuBLASLt. With a row for each pixel of x and y, and one for each output
//! channel of w: y = x w^T, dx = dy w, dw = dy^T x.

use simclr_kernels::Write;

use super::{ConvolutionPass, Key, Operands};
use crate::device::{Device, Epilogue, Matrix, ProductMode};
use crate::element::typed;
use crate::{Element, ElementType, Result, Slice, SliceMut};

/// Whether a convolution is just a matrix product.
pub(super) fn serves(key: &Key) -> bool {
    let g = &key.geometry;
    key.pass != ConvolutionPass::ForwardWithSums
        && !key.normalised
        && (g.kernel_height, g.kernel_width, g.stride, g.padding) == (1, 1, 1, 0)
}

/// Computes a convolution for which this [`serves`].
///
/// # Safety
/// The operands must have the key's lengths, and the result be borrowed exclusively.
pub(super) unsafe fn run(device: &Device, key: &Key, operands: Operands) -> Result<()> {
    // SAFETY: the caller's promise, and these are the key's types.
    unsafe {
        typed!(key.element, E => match key.output {
            ElementType::F32 => run_as::<E, f32>(device, key, operands),
            _ => run_as::<E, E>(device, key, operands),
        })
    }
}

/// The same for operands of type `E` and a result of type `D`.
///
/// # Safety
/// As [`run`], and the types must be those of the key.
unsafe fn run_as<E: Element, D: Element>(device: &Device, key: &Key, operands: Operands) -> Result<()> {
    let (g, Operands { x, w, y, .. }) = (&key.geometry, operands);
    let (from, to) = (g.in_channels, g.out_channels);
    // SAFETY: the caller's promise.
    let (of_x, of_w, of_y, out) = unsafe {
        (
            Slice::<E>::from_raw(x, g.input_len()),
            Slice::<E>::from_raw(w, g.weight_len()),
            Slice::<E>::from_raw(y, g.output_len()),
            SliceMut::<D>::from_raw(operands.result(key.pass), key.len()),
        )
    };
    let (a, b) = match key.pass {
        ConvolutionPass::Forward | ConvolutionPass::ForwardWithSums => {
            (Matrix::new(of_x, from)?, Matrix::new(of_w, from)?.t())
        }
        ConvolutionPass::BackwardInput => (Matrix::new(of_y, to)?, Matrix::new(of_w, from)?),
        ConvolutionPass::BackwardWeight => (Matrix::new(of_y, to)?.t(), Matrix::new(of_x, from)?),
    };
    let mode = if key.mode.tf32 { ProductMode::Tf32 } else { ProductMode::Exact };
    let write = if key.adds { Write::Add } else { Write::Over };
    device.product(a, b, Epilogue::None, mode, out, write)
}
