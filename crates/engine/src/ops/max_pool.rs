//! Max pooling.

use crate::ops::image_shape;
use crate::tape::BackwardContext;
use crate::{Conv2dGeometry, EngineError, Result, Tape, Tensor, Var};

/// The greatest value of each `side` x `side` window, `stride` apart; padding never wins. (N, H, W, C) to (N, P, Q, C).
pub fn max_pool(tape: &mut Tape, x: &Var, side: usize, stride: usize, padding: usize) -> Result<Var> {
    let [batch, in_height, in_width, channels] = image_shape("max_pool", x.tensor())?;
    let geometry = Conv2dGeometry {
        batch,
        in_height,
        in_width,
        in_channels: channels,
        out_channels: channels,
        kernel_height: side,
        kernel_width: side,
        stride,
        padding,
    };
    if !geometry.is_valid() || padding >= side {
        let what = format!("every window must touch the image: {geometry:?}");
        return Err(EngineError::Value { op: "max_pool", what });
    }
    let device = x.tensor().device();
    let shape = [batch, geometry.out_height(), geometry.out_width(), channels];
    let mut y = Tensor::empty_of(device, &shape, x.tensor().dtype());
    device.kernels().max_pool_forward(&geometry, x.tensor(), &mut y)?;
    Ok(tape.record(&[x], y.clone(), || MaxPoolBackward { geometry, x: x.tensor().clone(), y }))
}

pub(crate) struct MaxPoolBackward {
    geometry: Conv2dGeometry,
    x: Tensor,
    y: Tensor,
}

impl MaxPoolBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let mut dx = Tensor::empty_of(dy.device(), self.x.shape(), dy.dtype());
        dy.device().kernels().max_pool_backward(&self.geometry, &self.x, &self.y, &dy, &mut dx)?;
        context.give(0, dx)
    }
}
