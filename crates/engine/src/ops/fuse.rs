//! Fuse, the first step of selective kernels: sums up both streams in one vector per image.

use crate::ops::image_shape;
use crate::tape::BackwardContext;
use crate::{DType, EngineError, Result, Tape, Tensor, Var};

/// The mean over all pixels of x1 + x2, where x holds the channels of stream x1, then those of x2: (N, H, W, 2 C) to
/// (N, C), in f32 whatever the type of x. arXiv:1903.06586, equations 1 and 2.
///
/// # Errors
/// [`EngineError::Shape`](crate::EngineError::Shape) if x is no images of an even number of channels; errors of the
/// device.
pub fn fuse(tape: &mut Tape, x: &Var) -> Result<Var> {
    let shape @ [batch, _, _, channels] = image_shape("fuse", x.tensor())?;
    if !channels.is_multiple_of(2) {
        return Err(EngineError::shape("fuse", "two streams (N, H, W, 2 C)", x.tensor().shape()));
    }
    let device = x.tensor().device();
    let mut y = Tensor::empty(device, &[batch, channels / 2]);
    device.kernels().fuse_forward(x.tensor(), &mut y)?;
    Ok(tape.record(&[x], y, || FuseBackward { shape, dtype: x.tensor().dtype() }))
}

pub(crate) struct FuseBackward {
    shape: [usize; 4],
    dtype: DType,
}

impl FuseBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let (mut dx, write) = context.sum(0, || Tensor::empty_of(dy.device(), &self.shape, self.dtype));
        dy.device().kernels().fuse_backward(&dy, &mut dx, write)?;
        context.give(0, dx)
    }
}
