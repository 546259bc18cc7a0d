//! NT-Xent, the loss of SimCLR, over the views of all workers.

use simclr_kernels::contrastive::ContrastiveShape;

use super::contrastive::{ContrastiveSums, all_views, mean, of_all_workers};
use crate::tape::BackwardContext;
use crate::{Result, Tape, Tensor, Var};

/// The mean over all ordered positive pairs of l(i,j) = -log( exp s(i,j) / sum over k != i of exp s(i,k) ),
/// s(i,k) = z_i . z_k / tau (arXiv:2002.05709, equation 1 and algorithm 1).
///
/// z is (2n, d): the first views of this worker's n images, then their second views, so that i's positive is
/// i + n modulo 2n. Every worker has the same n. Normalise z first for the paper's cosine similarity. Negatives come
/// from all workers; each worker's gradient is the full gradient of the global loss with respect to its own z.
///
/// The loss has one value; the sums are for reporting, and nothing waits for them.
///
/// # Errors
/// A z that is not two views each of at least two images; a temperature that is not above 0.
pub fn nt_xent(tape: &mut Tape, z: &Var, temperature: f32) -> Result<(Var, ContrastiveSums)> {
    let (shape, all) = all_views("nt_xent", tape, z, temperature)?;
    let device = z.tensor().device();
    let mut found = Tensor::empty(device, &[shape.anchors, 4]);
    device.kernels().nt_xent_forward(&shape, &all, &mut found)?;
    let mut own = Tensor::empty(device, &[shape.anchors]);
    let (value, sums) =
        mean(tape, z.tensor(), shape.views, |sums| device.kernels().nt_xent_figures(&found, &mut own, sums))?;
    let lse = of_all_workers(tape.collective(), own)?;
    let loss = tape.record(&[z], value, || NtXentBackward { shape, all, anchors: found, lse });
    Ok((loss, sums))
}

pub(crate) struct NtXentBackward {
    shape: ContrastiveShape,
    all: Tensor,
    anchors: Tensor,
    lse: Tensor,
}

impl NtXentBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let NtXentBackward { shape, all, anchors, lse } = self;
        let mut dz = Tensor::empty(dy.device(), &[shape.anchors, shape.dim]);
        dy.device().kernels().nt_xent_backward(&shape, &all, &anchors, &lse, &dy, &mut dz)?;
        context.give(0, dz)
    }
}
