//! A BatchNorm, its ReLU and the convolution that follows, fused where a device is faster so: the values between them
//! are then neither written nor kept. `conv2d_norm` is the other order.

use simclr_kernels::Write;

use crate::ops::batch_norm::{BatchNorm, BatchNormBackward, apply, prepare};
use crate::ops::conv2d::{Conv2d, conv2d, geometry, output_shape};
use crate::tape::BackwardContext;
use crate::{Conv2dGeometry, DType, Mode, ParameterId, Result, Tape, Tensor, Var};

/// [`conv2d`] of ReLU([`batch_norm`](super::batch_norm) of x), with the weights `weight`. Takes x by value, so that
/// nothing but the tape keeps it longer than needed.
///
/// In training with channel sums, the device decides whether to fuse. The ReLU's output may then be rounded on the
/// way, and the gradients of the weights are; everything else is the same.
///
/// # Errors
/// As [`batch_norm`](super::batch_norm()) and [`conv2d`](super::conv2d()).
pub fn norm_conv2d(
    tape: &mut Tape,
    x: Var,
    norm: &BatchNorm,
    weight: ParameterId,
    conv: Conv2d,
) -> Result<Var> {
    let prepared = prepare(tape, &x, norm, None)?;
    let device = x.tensor().device().clone();
    let wanted = tape.mode() == Mode::Train && conv.channel_sums;
    if let Some(fused) = device.kernels().norm_conv2d().filter(|_| wanted) {
        let w = tape.parameters().get(weight);
        let geometry = geometry(x.tensor(), w, conv)?;
        let coefficients = prepared.coefficients();
        let mut y = Tensor::empty_of(&device, &output_shape(&geometry), x.tensor().dtype());
        if fused.pays(&geometry, x.tensor(), coefficients, w, &mut y)? {
            let mut sums = Tensor::empty_of(&device, &[2 * geometry.out_channels], DType::F64);
            fused.forward(&geometry, x.tensor(), coefficients, w, &mut y, &mut sums)?;
            let w = tape.parameter(weight);
            let [x_input, gamma, beta, absent] = prepared.inputs(&x, None);
            let collective = tape.collective();
            let y = tape.record(&[x_input, gamma, beta, absent, &w], y, || NormConv2dBackward {
                geometry,
                w: w.tensor().clone(),
                norm: prepared.backward(x.tensor(), collective),
            });
            return Ok(y.with_channel_sums(Some(sums)));
        }
    }
    let y = apply(tape, &x, prepared, None, true)?;
    drop(x);
    let w = tape.parameter(weight);
    conv2d(tape, &y, &w, conv)
}

pub(crate) struct NormConv2dBackward<'a> {
    geometry: Conv2dGeometry,
    w: Tensor,
    norm: BatchNormBackward<'a>,
}

impl NormConv2dBackward<'_> {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let NormConv2dBackward { geometry, w, norm } = self;
        let device = dy.device().clone();
        let kernels = device.kernels();
        if context.wants(4) {
            let mut dw = Tensor::empty(&device, w.shape());
            let fused = kernels.norm_conv2d_again()?;
            fused.backward_weight(&geometry, &norm.x, &norm.statistics.coefficients, &dy, &mut dw)?;
            context.give(4, dw)?;
        }
        if !(0..3).any(|input| context.wants(input)) {
            return Ok(());
        }
        let mut of_activation = Tensor::empty_of(&device, norm.x.shape(), dy.dtype());
        kernels.conv2d_backward_input(&geometry, &dy, &w, &mut of_activation, Write::Over)?;
        drop(dy);
        norm.backward(of_activation, context)
    }
}
