//! BatchNorm on rows of channels, fused with the residual addition and the ReLU that follow it.
//!
//! Statistics stay on the device: sums (f64, [sum; C, sum of squares; C]) become coefficients (f32, [scale; C,
//! shift; C, mean; C, inv_std; C]). Between the two, workers exchange the sums.

use super::reductions::piece_grid;
use super::sums::Plan;
use crate::launcher::{
    BLOCK, Launch, Launcher, Scratch, arguments, exact_grid, expect, expect_len, fits, grid,
};
use crate::{Element, ElementType, Module, Program, Result, Slice, SliceMut};

const COEFFICIENTS: Program = Program::of(Module::BatchNormCoefficients);

/// Where the ReLU after a BatchNorm let values through: see `simclr_kernels::batch_norm::Gate`.
#[derive(Debug, Clone, Copy)]
pub enum Gate<'a, E> {
    /// Everywhere: there is no ReLU.
    Open,
    /// Where its output is positive.
    Output(Slice<'a, E>),
    /// Where x scale + shift is positive, computed from the coefficients.
    Affine,
    /// Where its output is positive, according to the mask that [`forward`] wrote, of [`mask_len`] bytes.
    Mask(Slice<'a, u8>),
}

impl<E: Element> Gate<'_, E> {
    /// The kind's number, and the address of the output or mask that determines the gate, for `len` values in rows of
    /// `channels`.
    fn parts(&self, kernel: &'static str, len: usize, channels: usize) -> Result<(u32, u64)> {
        match self {
            Gate::Open => Ok((0, 0)),
            Gate::Output(y) => {
                expect_len(kernel, "the output", y.len(), len)?;
                Ok((1, y.address()))
            }
            Gate::Affine => Ok((2, 0)),
            Gate::Mask(mask) => {
                expect_len(kernel, "the mask", mask.len(), mask_len::<E>(len, channels))?;
                Ok((3, mask.address()))
            }
        }
    }
}

/// The length in bytes of the mask for `values` values in rows of `channels`: one byte per pack that kernels read
/// together, one bit per value.
pub fn mask_len<E: Element>(values: usize, channels: usize) -> usize {
    values / E::TYPE.pack_width(channels)
}

/// The number of channels that the coefficients are for; `x` must consist of rows of that many.
pub(super) fn channels_of<E>(kernel: &'static str, x: Slice<E>, coefficients: Slice<f32>) -> Result<usize> {
    let channels = coefficients.len() / 4;
    let fits = channels > 0 && coefficients.len() == 4 * channels && x.len().is_multiple_of(channels);
    expect(kernel, fits, || format!("{} coefficients for {} values", coefficients.len(), x.len()))?;
    Ok(channels)
}

/// A grid for passes over rows of channels. The packs of all its threads together make whole rows, so that each thread
/// meets the same channels every time.
pub(super) fn row_grid(
    kernel: &'static str,
    values: usize,
    channels: usize,
    element: ElementType,
) -> Result<[u32; 3]> {
    let width = element.pack_width(channels);
    let [blocks, ..] = grid(values.div_ceil(width));
    let block = width * BLOCK as usize;
    let mut divisor = (block, channels);
    while divisor.1 > 0 {
        divisor = (divisor.1, divisor.0 % divisor.1);
    }
    let blocks = (blocks as usize).next_multiple_of(channels / divisor.0);
    // Kernels count the values that one grid covers in 32 bits.
    fits(kernel, blocks * block)?;
    Ok([blocks as u32, 1, 1])
}

/// The running averages of a BatchNorm: old and new values, (C) each. The new ones take effect once the step is known
/// to be sound.
#[derive(Debug)]
pub struct Averages<'a> {
    /// The factor of the old value in the new one, such as 0.9.
    pub keep: f64,
    /// Running mean and variance.
    pub running: [Slice<'a, f32>; 2],
    /// The new running mean and variance.
    pub moved: [SliceMut<'a, f32>; 2],
}

/// Computes the batch's coefficients from the `sums` of all workers over `count` values per channel.
pub fn coefficients(
    gpu: &dyn Launcher,
    sums: Slice<f64>,
    count: f64,
    gamma: Slice<f32>,
    beta: Option<Slice<f32>>,
    epsilon: f64,
    averages: Option<Averages>,
    coefficients: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "batch_norm_coefficients";
    let channels = gamma.len();
    expect_len(NAME, "sums", sums.len(), 2 * channels)?;
    expect_len(NAME, "coefficients", coefficients.len(), 4 * channels)?;
    expect_len(NAME, "beta", beta.map_or(channels, |beta| beta.len()), channels)?;
    expect(NAME, count >= 1.0, || format!("{count} values per channel, at least 1 is needed"))?;
    let (mut keep, mut running, mut moved) = (0.0, [0; 2], [0; 2]);
    if let Some(averages) = &averages {
        for i in 0..2 {
            expect_len(NAME, "a running average", averages.running[i].len(), channels)?;
            expect_len(NAME, "a new running average", averages.moved[i].len(), channels)?;
        }
        keep = averages.keep;
        running = averages.running.map(|slice| slice.address());
        moved = [averages.moved[0].address(), averages.moved[1].address()];
    }
    let beta = beta.map_or(0, |beta| beta.address());
    let width = fits(NAME, channels)?;
    let arguments = arguments![
        sums.address(),
        count,
        gamma.address(),
        beta,
        epsilon,
        keep,
        running[0],
        running[1],
        coefficients.address(),
        moved[0],
        moved[1],
        width
    ];
    let grid = exact_grid(NAME, channels)?;
    let launch = Launch { program: COEFFICIENTS, kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above; where they are null, the kernel skips the averages and takes beta as 0.
    unsafe { gpu.launch(&launch) }
}

/// Computes the coefficients from running averages, which are constants here.
pub fn frozen_coefficients(
    gpu: &dyn Launcher,
    running: [Slice<f32>; 2],
    gamma: Slice<f32>,
    beta: Option<Slice<f32>>,
    epsilon: f32,
    coefficients: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "batch_norm_frozen_coefficients";
    let channels = gamma.len();
    for average in running {
        expect_len(NAME, "a running average", average.len(), channels)?;
    }
    expect_len(NAME, "coefficients", coefficients.len(), 4 * channels)?;
    expect_len(NAME, "beta", beta.map_or(channels, |beta| beta.len()), channels)?;
    let beta = beta.map_or(0, |beta| beta.address());
    let width = fits(NAME, channels)?;
    let [mean, variance] = running.map(|slice| slice.address());
    let arguments = arguments![mean, variance, gamma.address(), beta, epsilon, coefficients.address(), width];
    let grid = exact_grid(NAME, channels)?;
    let launch = Launch { program: COEFFICIENTS, kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// y = act(x scale + shift + residual), where act is ReLU or the identity. NaN propagates. `mask`, if given, gets the
/// bits of y > 0, [`mask_len`] bytes, for [`Gate::Mask`].
pub fn forward<E: Element>(
    gpu: &dyn Launcher,
    x: Slice<E>,
    coefficients: Slice<f32>,
    residual: Option<Slice<E>>,
    relu: bool,
    y: SliceMut<E>,
    mask: Option<SliceMut<u8>>,
) -> Result<()> {
    const NAME: &str = "batch_norm_forward";
    let channels = channels_of(NAME, x, coefficients)?;
    expect_len(NAME, "the residual", residual.map_or(x.len(), |r| r.len()), x.len())?;
    expect_len(NAME, "y", y.len(), x.len())?;
    if let Some(mask) = &mask {
        expect_len(NAME, "the mask", mask.len(), mask_len::<E>(x.len(), channels))?;
    }
    let residual = residual.map_or(0, |residual| residual.address());
    let mask = mask.map_or(0, |mask| mask.address());
    let width = fits(NAME, channels)?;
    let values = x.len() as i64;
    let relu = u32::from(relu);
    let arguments =
        arguments![x.address(), coefficients.address(), residual, relu, y.address(), mask, values, width];
    let launch = Launch {
        program: Program::typed(Module::BatchNorm, E::TYPE),
        kernel: NAME,
        grid: row_grid(NAME, x.len(), channels, E::TYPE)?,
        block: BLOCK,
        arguments,
    };
    // SAFETY: lengths are checked above; the kernel does not touch the residual or the mask where they are null.
    unsafe { gpu.launch(&launch) }
}

/// The outputs of [`backward_sums`].
#[derive(Debug)]
pub struct BackwardSums<'a> {
    /// [sum of g; C, sum of g (x - mean); C].
    pub sums: SliceMut<'a, f64>,
    /// This worker's share of the gradients of gamma and of beta, (C) each.
    pub gradients: Option<[SliceMut<'a, f32>; 2]>,
    /// The count, and the result of [`backward_coefficients`] for these sums and that count, where no other worker's
    /// sums are added.
    pub coefficients: Option<(Option<f64>, SliceMut<'a, f32>)>,
}

/// The sums alone.
impl<'a> From<SliceMut<'a, f64>> for BackwardSums<'a> {
    fn from(sums: SliceMut<'a, f64>) -> BackwardSums<'a> {
        BackwardSums { sums, gradients: None, coefficients: None }
    }
}

/// Computes the sums that backward needs, where g is dy masked by the gate, and what follows from them. With `keep`, g
/// replaces dy: it is the gradient of the residual, and the next pass needs no gate then.
pub fn backward_sums<'a, E: Element>(
    gpu: &dyn Launcher,
    dy: SliceMut<E>,
    gate: Gate<E>,
    x: Slice<E>,
    coefficients: Slice<f32>,
    keep: bool,
    to: impl Into<BackwardSums<'a>>,
) -> Result<()> {
    const NAME: &str = "batch_norm_backward_sums";
    let channels = channels_of(NAME, x, coefficients)?;
    expect_len(NAME, "dy", dy.len(), x.len())?;
    let (kind, gate) = gate.parts(NAME, x.len(), channels)?;
    // Without a gate dy is g already.
    let keep = u32::from(keep && kind != 0);
    let rows = x.len() / channels;
    let plan = Plan::new(NAME, rows, channels, E::TYPE)?;
    let partials = Scratch::<f64>::new(gpu, plan.pieces as usize * 2 * channels)?;
    let width = fits(NAME, channels)?;
    let arguments = arguments![
        dy.address(),
        kind,
        gate,
        x.address(),
        coefficients.address(),
        keep,
        rows as i64,
        width,
        plan.lanes,
        plan.rows_per_piece,
        partials.address()
    ];
    let launch = Launch {
        program: Program::typed(Module::BatchNorm, E::TYPE),
        kernel: NAME,
        grid: [plan.columns, plan.pieces, 1],
        block: BLOCK,
        arguments,
    };
    // SAFETY: lengths are checked above, and the plan's pieces cover the rows; the output or the mask is read only if
    // it is the gate.
    unsafe { gpu.launch(&launch)? };
    backward_totals(gpu, partials.as_ref(), plan.pieces as usize, 1, coefficients, to.into())
}

/// Adds up the pieces of sums, (pieces, 1 + norms, C), and computes what follows from them. The first C values of a
/// piece are sums of g; the next are sums of g (x - mean) for each BatchNorm in turn. `norm` is this one's number,
/// from 1.
pub fn backward_totals(
    gpu: &dyn Launcher,
    partials: Slice<f64>,
    pieces: usize,
    norm: usize,
    coefficients: Slice<f32>,
    to: BackwardSums,
) -> Result<()> {
    const NAME: &str = "batch_norm_backward_totals";
    let BackwardSums { sums, gradients, coefficients: abc } = to;
    let channels = coefficients.len() / 4;
    expect_len(NAME, "coefficients", coefficients.len(), 4 * channels)?;
    expect_len(NAME, "sums", sums.len(), 2 * channels)?;
    let (width, products) = (partials.len() / pieces.max(1), norm * channels);
    expect_len(NAME, "partials", partials.len(), pieces * width)?;
    expect(NAME, (channels..width).contains(&products) && products + channels <= width, || {
        format!("pieces of {width} values have no products of {channels} channels at {products}")
    })?;
    for gradient in gradients.iter().flatten() {
        expect_len(NAME, "a gradient", gradient.len(), channels)?;
    }
    if let Some((_, abc)) = &abc {
        expect_len(NAME, "abc", abc.len(), 3 * channels)?;
    }
    let [dgamma, dbeta] = gradients.map_or([0; 2], |gradients| gradients.map(|slice| slice.address()));
    let (count, abc) = abc.map_or((None, 0), |(count, abc)| (count, abc.address()));
    let count = count.unwrap_or(0.0);
    let (terms, channels) = (fits(NAME, pieces)?, fits(NAME, channels)?);
    let (width, products) = (fits(NAME, width)?, fits(NAME, products)?);
    let arguments = arguments![
        partials.address(),
        terms,
        width,
        products,
        coefficients.address(),
        count,
        sums.address(),
        dgamma,
        dbeta,
        abc,
        channels
    ];
    let (grid, block) = piece_grid(pieces, fits(NAME, sums.len())?);
    let launch = Launch { program: COEFFICIENTS, kernel: NAME, grid, block, arguments };
    // SAFETY: lengths are checked above; the kernel skips outputs that are null.
    unsafe { gpu.launch(&launch) }
}

/// Computes [a; C, b; C, c; C] of dx = g a + x b + c from the sums of all workers over `count` values per channel.
/// `count` is None where the statistics were constants.
pub fn backward_coefficients(
    gpu: &dyn Launcher,
    sums: Slice<f64>,
    count: Option<f64>,
    coefficients: Slice<f32>,
    abc: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "batch_norm_backward_coefficients";
    let channels = sums.len() / 2;
    expect_len(NAME, "coefficients", coefficients.len(), 4 * channels)?;
    expect_len(NAME, "abc", abc.len(), 3 * channels)?;
    let count = count.unwrap_or(0.0);
    let width = fits(NAME, channels)?;
    let arguments = arguments![sums.address(), count, coefficients.address(), abc.address(), width];
    let grid = exact_grid(NAME, channels)?;
    let launch = Launch { program: COEFFICIENTS, kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// dx = g a + x b + c, which overwrites x: it is not read again.
pub fn backward_input<E: Element>(
    gpu: &dyn Launcher,
    dy: Slice<E>,
    gate: Gate<E>,
    x: SliceMut<E>,
    coefficients: Slice<f32>,
    abc: Slice<f32>,
) -> Result<()> {
    const NAME: &str = "batch_norm_backward_input";
    let channels = channels_of(NAME, x.as_slice(), coefficients)?;
    expect_len(NAME, "dy", dy.len(), x.len())?;
    expect_len(NAME, "abc", abc.len(), 3 * channels)?;
    let (kind, gate) = gate.parts(NAME, x.len(), channels)?;
    let width = fits(NAME, channels)?;
    let values = x.len() as i64;
    let arguments = arguments![
        dy.address(),
        kind,
        gate,
        x.address(),
        coefficients.address(),
        abc.address(),
        values,
        width
    ];
    let launch = Launch {
        program: Program::typed(Module::BatchNorm, E::TYPE),
        kernel: NAME,
        grid: row_grid(NAME, x.len(), channels, E::TYPE)?,
        block: BLOCK,
        arguments,
    };
    // SAFETY: lengths are checked above; the output or the mask is read only if it is the gate; each thread reads its
    // values of x before it writes them.
    unsafe { gpu.launch(&launch) }
}
