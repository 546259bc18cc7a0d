//! Softmax cross-entropy, the loss of classifiers.

use crate::ops::{check_labels, row_shape};
use crate::tape::BackwardContext;
use crate::{Result, Tape, Tensor, Var};

/// The mean over rows of `-log softmax(logits)[label]`. Logits are (N, classes), labels N numbers below `classes`.
/// The result has one value.
///
/// # Errors
/// [`EngineError::Shape`](crate::EngineError::Shape) if there is not one label a row,
/// [`EngineError::Value`](crate::EngineError::Value) for a label that is no class; errors of the device.
pub fn softmax_cross_entropy(tape: &mut Tape, logits: &Var, labels: &[u32]) -> Result<Var> {
    let [rows, classes] = row_shape("softmax_cross_entropy", logits.tensor())?;
    check_labels("softmax_cross_entropy", labels, [rows, classes])?;
    let device = logits.tensor().device();
    let mut dlogits = Tensor::empty(device, &[rows, classes]);
    let loss = device.kernels().softmax_cross_entropy(logits.tensor(), labels, &mut dlogits)?;
    let value = Tensor::from_slice(device, &[1], &[loss as f32])?;
    Ok(tape.record(&[logits], value, || SoftmaxCrossEntropyBackward { dlogits }))
}

pub(crate) struct SoftmaxCrossEntropyBackward {
    dlogits: Tensor,
}

impl SoftmaxCrossEntropyBackward {
    pub(crate) fn backward(mut self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        dy.device().kernels().scale(&mut self.dlogits, &dy)?;
        context.give(0, self.dlogits)
    }
}
