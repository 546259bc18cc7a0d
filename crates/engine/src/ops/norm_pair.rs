//! The end of a residual block with a shortcut of its own: two BatchNorms, their sum and a ReLU, at once where a device
//! has kernels for it.

use crate::ops::batch_norm::{BatchNorm, Statistics, batch_norm, prepare};
use crate::tape::BackwardContext;
use crate::{EngineError, Mask, Result, Tape, Tensor, Var};

/// What a block's branch is added to, behind a BatchNorm of its own.
#[derive(Debug)]
pub struct Shortcut<'n>(Held<'n>);

#[derive(Debug)]
enum Held<'n> {
    /// The BatchNorm is to come, together with the branch's.
    Before(Var, &'n BatchNorm),
    /// It is done.
    Behind(Var),
}

/// [`batch_norm`] of x for [`norm_pair`]: right away where the device does one after the other, since x may still be
/// in its caches. x is given away: nothing but the tape keeps it longer than it is needed.
///
/// # Errors
/// As [`batch_norm`].
pub fn norm_shortcut<'n>(tape: &mut Tape, x: Var, norm: &'n BatchNorm) -> Result<Shortcut<'n>> {
    Ok(Shortcut(match x.tensor().device().kernels().norm_pair() {
        Some(_) => Held::Before(x, norm),
        None => Held::Behind(batch_norm(tape, &x, norm, None, false)?),
    }))
}

/// ReLU([`batch_norm`] of the branch x + `shortcut`), both (..., C) of one shape and on one device. x is given away,
/// as the shortcut was.
///
/// In 16 bits, where it is done at once, what the shortcut adds is not rounded.
///
/// # Errors
/// As [`batch_norm`], and where shapes differ.
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
    // In the order of what is one after the other, which is that of their averages.
    let second = prepare(tape, &other, other_norm, None)?;
    let first = prepare(tape, &x, norm, None)?;
    let mut y = Tensor::empty_of(&device, x.tensor().shape(), x.tensor().dtype());
    // Made in vain where nothing is recorded: it is small.
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
        // Both dx are made at once.
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
