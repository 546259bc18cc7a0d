//! The last stage of sums, and the verdict on a step that follows from its sums.

use simclr_kernels::verdict::VALUES;

use crate::launcher::{BLOCK, Launch, Launcher, arguments, expect, expect_len, fits, grid};
use crate::{Module, Program, Result, Slice, SliceMut};

const PROGRAM: Program = Program::of(Module::Reductions);

/// `out[i]` = the sum over pieces of `partials[piece][i]`, in a fixed order.
pub fn sum_pieces(gpu: &dyn Launcher, partials: Slice<f64>, pieces: usize, out: SliceMut<f64>) -> Result<()> {
    const NAME: &str = "sum_pieces";
    expect_len(NAME, "partials", partials.len(), pieces * out.len())?;
    let (count, width) = (fits(NAME, pieces)?, fits(NAME, out.len())?);
    let arguments = arguments![partials.address(), count, width, out.address()];
    let (grid, block) = piece_grid(pieces, width);
    let launch = Launch { program: PROGRAM, kernel: NAME, grid, block, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// The grid, and the threads of a block, for adding up `pieces` pieces of `width` columns: see `pieces.cuh`.
pub(super) fn piece_grid(pieces: usize, width: u32) -> ([u32; 3], u32) {
    let rows = pieces.next_power_of_two().clamp(4, 128) as u32;
    ([width.div_ceil(8).max(1), 1, 1], 8 * rows)
}

/// The first values of f64 sums, as many as `out` has, in f32.
pub fn narrow_sums(gpu: &dyn Launcher, sums: Slice<f64>, out: SliceMut<f32>) -> Result<()> {
    const NAME: &str = "narrow_sums";
    expect(NAME, out.len() <= sums.len(), || format!("{} sums for {} values", sums.len(), out.len()))?;
    let count = fits(NAME, out.len())?;
    let arguments = arguments![sums.address(), out.address(), count];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: grid(out.len()), block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// Converts f32 sums to f64: the first half of `out` is read from the beginning of `sums`, the second from index
/// `apart` on.
pub fn widen_sums(gpu: &dyn Launcher, sums: Slice<f32>, apart: usize, out: SliceMut<f64>) -> Result<()> {
    const NAME: &str = "widen_sums";
    let half = out.len() / 2;
    expect(NAME, out.len() == 2 * half && apart >= half && sums.len() >= apart + half, || {
        format!("{} sums, {apart} apart, for {} values", sums.len(), out.len())
    })?;
    let (half, apart) = (fits(NAME, half)?, fits(NAME, apart)?);
    let arguments = arguments![sums.address(), half, apart, out.address()];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: grid(out.len()), block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// The sum of values times `factor`.
pub fn sum_values(gpu: &dyn Launcher, values: Slice<f32>, factor: f64, out: SliceMut<f64>) -> Result<()> {
    const NAME: &str = "sum_values";
    expect_len(NAME, "out", out.len(), 1)?;
    let count = fits(NAME, values.len())?;
    let arguments = arguments![values.address(), count, factor, out.address()];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: [1; 3], block: 1024, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// [`simclr_kernels::verdict::judge`] on the device. `squares` has one value; `scale` is the loss scale and its
/// inverse, one value each.
pub fn judge(
    gpu: &dyn Launcher,
    sums: Slice<f64>,
    squares: Slice<f64>,
    views: usize,
    scale: Option<[Slice<f32>; 2]>,
    verdict: SliceMut<f64>,
) -> Result<()> {
    const NAME: &str = "judge";
    for (what, len, expected) in
        [("sums", sums.len(), 3), ("squares", squares.len(), 1), ("verdict", verdict.len(), VALUES)]
    {
        expect_len(NAME, what, len, expected)?;
    }
    for factor in scale.iter().flatten() {
        expect_len(NAME, "scale", factor.len(), 1)?;
    }
    let [scale, unscale] = scale.map_or([0; 2], |factors| factors.map(|factor| factor.address()));
    let arguments =
        arguments![sums.address(), squares.address(), views as f64, scale, unscale, verdict.address()];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: [1; 3], block: 32, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// Dynamic loss scaling: `state` is the scale, 1 / scale and the steps since it changed, one value each. The scale
/// halves after a non-finite step, down to 1, and doubles after `interval` sound steps, up to 2^24.
pub fn update_loss_scale(
    gpu: &dyn Launcher,
    finite: Slice<f64>,
    state: [SliceMut<f32>; 3],
    interval: u32,
) -> Result<()> {
    const NAME: &str = "update_loss_scale";
    expect_len(NAME, "finite", finite.len(), 1)?;
    for value in &state {
        expect_len(NAME, "state", value.len(), 1)?;
    }
    let [scale, unscale, steps] = state.map(|value| value.address());
    let arguments = arguments![finite.address(), scale, unscale, steps, interval];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: [1; 3], block: 32, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}
