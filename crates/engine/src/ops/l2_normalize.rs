//! L2 normalisation, which puts rows onto the unit sphere.

use crate::ops::row_shape;
use crate::tape::BackwardContext;
use crate::{Result, Tape, Tensor, Var};

/// y = x / max(|x|, 1e-12) for every row of x (N, C); NaN where |x| is beyond the range of f32.
///
/// # Errors
/// [`EngineError::Shape`](crate::EngineError::Shape) if x is no rows; errors of the device.
pub fn l2_normalize(tape: &mut Tape, x: &Var) -> Result<Var> {
    row_shape("l2_normalize", x.tensor())?;
    let device = x.tensor().device();
    let mut y = Tensor::empty(device, x.tensor().shape());
    device.kernels().l2_normalize_forward(x.tensor(), &mut y)?;
    Ok(tape.record(&[x], y, || L2NormalizeBackward { x: x.tensor().clone() }))
}

pub(crate) struct L2NormalizeBackward {
    x: Tensor,
}

impl L2NormalizeBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let mut dx = Tensor::empty(dy.device(), dy.shape());
        dy.device().kernels().l2_normalize_backward(&self.x, &dy, &mut dx)?;
        context.give(0, dx)
    }
}
