//! NT-Logistic and the margin triplet: losses that compare one positive with one negative at a time, over the views of
//! all workers.

use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::pair_loss::{MOST_VIEWS, PairLoss, Term};

use super::contrastive::{ContrastiveSums, all_views, mean, of_all_workers};
use crate::tape::BackwardContext;
use crate::{EngineError, Result, Tape, Tensor, Var};

/// NT-Logistic (arXiv:2002.05709, table 2): the mean over anchors i of -log sigma(s(i,j)) - log sigma(-s(i,k)),
/// s(i,k) = z_i . z_k / tau, where j is i's positive, and the second term is the mean over its 2(N - 1) negatives k.
///
/// With `semi_hard`, the second term takes a single negative: the most similar of those that are less similar than
/// the positive (arXiv:1503.03832), the first of equals; if there is none, the least similar of all. The gradient
/// treats the choice as a constant. If two negatives are almost equally similar, the choice depends on the rounding
/// of z, and the loss jumps with it: more than one worker, or another instruction set, may choose differently.
///
/// The paper's own comparison (section 5.1, appendix B.10) takes negatives only from the views of one branch, for
/// simplicity; here they are those of [`nt_xent`](super::nt_xent()): all views but the anchor and its positive. z,
/// workers and figures are as there too: z is (2n, d), normalise it first for the paper's cosine similarity, and
/// each worker's gradient is the full gradient of the global loss with respect to its own z.
///
/// The loss has one value; it is 2 ln 2 if all similarities are 0.
///
/// # Errors
/// A z that is not two views each of at least two images; a temperature that is not above 0; more views than 2^24.
pub fn nt_logistic(
    tape: &mut Tape,
    z: &Var,
    temperature: f32,
    semi_hard: bool,
) -> Result<(Var, ContrastiveSums)> {
    pair_loss("nt_logistic", tape, z, temperature, PairLoss { term: Term::Logistic, semi_hard })
}

/// The margin triplet (arXiv:2002.05709, table 2; arXiv:1503.03832): the mean over anchors i, and over the 2(N - 1)
/// negatives k of each, of max(z_i . z_k - z_i . z_j + m, 0), where j is i's positive; with `semi_hard`, over one
/// negative each. Everything else is as in [`nt_logistic`].
///
/// `margin` m is in units of the similarity z_i . z_k, which lies in [-1, 1] if z is normalised. `temperature`
/// affects only the entropy in the figures.
///
/// # Errors
/// Those of [`nt_logistic`]; a margin that is negative or not finite.
pub fn margin_triplet(
    tape: &mut Tape,
    z: &Var,
    temperature: f32,
    margin: f32,
    semi_hard: bool,
) -> Result<(Var, ContrastiveSums)> {
    const OP: &str = "margin_triplet";
    if !(margin >= 0.0 && margin.is_finite()) {
        return Err(EngineError::Value {
            op: OP,
            what: format!("the margin must be 0 or more, not {margin}"),
        });
    }
    pair_loss(OP, tape, z, temperature, PairLoss { term: Term::Margin(margin), semi_hard })
}

fn pair_loss(
    op: &'static str,
    tape: &mut Tape,
    z: &Var,
    temperature: f32,
    loss: PairLoss,
) -> Result<(Var, ContrastiveSums)> {
    let (shape, all) = all_views(op, tape, z, temperature)?;
    if shape.views > MOST_VIEWS {
        let what = format!("there are {} views, at most {MOST_VIEWS} are possible", shape.views);
        return Err(EngineError::Value { op, what });
    }
    let device = z.tensor().device();
    let mut anchors = Tensor::empty(device, &[shape.anchors, 4]);
    device.kernels().nt_xent_forward(&shape, &all, &mut anchors)?;
    let (mut own, mut losses) =
        (Tensor::empty(device, &[shape.anchors, 4]), Tensor::empty(device, &[shape.anchors]));
    device.kernels().pair_loss_forward(&shape, loss, &all, &anchors, &mut own, &mut losses)?;
    let (value, sums) = mean(tape, z.tensor(), shape.views, |sums| {
        device.kernels().pair_loss_figures(&anchors, &losses, sums)
    })?;
    let pairs = of_all_workers(tape.collective(), own)?;
    let loss = tape.record(&[z], value, || PairLossBackward { shape, loss, all, pairs });
    Ok((loss, sums))
}

pub(crate) struct PairLossBackward {
    shape: ContrastiveShape,
    loss: PairLoss,
    all: Tensor,
    pairs: Tensor,
}

impl PairLossBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let PairLossBackward { shape, loss, all, pairs } = self;
        let mut dz = Tensor::empty(dy.device(), &[shape.anchors, shape.dim]);
        dy.device().kernels().pair_loss_backward(&shape, loss, &all, &pairs, &dy, &mut dz)?;
        context.give(0, dz)
    }
}
