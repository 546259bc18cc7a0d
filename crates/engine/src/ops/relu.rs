//! y = max(x, 0).

use crate::tape::BackwardContext;
use crate::{Result, Tape, Tensor, Var};

/// y = max(x, 0), for any shape. The gradient at 0 is 0.
///
/// # Errors
/// Errors of the device.
pub fn relu(tape: &mut Tape, x: &Var) -> Result<Var> {
    let x_value = x.tensor();
    let mut y = Tensor::empty_of(x_value.device(), x_value.shape(), x_value.dtype());
    x_value.device().kernels().relu_forward(x_value, &mut y)?;
    Ok(tape.record(&[x], y.clone(), || ReluBackward { y }))
}

pub(crate) struct ReluBackward {
    y: Tensor,
}

impl ReluBackward {
    pub(crate) fn backward(self, mut dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        self.y.device().kernels().relu_backward(&self.y, &mut dy)?;
        context.give(0, dy)
    }
}
