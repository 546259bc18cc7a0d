//! Softmax regression: a dense layer and its loss in one, for solvers that need the loss to many digits.

use crate::ops::{check_labels, row_shape};
use crate::{EngineError, Result, Tensor};

/// Returns the mean over rows of `-log softmax(x w^T + bias)[label]`, and overwrites `dw` and `dbias` with its
/// gradients.
///
/// x is (N, in), w and `dw` (classes, in), `bias` and `dbias` (classes), labels N numbers below `classes`. Unlike
/// [`softmax_cross_entropy`](super::softmax_cross_entropy) on a tape, the loss is not rounded to f32: a line search
/// compares losses that differ in later digits.
///
/// # Errors
/// Shapes that do not fit, labels out of range, and a device that fails.
pub fn softmax_regression(
    x: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    labels: &[u32],
    dw: &mut Tensor,
    dbias: &mut Tensor,
) -> Result<f64> {
    const NAME: &str = "softmax_regression";
    let [rows, inputs] = row_shape(NAME, x)?;
    let [classes, weights] = row_shape(NAME, w)?;
    if weights != inputs {
        return Err(EngineError::shape(NAME, format!("rows of {weights} values"), x.shape()));
    }
    for (of_classes, shape) in
        [(bias.shape(), &[classes][..]), (dbias.shape(), &[classes]), (dw.shape(), &[classes, inputs])]
    {
        if of_classes != shape {
            return Err(EngineError::shape(NAME, format!("parameters of shape {shape:?}"), of_classes));
        }
    }
    check_labels(NAME, labels, [rows, classes])?;
    let device = x.device();
    let kernels = device.kernels();
    let mut scores = Tensor::empty(device, &[rows, classes]);
    kernels.linear_forward(x, w, Some(bias), &mut scores)?;
    let mut dscores = Tensor::empty(device, &[rows, classes]);
    let loss = kernels.softmax_cross_entropy(&scores, labels, &mut dscores)?;
    kernels.linear_backward_weight(x, &dscores, dw)?;
    kernels.column_sums(&dscores, dbias)?;
    Ok(loss)
}
