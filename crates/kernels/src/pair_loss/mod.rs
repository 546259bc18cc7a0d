//! NT-Logistic and the margin triplet (Chen et al., arXiv:2002.05709, tables 2 and 4), with and without semi-hard
//! negative mining, in tiles: the 2N x 2N matrix of similarities is never stored.
//!
//! With s(i,k) = z_i . z_k / tau, table 2 gives the loss of an anchor i, its positive j and one negative k:
//!
//! | loss | of (i, j, k) |
//! |---|---|
//! | NT-Logistic | -log sigma(s(i,j)) - log sigma(-s(i,k)) |
//! | margin triplet | max(tau s(i,k) - tau s(i,j) + m, 0) |
//!
//! An anchor's loss l_i is the mean over its 2(N - 1) negatives, so that the mean over anchors is the mean over all
//! triples of the batch: in NT-Logistic, the positive weighs as much as all negatives together. With mining only the
//! triple of the [semi-hard](PairLoss::semi_hard) negative is left.
//!
//! **Gradient.** View i is an anchor, the positive of another view, and a negative of all the others, so
//!
//! ```text
//! dz_i = u / tau * ( sum over negatives k of (w(i,k) + w(k,i)) z_k  -  (c_i + c_j) z_j )
//! ```
//!
//! with u = 1 for NT-Logistic, tau for the triplet (whose slope is along tau s), w(i,k) = u^-1 dl_i/ds(i,k) and
//! c_i = -u^-1 dl_i/ds(i,j):
//!
//! | loss | w(i,k), every negative | w(i,n) of the mined n, 0 for others | c_i |
//! |---|---|---|---|
//! | NT-Logistic | sigma(s(i,k)) / 2(N - 1) | sigma(s(i,n)) | sigma(-s(i,j)) |
//! | margin triplet | \[triple is active\] / 2(N - 1) | \[triple is active\] | sum over k of w(i,k) |
//!
//! A triple is active where its loss is above 0. The choice of the mined negative counts as a constant. w is not
//! symmetric: w of another worker's anchor comes from its [`Pair`], which workers exchange, so that no gradient has
//! to travel back through the gather.

mod backward;
mod forward;
#[cfg(test)]
mod tests;

use crate::Cpu;
use crate::contrastive::ContrastiveShape;
use crate::nt_xent::Anchor;

/// A loss over triples of an anchor, its positive and one negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// The loss of a triple.
    pub term: Term,
    /// Whether only an anchor's semi-hard negative counts: the most similar of those less similar than the positive
    /// (Schroff et al., arXiv:1503.03832), or, where there is none, the least similar of all negatives, so that every
    /// anchor has one. The first of equal ones is taken.
    pub semi_hard: bool,
}

/// The loss of a triple.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Term {
    /// -log sigma(s(i,j)) - log sigma(-s(i,k)).
    Logistic,
    /// max(tau s(i,k) - tau s(i,j) + m, 0).
    Margin(f32),
}

impl Term {
    /// The unit u of the loss's slope along s: 1, or tau for the triplet, whose slope is along tau s.
    pub fn unit(self, temperature: f32) -> f32 {
        match self {
            Term::Logistic => 1.0,
            Term::Margin(_) => temperature,
        }
    }
}

/// The forward pass's findings for one anchor i, which the backward pass needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Pair {
    /// s(i,j) of the positive j.
    pub positive: f32,
    /// c_i, how strongly the positive is pulled closer.
    pub pull: f32,
    /// n, the index of the mined negative among all views, an integer below [`MOST_VIEWS`]; 0 without mining.
    pub negative: f32,
    /// w(i,n), how strongly the mined negative is pushed away; 0 without mining.
    pub push: f32,
}

/// The most views whose indices an f32 represents exactly.
pub const MOST_VIEWS: usize = 1 << 24;

fn check(shape: &ContrastiveShape, all: &[f32]) {
    shape.check(all);
    assert!(shape.views > 2 && shape.views <= MOST_VIEWS, "negatives, whose indices an f32 holds exactly");
}

/// Computes l_i and the [`Pair`] of each anchor. `all` is z of all workers, (views, dim); `anchors` is the result of
/// [`crate::nt_xent::nt_xent_forward`] on the same views.
pub fn pair_loss_forward(
    cpu: &Cpu,
    shape: &ContrastiveShape,
    loss: PairLoss,
    all: &[f32],
    anchors: &[Anchor],
    pairs: &mut [Pair],
    losses: &mut [f32],
) {
    check(shape, all);
    assert!([anchors.len(), pairs.len(), losses.len()] == [shape.anchors; 3]);
    forward::forward(cpu, shape, loss, all, anchors, pairs, losses);
}

/// dz (anchors, dim) of `factor` times the sum of l over ALL workers' anchors. `pairs` holds one [`Pair`] for each
/// view of all workers. Overwrites dz.
pub fn pair_loss_backward(
    cpu: &Cpu,
    shape: &ContrastiveShape,
    loss: PairLoss,
    all: &[f32],
    pairs: &[Pair],
    factor: f32,
    dz: &mut [f32],
) {
    check(shape, all);
    assert!(dz.len() == shape.anchors * shape.dim && pairs.len() == shape.views);
    let scale = factor * loss.term.unit(shape.temperature) / shape.temperature;
    if loss.semi_hard {
        backward::of_mined(cpu, shape, all, pairs, scale, dz);
    } else {
        backward::of_all(cpu, shape, loss.term, all, pairs, scale, dz);
    }
}
