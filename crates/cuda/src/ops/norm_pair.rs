//! The BatchNorms of a residual block's branch and of its shortcut, fused with their sum and the ReLU: the normalised
//! shortcut is never stored, and each pass reads the gradient once for both.

use super::batch_norm::{BackwardSums, backward_totals, channels_of, mask_len, row_grid};
use super::sums::Plan;
use crate::launcher::{BLOCK, Launch, Launcher, Scratch, arguments, expect, expect_len, fits};
use crate::{Element, Module, Program, Result, Slice, SliceMut};

/// The number of channels, which both must have.
fn channels_of_both<E>(
    kernel: &'static str,
    x: [Slice<E>; 2],
    coefficients: [Slice<f32>; 2],
) -> Result<usize> {
    let channels = channels_of(kernel, x[0], coefficients[0])?;
    expect_len(kernel, "the shortcut", x[1].len(), x[0].len())?;
    expect_len(kernel, "the shortcut's coefficients", coefficients[1].len(), coefficients[0].len())?;
    Ok(channels)
}

fn program<E: Element>() -> Program {
    Program::typed(Module::NormPair, E::TYPE)
}

/// y = relu(the sum of x scale + shift of both), and its mask, [`mask_len`] bytes. NaN propagates.
pub fn forward<E: Element>(
    gpu: &dyn Launcher,
    x: [Slice<E>; 2],
    coefficients: [Slice<f32>; 2],
    y: SliceMut<E>,
    mask: SliceMut<u8>,
) -> Result<()> {
    const NAME: &str = "norm_pair_forward";
    let channels = channels_of_both(NAME, x, coefficients)?;
    let len = x[0].len();
    expect_len(NAME, "y", y.len(), len)?;
    expect_len(NAME, "the mask", mask.len(), mask_len::<E>(len, channels))?;
    let (values, width) = (len as i64, fits(NAME, channels)?);
    let [[branch, shortcut], [of_branch, of_shortcut]] =
        [x.map(|x| x.address()), coefficients.map(|values| values.address())];
    let arguments =
        arguments![branch, shortcut, of_branch, of_shortcut, y.address(), mask.address(), values, width];
    let grid = row_grid(NAME, len, channels, E::TYPE)?;
    let launch = Launch { program: program::<E>(), kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// Computes the sums that backward needs, where g is dy where the mask says that y is positive, and what follows from
/// them.
pub fn backward_sums<E: Element>(
    gpu: &dyn Launcher,
    dy: Slice<E>,
    mask: Slice<u8>,
    x: [Slice<E>; 2],
    coefficients: [Slice<f32>; 2],
    to: [BackwardSums; 2],
) -> Result<()> {
    const NAME: &str = "norm_pair_backward_sums";
    let channels = channels_of_both(NAME, x, coefficients)?;
    let len = x[0].len();
    expect_len(NAME, "dy", dy.len(), len)?;
    expect_len(NAME, "the mask", mask.len(), mask_len::<E>(len, channels))?;
    let rows = len / channels;
    let plan = Plan::new(NAME, rows, channels, E::TYPE)?;
    let pieces = plan.pieces as usize;
    let partials = Scratch::<f64>::new(gpu, pieces * 3 * channels)?;
    let width = fits(NAME, channels)?;
    let [[branch, shortcut], [of_branch, of_shortcut]] =
        [x.map(|x| x.address()), coefficients.map(|values| values.address())];
    let arguments = arguments![
        dy.address(),
        mask.address(),
        branch,
        shortcut,
        of_branch,
        of_shortcut,
        rows as i64,
        width,
        plan.lanes,
        plan.rows_per_piece,
        partials.address()
    ];
    let grid = [plan.columns, plan.pieces, 1];
    let launch = Launch { program: program::<E>(), kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above, and the plan's pieces cover the rows; there are partials for each piece.
    unsafe { gpu.launch(&launch)? };
    for ((norm, coefficients), to) in (1..).zip(coefficients).zip(to) {
        backward_totals(gpu, partials.as_ref(), pieces, norm, coefficients, to)?;
    }
    Ok(())
}

/// dx = g a + x b + c of both; each overwrites its x, which is not read again.
pub fn backward_input<E: Element>(
    gpu: &dyn Launcher,
    dy: Slice<E>,
    mask: Slice<u8>,
    x: [SliceMut<E>; 2],
    abc: [Slice<f32>; 2],
) -> Result<()> {
    const NAME: &str = "norm_pair_backward_input";
    let (len, channels) = (dy.len(), abc[0].len() / 3);
    expect(NAME, channels > 0 && len.is_multiple_of(channels), || {
        format!("{len} values are not whole rows of {channels}")
    })?;
    for (x, abc) in x.iter().zip(abc) {
        expect_len(NAME, "x", x.len(), len)?;
        expect_len(NAME, "abc", abc.len(), 3 * channels)?;
    }
    expect_len(NAME, "the mask", mask.len(), mask_len::<E>(len, channels))?;
    let (values, width) = (len as i64, fits(NAME, channels)?);
    let [[branch, shortcut], [of_branch, of_shortcut]] =
        [x.map(|x| x.address()), abc.map(|values| values.address())];
    let arguments =
        arguments![dy.address(), mask.address(), branch, shortcut, of_branch, of_shortcut, values, width];
    let grid = row_grid(NAME, len, channels, E::TYPE)?;
    let launch = Launch { program: program::<E>(), kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above; each thread reads its values of x before it writes them.
    unsafe { gpu.launch(&launch) }
}
