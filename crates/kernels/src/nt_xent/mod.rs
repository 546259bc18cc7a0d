//! NT-Xent (Chen et al., arXiv:2002.05709, equation 1), tiled: the 2N x 2N matrix of similarities never exists.
//!
//! `README.md` beside this file explains the tiles, the gradient and the two forms: `symmetric` where similarities are
//! bounded, which normalised ones are, and `online` for all others.

// Register tiles go over arrays by index up to a constant: that form is unrolled into registers.
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

/// What forward finds for one anchor i.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Anchor {
    /// log of the sum over k != i of exp s(i,k).
    pub lse: f32,
    /// s(i,j) of the positive j.
    pub positive: f32,
    /// Entropy of softmax over k != i of s(i,k), in nats.
    pub entropy: f32,
    /// The greatest s(i,k) of a negative k.
    pub hardest: f32,
}

impl Anchor {
    /// l(i,j) = -log( exp s(i,j) / sum over k != i of exp s(i,k) ).
    pub fn loss(&self) -> f32 {
        self.lse - self.positive
    }
}

/// Per anchor: log-sum-exp, positive and hardest similarity, entropy. z is (anchors, dim), `all` (views, dim), and z is
/// `all` from `shape.offset` on.
pub fn nt_xent_forward(cpu: &Cpu, shape: &ContrastiveShape, z: &[f32], all: &[f32], anchors: &mut [Anchor]) {
    shape.check(z, all);
    assert_eq!(anchors.len(), shape.anchors);
    match symmetric::bound(cpu, shape, all) {
        Some(bound) => symmetric::forward(cpu, shape, all, bound, anchors),
        None => online::forward(cpu, shape, z, all, anchors),
    }
}

/// dz (anchors, dim) of `factor` times the sum of l over ALL workers' anchors, so that no gradient has to travel back
/// through the gather: dz_i = factor / tau (sum over k of (p(i,k) + p(k,i)) z_k - 2 z_j), p(i,k) = exp(s(i,k) - lse_i).
///
/// `lse` holds one value a view of all workers. Overwrites dz.
pub fn nt_xent_backward(
    cpu: &Cpu,
    shape: &ContrastiveShape,
    z: &[f32],
    all: &[f32],
    lse: &[f32],
    factor: f32,
    dz: &mut [f32],
) {
    shape.check(z, all);
    assert!(dz.len() == z.len() && lse.len() == shape.views);
    match symmetric::bound(cpu, shape, all) {
        Some(bound) => symmetric::backward(cpu, shape, all, lse, bound, factor, dz),
        None => online::backward(cpu, shape, z, all, lse, factor, dz),
    }
}
