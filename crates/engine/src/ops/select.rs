//! Select, the last step of selective kernels: mixes the two streams, channel by channel of each image.

use crate::ops::{image_shape, row_shape};
use crate::tape::BackwardContext;
use crate::{EngineError, Result, Tape, Tensor, Var};

/// y = a x1 + b x2, (N, H, W, C), where x (N, H, W, 2 C) holds the channels of stream x1, then those of x2, logits
/// (N, 2 C) likewise l1 and l2, and (a, b) = softmax(l1, l2) for each channel of each image. arXiv:1903.06586,
/// equations 5 and 6.
///
/// # Errors
/// [`EngineError::Shape`](crate::EngineError::Shape) if the operands do not fit together; errors of the device.
pub fn select(tape: &mut Tape, x: &Var, logits: &Var) -> Result<Var> {
    let [batch, height, width, channels] = image_shape("select", x.tensor())?;
    if !channels.is_multiple_of(2) {
        return Err(EngineError::shape("select", "two streams (N, H, W, 2 C)", x.tensor().shape()));
    }
    if row_shape("select logits", logits.tensor())? != [batch, channels] {
        let expected = format!("logits [{batch}, {channels}]");
        return Err(EngineError::shape("select", expected, logits.tensor().shape()));
    }
    let device = x.tensor().device();
    let mut y = Tensor::empty_of(device, &[batch, height, width, channels / 2], x.tensor().dtype());
    device.kernels().select_forward(x.tensor(), logits.tensor(), &mut y)?;
    let backward = || SelectBackward { x: x.tensor().clone(), logits: logits.tensor().clone() };
    Ok(tape.record(&[x, logits], y, backward))
}

pub(crate) struct SelectBackward {
    x: Tensor,
    logits: Tensor,
}

impl SelectBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let SelectBackward { x: mut dx, logits } = self;
        let mut dlogits = Tensor::empty(dy.device(), logits.shape());
        dy.device().kernels().select_backward(&dy, &logits, &mut dx, &mut dlogits)?;
        context.give(1, dlogits)?;
        context.give(0, dx)
    }
}
