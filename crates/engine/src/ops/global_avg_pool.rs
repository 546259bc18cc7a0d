//! Global average pooling, which makes h, the representation.

use crate::ops::image_shape;
use crate::tape::BackwardContext;
use crate::{DType, Result, Tape, Tensor, Var};

/// The mean over all pixels: (N, H, W, C) to (N, C), in f32 whatever the type of x.
///
/// # Errors
/// [`EngineError::Shape`](crate::EngineError::Shape) if x is no images; errors of the device.
pub fn global_avg_pool(tape: &mut Tape, x: &Var) -> Result<Var> {
    let shape @ [batch, _, _, channels] = image_shape("global_avg_pool", x.tensor())?;
    let device = x.tensor().device();
    let mut y = Tensor::empty(device, &[batch, channels]);
    device.kernels().global_avg_pool_forward(x.tensor(), &mut y)?;
    Ok(tape.record(&[x], y, || GlobalAvgPoolBackward { shape, dtype: x.tensor().dtype() }))
}

pub(crate) struct GlobalAvgPoolBackward {
    shape: [usize; 4],
    dtype: DType,
}

impl GlobalAvgPoolBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let mut dx = Tensor::empty_of(dy.device(), &self.shape, self.dtype);
        dy.device().kernels().global_avg_pool_backward(&dy, &mut dx)?;
        context.give(0, dx)
    }
}
