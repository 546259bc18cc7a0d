//! Max pooling.

use crate::ops::image_shape;
use crate::tape::BackwardContext;
use crate::{EngineError, PoolGeometry, Result, Tape, Tensor, Var};

/// The maximum of each `side` x `side` window, at stride `stride`. (N, H, W, C) to (N, P, Q, C).
///
/// `padding` is the number of rows added above and below, and likewise of columns at the left and right; padding is
/// never the maximum.
///
/// # Errors
/// [`EngineError::Value`](crate::EngineError::Value) for a window that does not fit,
/// [`EngineError::Shape`](crate::EngineError::Shape) if x is no images; errors of the device.
pub fn max_pool(tape: &mut Tape, x: &Var, side: usize, stride: usize, padding: [usize; 2]) -> Result<Var> {
    let [batch, in_height, in_width, channels] = image_shape("max_pool", x.tensor())?;
    let geometry = PoolGeometry { batch, in_height, in_width, channels, side, stride, padding };
    if !geometry.is_valid() {
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
    geometry: PoolGeometry,
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
