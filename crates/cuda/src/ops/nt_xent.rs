//! NT-Xent (Chen et al., arXiv:2002.05709, equation 1), tiled: the 2N x 2N matrix of similarities is never stored.
//! Products are computed on tensor cores, to the precision of f32.

use simclr_kernels::contrastive::ContrastiveShape;

use super::similarities::{Halves, Partials, Pass, checked};
use crate::launcher::{BLOCK, Launch, Launcher, Scratch, arguments, exact_grid, expect_len, fits};
use crate::{Module, Program, Result, Slice, SliceMut};

const PROGRAM: Program = Program::of(Module::NtXent);
/// Values of `Seen` in `nt_xent.cu`.
const SEEN: usize = 3;

/// Computes [loss, positive, entropy, hardest] of each anchor: the fields of `simclr_kernels::nt_xent::Anchor`. `all`
/// is (views, dim), and contains this worker's anchors from row `shape.offset` on.
pub fn forward(
    gpu: &dyn Launcher,
    shape: &ContrastiveShape,
    all: Slice<f32>,
    anchors: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "nt_xent_forward";
    let (views, splits) = checked(NAME, shape, all.len())?;
    expect_len(NAME, "anchors", anchors.len(), 4 * shape.anchors)?;
    let seen = Scratch::<f32>::new(gpu, splits.count * shape.anchors * SEEN)?;
    let halves = Halves::of(gpu, shape, views, all, Pass::Forward)?;
    let arguments = arguments![halves.addresses(), views, splits.columns, seen.address(), anchors.address()];
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

/// Computes sums over this worker's anchors, [loss, anchors to which no negative is as similar as the positive,
/// entropy], and each anchor's lse.
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

/// The mean loss over `views` anchors, one value, from the sums of [`figures`].
pub fn mean(gpu: &dyn Launcher, sums: Slice<f64>, views: usize, loss: SliceMut<f32>) -> Result<()> {
    const NAME: &str = "nt_xent_mean";
    expect_len(NAME, "sums", sums.len(), 3)?;
    expect_len(NAME, "loss", loss.len(), 1)?;
    let arguments = arguments![sums.address(), views as f64, loss.address()];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: [1; 3], block: 32, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// dz (anchors, dim), the gradient of `factor` dy times the sum of l over ALL workers' anchors; dy is one value on the
/// device. `anchors` are those of [`forward`]; `lse` has one value per view of all workers.
pub fn backward(
    gpu: &dyn Launcher,
    shape: &ContrastiveShape,
    all: Slice<f32>,
    (anchors, lse): (Slice<f32>, Slice<f32>),
    factor: f32,
    dy: Slice<f32>,
    dz: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "nt_xent_backward";
    let (views, splits) = checked(NAME, shape, all.len())?;
    expect_len(NAME, "anchors", anchors.len(), 4 * shape.anchors)?;
    expect_len(NAME, "lse", lse.len(), shape.views)?;
    expect_len(NAME, "dy", dy.len(), 1)?;
    expect_len(NAME, "dz", dz.len(), shape.anchors * shape.dim)?;
    let partials = Partials::of(gpu, NAME, shape, &splits)?;
    let found = (anchors.address(), lse.address());
    let halves = Halves::of(gpu, shape, views, all, Pass::Backward)?;
    let arguments =
        arguments![halves.addresses(), found.0, found.1, views, splits.columns, partials.address()];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: partials.grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above; `partials` has room for every split of every anchor.
    unsafe { gpu.launch(&launch)? };
    partials.join(gpu, factor / shape.temperature, dy, dz)
}
