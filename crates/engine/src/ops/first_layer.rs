//! A network's first layer, fused where a device has kernels for it: the gradient of images is not needed, so that the
//! convolution's output need be neither written nor kept.

use crate::ops::batch_norm::{BatchNorm, Statistics, prepare_sums};
use crate::ops::conv2d::{Conv2d, geometry, output_shape};
use crate::ops::conv2d_norm::conv2d_norm;
use crate::tape::BackwardContext;
use crate::{Conv2dGeometry, DType, ParameterId, Result, Tape, Tensor, Var};

/// ReLU([`batch_norm`](super::batch_norm()) of [`conv2d`](super::conv2d()) of images (N, H, W, C) with the weights
/// `weight`, (K, R, S, C)): (N, P, Q, K). Takes the images by value, so that nothing but the tape keeps them longer
/// than needed.
///
/// It is fused if the device has kernels for such images and their gradient is not needed (otherwise it is
/// [`conv2d_norm`]); in 16 bits, the convolution's output is then not rounded. `images` may be any other tensor, but
/// inside a checkpointed segment its gradient must not be needed, because the segment's first run does not know that it
/// is.
///
/// # Errors
/// As [`conv2d_norm`].
pub fn first_layer(
    tape: &mut Tape,
    images: Var,
    weight: ParameterId,
    conv: Conv2d,
    norm: &BatchNorm,
) -> Result<Var> {
    let (x, device) = (images.tensor(), images.tensor().device().clone());
    let geometry = geometry(x, tape.parameters().get(weight), conv)?;
    let at_once = device.kernels().first_layer(&geometry, x);
    let Some(at_once) = at_once.filter(|_| !images.needs_gradient()) else {
        return conv2d_norm(tape, images, weight, conv, norm, None, true);
    };
    let w = tape.parameter(weight);
    let shape = output_shape(&geometry);
    let sums = || {
        let mut sums = Tensor::empty_of(&device, &[2 * geometry.out_channels], DType::F64);
        at_once.sums(&geometry, x, w.tensor(), &mut sums)?;
        Ok(sums)
    };
    let prepared = prepare_sums(tape, &device, &shape, norm, sums)?;
    let mut y = Tensor::empty_of(&device, &shape, x.dtype());
    at_once.forward(&geometry, x, w.tensor(), prepared.coefficients(), &mut y)?;
    let [gamma, beta] = prepared.parameters();
    let collective = tape.collective();
    Ok(tape.record(&[&w, gamma, beta], y, || FirstLayerBackward {
        geometry,
        images: x.clone(),
        w: w.tensor().clone(),
        statistics: prepared.statistics(collective),
    }))
}

pub(crate) struct FirstLayerBackward<'a> {
    geometry: Conv2dGeometry,
    images: Tensor,
    w: Tensor,
    statistics: Statistics<'a>,
}

impl FirstLayerBackward<'_> {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let FirstLayerBackward { geometry, images, w, statistics } = &self;
        let device = dy.device().clone();
        let at_once = device.kernels().first_layer_again(geometry, images)?;
        let (channels, kinds) = (geometry.out_channels, geometry.weight_len() / geometry.out_channels + 1);
        let mut correlations = Tensor::empty_of(&device, &[channels + kinds, kinds], DType::F64);
        let (coefficients, mut sums) =
            (&statistics.coefficients, statistics.sums(&device, context, 1, context.wants(0)));
        at_once.backward_sums(geometry, images, w, coefficients, &dy, &mut correlations, sums.to())?;
        let Some(backward) = sums.give(&device, context)? else { return Ok(()) };
        let mut dw = Tensor::empty(&device, w.shape());
        at_once.backward_weight(geometry, images, w, &correlations, &backward, &mut dw)?;
        context.give(0, dw)
    }
}
