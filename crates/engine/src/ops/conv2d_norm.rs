//! A convolution and the BatchNorm behind it, fused where mean and variance are known before: the convolution's output
//! is then neither written nor read. `norm_conv2d` is the other order.

use crate::ops::batch_norm::{BatchNorm, batch_norm, check_residual, running_coefficients};
use crate::ops::conv2d::{Conv2d, conv2d, geometry, output_shape};
use crate::{Mode, ParameterId, Result, Tape, Tensor, Var};

/// Whether [`conv2d_norm`] of x is one kernel: where nothing is trained, if the device has it.
pub fn fuses_conv2d_norm(tape: &Tape, x: &Var) -> bool {
    tape.mode() == Mode::Eval && x.tensor().device().kernels().conv2d_norm().is_some()
}

/// [`batch_norm`] of [`conv2d`] of x (N, H, W, C) with the weights `weight`, (K, R, S, C), plus `residual`, followed by
/// a ReLU if `relu`: (N, P, Q, K). Takes x by value, so that nothing but the tape keeps it longer than needed.
///
/// In 16 bits, where both are fused ([`fuses_conv2d_norm`]), the convolution's output may not be rounded.
///
/// # Errors
/// As [`conv2d`] and [`batch_norm`].
pub fn conv2d_norm(
    tape: &mut Tape,
    x: Var,
    weight: ParameterId,
    conv: Conv2d,
    norm: &BatchNorm,
    residual: Option<&Var>,
    relu: bool,
) -> Result<Var> {
    if !fuses_conv2d_norm(tape, &x) {
        let w = tape.parameter(weight);
        let y = conv2d(tape, &x, &w, conv)?;
        drop(x);
        return batch_norm(tape, &y, norm, residual, relu);
    }
    let device = x.tensor().device().clone();
    let w = tape.parameters().get(weight);
    let geometry = geometry(x.tensor(), w, conv)?;
    let shape = output_shape(&geometry);
    check_residual(&shape, residual)?;
    let coefficients = running_coefficients(tape, &device, &shape, norm)?;
    let mut y = Tensor::empty_of(&device, &shape, x.tensor().dtype());
    let residual = residual.map(Var::tensor);
    let kernel = device.kernels().conv2d_norm_again()?;
    kernel.forward(&geometry, [x.tensor(), w], &coefficients, residual, relu, &mut y)?;
    Ok(tape.input(y))
}
