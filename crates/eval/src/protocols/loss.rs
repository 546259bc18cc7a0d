//! The loss of a classifier, and its gradients.

use simclr_engine::{Gradients, Result, Tape, Tensor, Var, ops};

use crate::Targets;

/// Returns the mean loss of rows of class scores, of shape (1), and the gradients of all parameters behind the scores:
/// softmax cross-entropy where a row has one class, the sum of the logistic losses of all classes where it shows
/// several.
pub(super) fn backward_from_loss(
    tape: &mut Tape,
    scores: &Var,
    targets: &Targets,
) -> Result<(Tensor, Gradients)> {
    match targets {
        Targets::One(labels) => {
            let loss = ops::softmax_cross_entropy(tape, scores, labels)?;
            let gradients = tape.backward(&loss, Tensor::full(scores.tensor().device(), &[1], 1.0)?)?;
            Ok((loss.tensor().clone(), gradients))
        }
        Targets::Several { .. } => {
            let (loss, gradient) = of_several(scores.tensor(), targets)?;
            Ok((loss, tape.backward(scores, gradient)?))
        }
    }
}

/// The mean loss and its gradient. Scores are few, so this runs on the CPU whatever their device.
fn of_several(scores: &Tensor, targets: &Targets) -> Result<(Tensor, Tensor)> {
    let (mut gradient, rows) = (scores.to_vec()?, targets.rows() as f64);
    let of_rows = gradient.chunks_exact_mut(scores.last_dim()).enumerate();
    let loss: f64 = of_rows.map(|(row, scores)| targets.of(row).loss(scores)).sum();
    gradient.iter_mut().for_each(|value| *value = (f64::from(*value) / rows) as f32);
    let loss = Tensor::from_slice(scores.device(), &[1], &[(loss / rows) as f32])?;
    Ok((loss, Tensor::from_slice(scores.device(), scores.shape(), &gradient)?))
}

#[cfg(test)]
mod tests {
    use simclr_engine::{Device, Mode, ParameterKind, Parameters, SingleProcess};

    use super::*;

    /// The loss and its gradient when the scores themselves are the parameters.
    fn of(scores: &[f32], targets: &Targets) -> (f32, Vec<f32>) {
        let device = Device::cpu(1).unwrap();
        let mut parameters = Parameters::new();
        let values = Tensor::from_slice(&device, &[2, 3], scores).unwrap();
        let id = parameters.add("scores", ParameterKind::Weight, values).unwrap();
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let scores = tape.parameter(id);
        let (loss, gradients) = backward_from_loss(&mut tape, &scores, targets).unwrap();
        (loss.to_vec().unwrap()[0], gradients.get(id).unwrap().to_vec().unwrap())
    }

    #[test]
    fn gradients_are_those_of_the_loss() {
        let scores = [0.3, -1.2, 0.8, 2.0, 0.1, -0.4];
        let shown = vec![true, false, true, false, false, true];
        for targets in [Targets::One(vec![1, 0]), Targets::Several { classes: 3, shown }] {
            let (_, gradient) = of(&scores, &targets);
            for i in 0..scores.len() {
                let at = |by: f32| {
                    let mut moved = scores;
                    moved[i] += by;
                    f64::from(of(&moved, &targets).0)
                };
                let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!(
                    (slope - f64::from(gradient[i])).abs() < 1e-4,
                    "{targets:?} {i}: {slope} {gradient:?}"
                );
            }
        }
    }
}
