//! L2 normalisation of rows: y = x / max(|x|, 1e-12).

use crate::launcher::{BLOCK, Launch, Launcher, arguments, exact_grid, expect, expect_len, fits};
use crate::{Module, Program, Result, Slice, SliceMut};

const PROGRAM: Program = Program::of(Module::L2Normalize);
/// Threads that share a row.
const WARP: usize = 32;

fn rows_of(kernel: &'static str, len: usize, width: usize) -> Result<usize> {
    expect(kernel, width > 0 && len.is_multiple_of(width), || {
        format!("{len} values are not whole rows of {width}")
    })?;
    Ok(len / width)
}

/// Divides rows of `width` values by their norm.
pub fn l2_normalize_forward(gpu: &dyn Launcher, x: Slice<f32>, width: usize, y: SliceMut<f32>) -> Result<()> {
    const NAME: &str = "l2_normalize_forward";
    let rows = rows_of(NAME, x.len(), width)?;
    expect_len(NAME, "y", y.len(), x.len())?;
    let (count, width) = (fits(NAME, rows)?, fits(NAME, width)?);
    let arguments = arguments![x.address(), y.address(), count, width];
    let grid = exact_grid(NAME, rows * WARP)?;
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&Launch { program: PROGRAM, kernel: NAME, grid, block: BLOCK, arguments }) }
}

/// dx = (dy - y (y . dy)) / |x|, where x is the input.
pub fn l2_normalize_backward(
    gpu: &dyn Launcher,
    x: Slice<f32>,
    dy: Slice<f32>,
    width: usize,
    dx: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "l2_normalize_backward";
    let rows = rows_of(NAME, x.len(), width)?;
    expect_len(NAME, "dy", dy.len(), x.len())?;
    expect_len(NAME, "dx", dx.len(), x.len())?;
    let (count, width) = (fits(NAME, rows)?, fits(NAME, width)?);
    let arguments = arguments![x.address(), dy.address(), dx.address(), count, width];
    let grid = exact_grid(NAME, rows * WARP)?;
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&Launch { program: PROGRAM, kernel: NAME, grid, block: BLOCK, arguments }) }
}
