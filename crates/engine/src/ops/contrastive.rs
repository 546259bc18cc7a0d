//! Code shared by the contrastive losses: the views of all workers, and the figures of a batch.

use simclr_kernels::contrastive::ContrastiveShape;
use smallvec::SmallVec;

use crate::ops::row_shape;
use crate::{Collective, DType, EngineError, Result, Tape, Tensor, Var};

/// The figures of a contrastive loss on a batch, over the views of all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ContrastiveFigures {
    /// The mean loss of an anchor.
    pub loss: f64,
    /// The share of anchors whose positive is more similar than every negative.
    pub contrastive_accuracy: f64,
    /// The mean entropy of the softmax over an anchor's candidates, in nats; at most ln(2N - 1).
    pub entropy: f64,
}

/// The sums behind [`ContrastiveFigures`], on the device that computed the loss.
#[derive(Debug)]
pub struct ContrastiveSums {
    /// [sum of losses, number of anchors whose positive is more similar than every negative, sum of entropies], f64,
    /// over the views of all workers.
    pub sums: Tensor,
    /// How many views there are.
    pub views: usize,
}

impl ContrastiveSums {
    /// The figures. On a GPU this waits for all started work.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn figures(&self) -> Result<ContrastiveFigures> {
        let mut totals = [0.0; 3];
        self.sums.read(&mut totals)?;
        let [loss, contrastive_accuracy, entropy] = totals.map(|total| total / self.views as f64);
        Ok(ContrastiveFigures { loss, contrastive_accuracy, entropy })
    }
}

/// Checks z, (2n, d), and gathers the views of all workers.
pub(super) fn all_views(
    op: &'static str,
    tape: &Tape,
    z: &Var,
    temperature: f32,
) -> Result<(ContrastiveShape, Tensor)> {
    let [anchors, dim] = row_shape(op, z.tensor())?;
    if anchors < 4 || !anchors.is_multiple_of(2) {
        return Err(EngineError::shape(op, "two views each of at least two images", z.tensor().shape()));
    }
    if !(temperature > 0.0 && temperature.is_finite()) {
        let what = format!("the temperature must be above 0, not {temperature}");
        return Err(EngineError::Value { op, what });
    }
    let collective = tape.collective();
    let views = anchors * collective.size();
    let shape = ContrastiveShape { anchors, views, offset: anchors * collective.rank(), dim, temperature };
    Ok((shape, of_all_workers(collective, z.tensor().clone())?))
}

/// Gathers the rows of all workers, by rank; each brings the same number of rows, `own`.
pub(super) fn of_all_workers(collective: &dyn Collective, own: Tensor) -> Result<Tensor> {
    if collective.size() == 1 {
        return Ok(own);
    }
    let mut shape: SmallVec<[usize; 4]> = own.shape().into();
    shape[0] *= collective.size();
    let mut all = Tensor::empty(own.device(), &shape);
    collective.all_gather_tensor(&own, &mut all)?;
    Ok(all)
}

/// The mean loss, (1), and the sums over all workers. `figures` writes the sums over this worker's anchors.
pub(super) fn mean(
    tape: &Tape,
    z: &Tensor,
    views: usize,
    figures: impl FnOnce(&mut Tensor) -> Result<()>,
) -> Result<(Tensor, ContrastiveSums)> {
    let (collective, device) = (tape.collective(), z.device());
    let mut sums = Tensor::empty_of(device, &[3], DType::F64);
    figures(&mut sums)?;
    collective.all_reduce_tensors(&mut std::iter::once(&mut sums))?;
    let mut value = Tensor::empty(device, &[1]);
    device.kernels().mean_loss(&sums, views, &mut value)?;
    Ok((value, ContrastiveSums { sums, views }))
}

#[cfg(test)]
mod tests {
    use crate::ops::{margin_triplet, nt_logistic, nt_xent};
    use crate::{Device, Mode, Parameters, SingleProcess, Tape, Tensor};

    #[test]
    fn a_positive_that_is_only_as_similar_as_a_negative_is_no_hit() {
        let parameters = Parameters::new();
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let equal = Tensor::full(&Device::cpu(1).unwrap(), &[8, 4], 1.0).unwrap();
        let z = tape.input(equal);
        for (_, sums) in [
            nt_xent(&mut tape, &z, 0.5).unwrap(),
            nt_logistic(&mut tape, &z, 0.5, false).unwrap(),
            nt_logistic(&mut tape, &z, 0.5, true).unwrap(),
            margin_triplet(&mut tape, &z, 0.5, 0.4, false).unwrap(),
        ] {
            assert_eq!(sums.figures().unwrap().contrastive_accuracy, 0.0);
        }
    }
}
