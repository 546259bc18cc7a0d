//! NT-Xent (Chen et al., arXiv:2002.05709, equation 1), tiled: the 2N x 2N matrix of similarities never exists.

use simclr_kernels::contrastive::ContrastiveShape;

use crate::launcher::{
    BLOCK, Launch, Launcher, Scratch, arguments, exact_grid, expect, expect_len, fits, grid,
};
use crate::{Module, Program, Result, Slice, SliceMut};

const PROGRAM: Program = Program::of(Module::NtXent);
const TILE: usize = 64;
/// Dimensions of dz that a block computes.
const PART: usize = 128;
/// Values of `Seen` in `nt_xent.cu`.
const SEEN: usize = 4;

/// `Views` of `nt_xent.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Views {
    anchors: u32,
    views: u32,
    offset: u32,
    dim: u32,
    inverse_temperature: f32,
}

/// How the other views are cut, so that enough blocks are at work.
struct Splits {
    rows: u32,
    count: usize,
    columns: u32,
}

impl Splits {
    fn of(kernel: &'static str, shape: &ContrastiveShape) -> Result<Splits> {
        let (rows, tiles) = (shape.anchors.div_ceil(TILE), shape.views.div_ceil(TILE));
        let wanted = (512 / rows).clamp(1, tiles);
        let columns = tiles.div_ceil(wanted) * TILE;
        Ok(Splits {
            rows: fits(kernel, rows)?,
            count: shape.views.div_ceil(columns),
            columns: fits(kernel, columns)?,
        })
    }
}

fn checked(kernel: &'static str, shape: &ContrastiveShape, z: usize, all: usize) -> Result<(Views, Splits)> {
    let sound = shape.anchors >= 2
        && shape.anchors.is_multiple_of(2)
        && shape.dim > 0
        && shape.offset + shape.anchors <= shape.views
        && shape.temperature > 0.0;
    expect(kernel, sound, || format!("two views of every image are needed: {shape:?}"))?;
    expect_len(kernel, "z", z, shape.anchors * shape.dim)?;
    expect_len(kernel, "all", all, shape.views * shape.dim)?;
    let views = Views {
        anchors: fits(kernel, shape.anchors)?,
        views: fits(kernel, shape.views)?,
        offset: shape.offset as u32,
        dim: fits(kernel, shape.dim)?,
        inverse_temperature: 1.0 / shape.temperature,
    };
    Ok((views, Splits::of(kernel, shape)?))
}

/// Per anchor [lse, positive, entropy, hardest], as `simclr_kernels::nt_xent::Anchor` has them. z is (anchors, dim), `all` (views, dim), and
/// z is `all` from `shape.offset` on.
pub fn forward(
    gpu: &dyn Launcher,
    shape: &ContrastiveShape,
    z: Slice<f32>,
    all: Slice<f32>,
    anchors: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "nt_xent_forward";
    let (views, splits) = checked(NAME, shape, z.len(), all.len())?;
    expect_len(NAME, "anchors", anchors.len(), 4 * shape.anchors)?;
    let seen = Scratch::of::<f32>(gpu, splits.count * shape.anchors * SEEN)?;
    let arguments =
        arguments![z.address(), all.address(), views, splits.columns, seen.address(), anchors.address()];
    let blocks = [splits.rows, fits(NAME, splits.count)?, 1];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: blocks, block: BLOCK, arguments };
    // SAFETY: lengths are checked above; `seen` has room for every split of every anchor.
    unsafe { gpu.launch(&launch)? };
    let count = fits(NAME, splits.count)?;
    let arguments = arguments![seen.address(), count, views.anchors, anchors.address()];
    let grid = exact_grid(NAME, shape.anchors)?;
    let launch = Launch { program: PROGRAM, kernel: "nt_xent_anchors", grid, block: BLOCK, arguments };
    // SAFETY: as above.
    unsafe { gpu.launch(&launch) }
}

/// Sums over this worker's anchors: [loss, anchors to which no negative is as similar as the positive, entropy]; and lse by itself.
pub fn figures(
    gpu: &dyn Launcher,
    anchors: Slice<f32>,
    sums: SliceMut<f64>,
    lse: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "nt_xent_figures";
    expect_len(NAME, "anchors", anchors.len(), 4 * lse.len())?;
    expect_len(NAME, "sums", sums.len(), 3)?;
    let count = fits(NAME, lse.len())?;
    let arguments = arguments![anchors.address(), count, sums.address(), lse.address()];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: [1; 3], block: 1024, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// The mean loss, one value, over `views` anchors, from the sums of [`figures`].
pub fn mean(gpu: &dyn Launcher, sums: Slice<f64>, views: usize, loss: SliceMut<f32>) -> Result<()> {
    const NAME: &str = "nt_xent_mean";
    expect_len(NAME, "sums", sums.len(), 3)?;
    expect_len(NAME, "loss", loss.len(), 1)?;
    let arguments = arguments![sums.address(), views as f64, loss.address()];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: [1; 3], block: 32, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// dz (anchors, dim) of `factor` dy times the sum of l over ALL workers' anchors; dy is one value on the device. `lse` holds one value a view
/// of all workers.
pub fn backward(
    gpu: &dyn Launcher,
    shape: &ContrastiveShape,
    z: Slice<f32>,
    all: Slice<f32>,
    lse: Slice<f32>,
    factor: f32,
    dy: Slice<f32>,
    dz: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "nt_xent_backward";
    let (views, splits) = checked(NAME, shape, z.len(), all.len())?;
    expect_len(NAME, "lse", lse.len(), shape.views)?;
    expect_len(NAME, "dy", dy.len(), 1)?;
    expect_len(NAME, "dz", dz.len(), z.len())?;
    let partials = Scratch::of::<f32>(gpu, splits.count * z.len())?;
    let arguments =
        arguments![z.address(), all.address(), lse.address(), views, splits.columns, partials.address()];
    let count = fits(NAME, splits.count)?;
    let blocks = [splits.rows, count, fits(NAME, shape.dim.div_ceil(PART))?];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: blocks, block: BLOCK, arguments };
    // SAFETY: lengths are checked above; `partials` has room for every split of every anchor.
    unsafe { gpu.launch(&launch)? };
    let factor = factor / shape.temperature;
    let arguments = arguments![partials.address(), count, z.len() as i64, factor, dy.address(), dz.address()];
    let grid = grid(z.len());
    let launch = Launch { program: PROGRAM, kernel: "nt_xent_gradient", grid, block: BLOCK, arguments };
    // SAFETY: as above.
    unsafe { gpu.launch(&launch) }
}
