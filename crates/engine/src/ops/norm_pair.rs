//! The end of a residual block whose shortcut has a BatchNorm: two BatchNorms, their sum and a ReLU, fused where a
//! device has kernels for it.

use crate::ops::batch_norm::{BatchNorm, Statistics, batch_norm, prepare};
use crate::tape::BackwardContext;
use crate::{EngineError, Mask, Result, Tape, Tensor, Var};

/// What a block's branch is added to: the shortcut, with a BatchNorm of its own.
#[derive(Debug)]
pub struct Shortcut<'n>(Held<'n>);

#[derive(Debug)]
enum Held<'n> {
    /// The BatchNorm is still to be applied, together with the branch's.
    Before(Var, &'n BatchNorm),
    /// The BatchNorm has been applied.
    Behind(Var),
}

/// [`batch_norm`] of x for [`norm_pair`]. If the device does not fuse the pair, this applies it right away, while x
/// may still be in the caches. Takes x by value, so that nothing but the tape keeps it longer than needed.
///
/// # Errors
/// As [`batch_norm`].
pub fn norm_shortcut<'n>(tape: &mut Tape, x: Var, norm: &'n BatchNorm) -> Result<Shortcut<'n>> {
    Ok(Shortcut(match x.tensor().device().kernels().norm_pair() {
        Some(_) => Held::Before(x, norm),
        None => Held::Behind(batch_norm(tape, &x, norm, None, false)?),
    }))
}

/// ReLU([`batch_norm`] of the branch x + `shortcut`), both (..., C), of the same shape and on the same device. Takes
/// x by value, like the shortcut.
///
/// In 16 bits, where the pair is fused, what the shortcut adds is not rounded.
///
/// # Errors
/// As [`batch_norm`], and if the shapes differ.
pub fn norm_pair(tape: &mut Tape, x: Var, norm: &BatchNorm, shortcut: Shortcut) -> Result<Var> {
    let (other, other_norm) = match shortcut.0 {
        Held::Behind(residual) => return batch_norm(tape, &x, norm, Some(&residual), true),
        Held::Before(other, other_norm) => (other, other_norm),
    };
    if other.tensor().shape() != x.tensor().shape() {
        let expected = format!("a residual {:?}", x.tensor().shape());
        return Err(EngineError::shape("batch_norm", expected, other.tensor().shape()));
    }
    let device = x.tensor().device().clone();
    let at_once = device.kernels().norm_pair_again()?;
    // In the order of the separate operators, which is the order of the averages' updates.
    let second = prepare(tape, &other, other_norm, None)?;
    let first = prepare(tape, &x, norm, None)?;
    let mut y = Tensor::empty_of(&device, x.tensor().shape(), x.tensor().dtype());
    // Not needed if nothing is recorded, but small.
    let mut mask = Mask::empty(&device, device.kernels().batch_norm_mask(x.tensor())?);
    let coefficients = [first.coefficients(), second.coefficients()];
    at_once.forward([x.tensor(), other.tensor()], coefficients, &mut y, &mut mask)?;
    let ([gamma, beta], [other_gamma, other_beta]) = (first.parameters(), second.parameters());
    let collective = tape.collective();
    Ok(tape.record(&[&x, gamma, beta, &other, other_gamma, other_beta], y, || NormPairBackward {
        x: [x.tensor().clone(), other.tensor().clone()],
        mask,
        statistics: [first.statistics(collective), second.statistics(collective)],
    }))
}

pub(crate) struct NormPairBackward<'a> {
    x: [Tensor; 2],
    mask: Mask,
    statistics: [Statistics<'a>; 2],
}

impl NormPairBackward<'_> {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let NormPairBackward { x: [mut x, mut other], mask, statistics: [first, second] } = self;
        let device = dy.device().clone();
        let at_once = device.kernels().norm_pair_again()?;
        // One kernel makes both dx.
        let wanted = context.wants(0) || context.wants(3);
        let mut sums = first.sums(&device, context, 1, wanted);
        let mut other_sums = second.sums(&device, context, 4, wanted);
        let coefficients = [&first.coefficients, &second.coefficients];
        at_once.backward_sums(&dy, &mask, [&x, &other], coefficients, [sums.to(), other_sums.to()])?;
        let backward = [sums.give(&device, context)?, other_sums.give(&device, context)?];
        let [Some(backward), Some(other_backward)] = backward else { return Ok(()) };
        at_once.backward_input(&dy, &mask, [&mut x, &mut other], [&backward, &other_backward])?;
        drop(dy);
        context.give(0, x)?;
        context.give(3, other)
    }
}
