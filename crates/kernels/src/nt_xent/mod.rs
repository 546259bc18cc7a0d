//! NT-Xent (Chen et al., arXiv:2002.05709, equation 1), tiled: the 2N x 2N matrix of similarities is never stored.
//!
//! `README.md` beside this file explains the tiles, the gradient and the two forms: `symmetric` for bounded
//! similarities, such as those of normalised views, and `online` for all others.

// Register tiles index arrays up to a constant, since the compiler unrolls that form into registers.
#![allow(clippy::needless_range_loop)]

mod online;
mod packed;
mod rounds;
mod symmetric;
#[cfg(test)]
mod tests;
mod tile;

use crate::Cpu;
use crate::contrastive::ContrastiveShape;
use crate::math::exp;

/// The forward pass's findings for one anchor i.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Anchor {
    /// l(i,j) = -log( exp s(i,j) / sum over k != i of exp s(i,k) ), accurate also where it is small, unlike
    /// log-sum-exp minus s(i,j).
    pub loss: f32,
    /// s(i,j) of the positive j.
    pub positive: f32,
    /// Entropy of softmax over k != i of s(i,k), in nats.
    pub entropy: f32,
    /// The greatest s(i,k) of a negative k.
    pub hardest: f32,
}

impl Anchor {
    /// Computes the figures of an anchor from its negatives' mass, the sum of e^(s - m), and moment, the sum of
    /// (s - m) e^(s - m), relative to `reference`, m.
    #[inline(always)]
    fn new(reference: f32, (mass, moment): (f32, f32), positive: f32, hardest: f32) -> Anchor {
        let own = positive - reference;
        let weight = exp(own);
        let total = mass + weight;
        let (loss, entropy) = if mass <= weight {
            let loss = (mass / weight).ln_1p();
            (loss, loss + (own * mass - moment) / total)
        } else {
            let log = total.ln();
            (log - own, log - (moment + own * weight) / total)
        };
        Anchor { loss, positive, entropy, hardest }
    }

    /// log of the sum over k != i of exp s(i,k), never less than the greatest s(i,k): where similarities are large,
    /// loss + positive may round to less, by so much that probabilities would far exceed 1.
    pub fn lse(&self) -> f32 {
        let sum = self.positive + self.loss;
        // The comparisons keep a NaN of `sum`.
        let least = if self.hardest > self.positive { self.hardest } else { self.positive };
        if least > sum { least } else { sum }
    }

    /// 1 - p(i,j): the negatives' weight in the softmax.
    fn negatives(&self) -> f32 {
        -(-self.loss).exp_m1()
    }
}

/// The backward pass's inputs besides z: this worker's anchors, and every view's log-sum-exp.
#[derive(Clone, Copy)]
struct Known<'a> {
    anchors: &'a [Anchor],
    lse: &'a [f32],
}

impl Known<'_> {
    /// p(i,j) + p(j,i) - 2 for anchor `i` and its positive j, from the negatives' weights: where both probabilities
    /// are nearly 1, the difference of rounded values would be all error.
    #[inline(always)]
    fn positive_weight(&self, shape: &ContrastiveShape, i: usize) -> f32 {
        let j = shape.positive(i) - shape.offset;
        -(self.anchors[i].negatives() + self.anchors[j].negatives())
    }
}

/// Computes the [`Anchor`] of each of this worker's anchors. `all` is z of all workers, (views, dim).
pub fn nt_xent_forward(cpu: &Cpu, shape: &ContrastiveShape, all: &[f32], anchors: &mut [Anchor]) {
    shape.check(all);
    assert_eq!(anchors.len(), shape.anchors);
    match symmetric::bound(cpu, shape, all) {
        Some(bound) => symmetric::forward(cpu, shape, all, bound, anchors),
        None => online::forward(cpu, shape, all, anchors),
    }
}

/// dz (anchors, dim) of `factor` times the sum of l over ALL workers' anchors, so that no gradient has to travel back
/// through the gather: dz_i = factor / tau (sum over k of (p(i,k) + p(k,i)) z_k - 2 z_j), p(i,k) = exp(s(i,k) - lse_i).
///
/// `anchors` is the result of [`nt_xent_forward`]; `lse` holds one value for each view of all workers. Overwrites dz.
pub fn nt_xent_backward(
    cpu: &Cpu,
    shape: &ContrastiveShape,
    all: &[f32],
    anchors: &[Anchor],
    lse: &[f32],
    factor: f32,
    dz: &mut [f32],
) {
    shape.check(all);
    assert!(
        dz.len() == shape.anchors * shape.dim && lse.len() == shape.views && anchors.len() == shape.anchors
    );
    let known = Known { anchors, lse };
    match symmetric::bound(cpu, shape, all) {
        Some(bound) => symmetric::backward(cpu, shape, all, known, bound, factor, dz),
        None => online::backward(cpu, shape, all, known, factor, dz),
    }
}
