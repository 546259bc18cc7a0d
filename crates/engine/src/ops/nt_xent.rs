//! NT-Xent, the loss of SimCLR, over the views of all workers.

use simclr_kernels::nt_xent::NtXentShape;

use crate::ops::row_shape;
use crate::tape::BackwardContext;
use crate::{DType, EngineError, Result, Tape, Tensor, Var};

/// What the loss tells about a batch, over the views of all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NtXentFigures {
    /// The mean of l(i,j) over all ordered positive pairs.
    pub loss: f64,
    /// The share of anchors to which no negative is as similar as the positive.
    pub contrastive_accuracy: f64,
    /// The mean entropy of the softmax over an anchor's candidates, in nats; at most ln(2N - 1).
    pub entropy: f64,
}

/// The mean over all ordered positive pairs of l(i,j) = -log( exp s(i,j) / sum over k != i of exp s(i,k) ),
/// s(i,k) = z_i . z_k / tau (arXiv:2002.05709, equation 1 and algorithm 1).
///
/// z is (2n, d): the first views of this worker's n images, then their second views, so that i's positive is
/// i + n modulo 2n. Every worker brings as many. Normalise z first for the paper's cosine similarity. Negatives come
/// from all workers; each worker's gradient is that of the global loss with respect to its own z, whole.
///
/// The result has one value; the figures are for people.
pub fn nt_xent(tape: &mut Tape, z: &Var, temperature: f32) -> Result<(Var, NtXentFigures)> {
    let (loss, sums) = nt_xent_sums(tape, z, temperature)?;
    Ok((loss, sums.figures()?))
}

/// What [`NtXentFigures`] are made of, where the loss was computed.
#[derive(Debug)]
pub struct NtXentSums {
    /// [sum of losses, anchors to which no negative is as similar as the positive, sum of entropies], f64, over the views of all workers.
    pub sums: Tensor,
    /// How many views there are.
    pub views: usize,
}

impl NtXentSums {
    /// The figures. On a GPU this waits for all that was started.
    pub fn figures(&self) -> Result<NtXentFigures> {
        let mut totals = [0.0; 3];
        self.sums.read(&mut totals)?;
        let [loss, contrastive_accuracy, entropy] = totals.map(|total| total / self.views as f64);
        Ok(NtXentFigures { loss, contrastive_accuracy, entropy })
    }
}

/// [`nt_xent`] whose figures nobody waits for.
pub fn nt_xent_sums(tape: &mut Tape, z: &Var, temperature: f32) -> Result<(Var, NtXentSums)> {
    let [anchors, dim] = row_shape("nt_xent", z.tensor())?;
    if anchors < 4 || !anchors.is_multiple_of(2) {
        return Err(EngineError::shape(
            "nt_xent",
            "two views each of at least two images",
            z.tensor().shape(),
        ));
    }
    if !(temperature > 0.0 && temperature.is_finite()) {
        let what = format!("the temperature must be above 0, not {temperature}");
        return Err(EngineError::Value { op: "nt_xent", what });
    }
    let collective = tape.collective();
    let views = anchors * collective.size();
    let shape = NtXentShape { anchors, views, offset: anchors * collective.rank(), dim, temperature };
    let device = z.tensor().device();
    let all = if collective.size() == 1 {
        z.tensor().clone()
    } else {
        let mut all = Tensor::empty(device, &[views, dim]);
        collective.all_gather(z.tensor().as_slice()?, all.as_mut_slice()?)?;
        all
    };
    let mut found = Tensor::empty(device, &[anchors, 4]);
    device.kernels().nt_xent_forward(&shape, z.tensor(), &all, &mut found)?;
    let mut own = Tensor::empty(device, &[anchors]);
    let mut sums = Tensor::empty_of(device, &[3], DType::F64);
    device.kernels().nt_xent_figures(&found, &mut own, &mut sums)?;
    if collective.size() > 1 {
        collective.all_reduce_sum(sums.values_mut()?)?;
    }
    let lse = if collective.size() == 1 {
        own
    } else {
        let mut lse = Tensor::empty(device, &[views]);
        collective.all_gather(own.as_slice()?, lse.as_mut_slice()?)?;
        lse
    };
    let mut value = Tensor::empty(device, &[1]);
    device.kernels().nt_xent_mean(&sums, views, &mut value)?;
    let loss = tape.record(&[z], value, || NtXentBackward { shape, z: z.tensor().clone(), all, lse });
    Ok((loss, NtXentSums { sums, views }))
}

pub(crate) struct NtXentBackward {
    shape: NtXentShape,
    z: Tensor,
    all: Tensor,
    lse: Tensor,
}

impl NtXentBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let mut dz = Tensor::empty(self.z.device(), self.z.shape());
        self.z.device().kernels().nt_xent_backward(
            &self.shape,
            &self.z,
            &self.all,
            &self.lse,
            &dy,
            &mut dz,
        )?;
        context.give(0, dz)
    }
}
