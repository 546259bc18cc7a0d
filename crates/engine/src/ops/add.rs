//! y = a + b.

use crate::tape::BackwardContext;
use crate::{EngineError, Result, Tape, Tensor, Var};

/// y = a + b, which have the same shape. For a BatchNorm and a residual, use that operator's own argument instead.
///
/// # Errors
/// [`EngineError::Shape`](crate::EngineError::Shape) if the operands do not fit together; errors of the device.
pub fn add(tape: &mut Tape, a: &Var, b: &Var) -> Result<Var> {
    if a.tensor().shape() != b.tensor().shape() {
        return Err(EngineError::shape("add", format!("{:?}", a.tensor().shape()), b.tensor().shape()));
    }
    let mut y = a.tensor().clone();
    y.add_assign(b.tensor())?;
    Ok(tape.record(&[a, b], y, || AddBackward))
}

pub(crate) struct AddBackward;

impl AddBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        context.give(0, dy.clone())?;
        context.give(1, dy)
    }
}
