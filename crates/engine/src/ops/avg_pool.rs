//! Average pooling by windows of 2 x 2, with which a ResNet-D's shortcuts begin.

use simclr_kernels::AvgPoolGeometry;

use crate::ops::image_shape;
use crate::tape::BackwardContext;
use crate::{EngineError, Result, Tape, Tensor, Var};

/// The mean of each window of 2 x 2 pixels, at a `stride` of 1 or 2: (N, H, W, C) to (N, ceil(H / stride),
/// ceil(W / stride), C).
///
/// Where windows reach beyond the image, to its right or below, missing pixels count as zeros if `zeros`, and are
/// left out of the mean otherwise: TensorFlow's `VALID`, on an image padded by a row and a column, and `SAME`.
///
/// # Errors
/// [`EngineError::Value`](crate::EngineError::Value) for another stride,
/// [`EngineError::Shape`](crate::EngineError::Shape) if x is no images; errors of the device.
pub fn avg_pool(tape: &mut Tape, x: &Var, stride: usize, zeros: bool) -> Result<Var> {
    let [batch, height, width, channels] = image_shape("avg_pool", x.tensor())?;
    let geometry = AvgPoolGeometry { batch, height, width, channels, stride, zeros };
    if !geometry.is_valid() {
        let what = format!("windows of 2 x 2 must be 1 or 2 apart: {geometry:?}");
        return Err(EngineError::Value { op: "avg_pool", what });
    }
    let device = x.tensor().device();
    let shape = [batch, geometry.out_height(), geometry.out_width(), channels];
    let mut y = Tensor::empty_of(device, &shape, x.tensor().dtype());
    device.kernels().avg_pool_forward(&geometry, x.tensor(), &mut y)?;
    Ok(tape.record(&[x], y, || AvgPoolBackward { geometry }))
}

pub(crate) struct AvgPoolBackward {
    geometry: AvgPoolGeometry,
}

impl AvgPoolBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let AvgPoolGeometry { batch, height, width, channels, .. } = self.geometry;
        let shape = [batch, height, width, channels];
        let (mut dx, write) = context.sum(0, || Tensor::empty_of(dy.device(), &shape, dy.dtype()));
        dy.device().kernels().avg_pool_backward(&self.geometry, &dy, &mut dx, write)?;
        context.give(0, dx)
    }
}
