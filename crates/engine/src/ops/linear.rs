//! A dense layer.

use crate::ops::row_shape;
use crate::tape::BackwardContext;
use crate::{EngineError, Result, Tape, Tensor, Var};

/// y (N, out) = x (N, in) w^T + bias, with w (out, in) and bias (out).
///
/// # Errors
/// [`EngineError::Shape`](crate::EngineError::Shape) if the operands do not fit together; errors of the device.
pub fn linear(tape: &mut Tape, x: &Var, w: &Var, bias: Option<&Var>) -> Result<Var> {
    let [rows, inputs] = row_shape("linear", x.tensor())?;
    let [outputs, weight_inputs] = row_shape("linear weights", w.tensor())?;
    if weight_inputs != inputs {
        return Err(EngineError::shape(
            "linear",
            format!("rows of {weight_inputs} values"),
            x.tensor().shape(),
        ));
    }
    if let Some(bias) = bias.filter(|b| b.tensor().shape() != [outputs]) {
        return Err(EngineError::shape("linear", format!("a bias [{outputs}]"), bias.tensor().shape()));
    }
    let device = x.tensor().device();
    let mut y = Tensor::empty(device, &[rows, outputs]);
    device.kernels().linear_forward(x.tensor(), w.tensor(), bias.map(Var::tensor), &mut y)?;
    let backward = || LinearBackward { x: x.tensor().clone(), w: w.tensor().clone() };
    Ok(match bias {
        Some(bias) => tape.record(&[x, w, bias], y, backward),
        None => tape.record(&[x, w], y, backward),
    })
}

pub(crate) struct LinearBackward {
    x: Tensor,
    w: Tensor,
}

impl LinearBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let device = dy.device().clone();
        if context.inputs() > 2 && context.wants(2) {
            let mut sums = Tensor::empty(&device, &[dy.last_dim()]);
            device.kernels().column_sums(&dy, &mut sums)?;
            context.give(2, sums)?;
        }
        if context.wants(1) {
            let mut dw = Tensor::empty(&device, self.w.shape());
            device.kernels().linear_backward_weight(&self.x, &dy, &mut dw)?;
            context.give(1, dw)?;
        }
        if context.wants(0) {
            let mut dx = Tensor::empty(&device, self.x.shape());
            device.kernels().linear_backward_input(&dy, &self.w, &mut dx)?;
            context.give(0, dx)?;
        }
        Ok(())
    }
}
