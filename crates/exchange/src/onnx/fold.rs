//! Folds a BatchNorm, with its running averages, into the layer before it.

use simclr_engine::ops::BatchNorm;
use simclr_engine::{ParameterId, Parameters};
use simclr_nn::store_tensor;

use crate::flaw::flaw;
use crate::{ExchangeError, Result};

/// Weights and bias of a layer that computes what a layer and its BatchNorm compute.
pub(super) struct Folded {
    /// The shape of the weights, outputs first as in PyTorch and ONNX.
    pub shape: Vec<usize>,
    pub weight: Vec<f32>,
    /// One value per output; empty if the layer has no bias and no BatchNorm follows.
    pub bias: Option<Vec<f32>>,
}

/// Folds `norm`, if there is one, into the layer of `weight` and `bias`: with s = gamma / sqrt(var + epsilon) the
/// weights are s w and the bias is s (b - mean) + beta. Computed in f64, rounded once.
pub(super) fn fold(
    parameters: &Parameters,
    weight: ParameterId,
    bias: Option<ParameterId>,
    norm: Option<&BatchNorm>,
) -> Result<Folded> {
    let values = |id: ParameterId| Ok::<_, ExchangeError>(checked(parameters, id)?.1);
    let bias = bias.map(values).transpose()?;
    let (shape, mut folded) = checked(parameters, weight)?;
    let Some(norm) = norm else {
        return Ok(Folded { shape, weight: folded, bias });
    };
    let (gamma, beta) = (values(norm.gamma)?, norm.beta.map(values).transpose()?);
    let (mean, variance) = (values(norm.running_mean)?, values(norm.running_var)?);
    let mut shift = Vec::with_capacity(gamma.len());
    let fan_in = (folded.len() / gamma.len().max(1)).max(1);
    for (output, row) in folded.chunks_exact_mut(fan_in).enumerate() {
        let of = |values: &Option<Vec<f32>>| values.as_ref().map_or(0.0, |values| f64::from(values[output]));
        let scale = f64::from(gamma[output]) / (f64::from(variance[output]) + f64::from(norm.epsilon)).sqrt();
        row.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
        shift.push((scale * (of(&bias) - f64::from(mean[output])) + of(&beta)) as f32);
    }
    if !shift.iter().chain(&folded).all(|value| value.is_finite()) {
        let name = parameters.name(norm.gamma).to_owned();
        return Err(ExchangeError::Useless {
            name,
            what: "values that make those of the layer before it infinite",
        });
    }
    Ok(Folded { shape, weight: folded, bias: Some(shift) })
}

/// The shape and values of a parameter in PyTorch's order.
fn checked(parameters: &Parameters, id: ParameterId) -> Result<(Vec<usize>, Vec<f32>)> {
    let (shape, values) = store_tensor(parameters.get(id))?;
    let name = parameters.name(id);
    match flaw(name, &values) {
        Some(what) => Err(ExchangeError::Useless { name: name.to_owned(), what }),
        None => Ok((shape, values)),
    }
}
