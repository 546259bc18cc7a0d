//! NT-Logistic and the margin triplet loss (Chen et al., arXiv:2002.05709, table 2), tiled: the 2N x 2N matrix of
//! similarities is never stored.

use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::pair_loss::{MOST_VIEWS, PairLoss, Term};

use super::similarities::{self, Halves, Partials, Pass, Splits, Views};
use crate::launcher::{BLOCK, Launch, Launcher, Scratch, arguments, exact_grid, expect, expect_len, fits};
use crate::{Module, Program, Result, Slice, SliceMut};

const PROGRAM: Program = Program::of(Module::PairLoss);
/// Values of `Seen` in `pair_loss.cu`.
const SEEN: usize = 6;
/// Values of a `Pair`.
const PAIR: usize = 4;

/// `PairLoss` of `pair_loss.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Kind {
    triplet: u32,
    semi_hard: u32,
    margin: f32,
}

impl Kind {
    fn of(loss: PairLoss, shape: &ContrastiveShape) -> Kind {
        let (triplet, margin) = match loss.term {
            Term::Logistic => (0, 0.0),
            Term::Margin(margin) => (1, margin / shape.temperature),
        };
        Kind { triplet, semi_hard: u32::from(loss.semi_hard), margin }
    }
}

fn checked(kernel: &'static str, shape: &ContrastiveShape, all: usize) -> Result<(Views, Splits)> {
    let sound = shape.views > 2 && shape.views <= MOST_VIEWS;
    expect(kernel, sound, || format!("negatives are needed, of at most {MOST_VIEWS} views: {shape:?}"))?;
    similarities::checked(kernel, shape, all)
}

/// Computes each anchor's `simclr_kernels::pair_loss::Pair` and loss. `all` is (views, dim), and contains this worker's
/// anchors from row `shape.offset` on; `anchors` is the result of [`super::nt_xent::forward`] for the same views.
pub fn forward(
    gpu: &dyn Launcher,
    shape: &ContrastiveShape,
    loss: PairLoss,
    all: Slice<f32>,
    anchors: Slice<f32>,
    pairs: SliceMut<f32>,
    losses: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "pair_loss_forward";
    let (views, splits) = checked(NAME, shape, all.len())?;
    expect_len(NAME, "anchors", anchors.len(), 4 * shape.anchors)?;
    expect_len(NAME, "pairs", pairs.len(), PAIR * shape.anchors)?;
    expect_len(NAME, "losses", losses.len(), shape.anchors)?;
    let (kind, count) = (Kind::of(loss, shape), fits(NAME, splits.count)?);
    let seen = Scratch::<f32>::new(gpu, splits.count * shape.anchors * SEEN)?;
    let halves = Halves::of(gpu, shape, views, all, Pass::Forward)?;
    let anchors = anchors.address();
    let arguments = arguments![halves.addresses(), anchors, views, kind, splits.columns, seen.address()];
    let grid = [splits.rows, count, 1];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above; `seen` has room for every split of every anchor.
    unsafe { gpu.launch(&launch)? };
    let unit = loss.term.unit(shape.temperature);
    let arguments =
        arguments![seen.address(), count, anchors, views, kind, unit, pairs.address(), losses.address()];
    let grid = exact_grid(NAME, shape.anchors)?;
    let launch = Launch { program: PROGRAM, kernel: "pair_loss_pairs", grid, block: BLOCK, arguments };
    // SAFETY: as above.
    unsafe { gpu.launch(&launch) }
}

/// Computes sums over this worker's anchors: [loss, anchors to which no negative is as similar as the positive,
/// entropy].
pub fn figures(
    gpu: &dyn Launcher,
    anchors: Slice<f32>,
    losses: Slice<f32>,
    sums: SliceMut<f64>,
) -> Result<()> {
    const NAME: &str = "pair_loss_figures";
    expect_len(NAME, "anchors", anchors.len(), 4 * losses.len())?;
    expect_len(NAME, "sums", sums.len(), 3)?;
    let count = fits(NAME, losses.len())?;
    let arguments = arguments![anchors.address(), losses.address(), count, sums.address()];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: [1; 3], block: 1024, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// dz (anchors, dim), the gradient of `factor` dy times the sum of l over ALL workers' anchors; dy is one value on the
/// device. `pairs` holds one pair per view of all workers, from [`forward`].
pub fn backward(
    gpu: &dyn Launcher,
    shape: &ContrastiveShape,
    loss: PairLoss,
    all: Slice<f32>,
    pairs: Slice<f32>,
    factor: f32,
    dy: Slice<f32>,
    dz: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "pair_loss_backward";
    let (views, splits) = checked(NAME, shape, all.len())?;
    expect_len(NAME, "pairs", pairs.len(), PAIR * shape.views)?;
    expect_len(NAME, "dy", dy.len(), 1)?;
    expect_len(NAME, "dz", dz.len(), shape.anchors * shape.dim)?;
    let factor = factor * loss.term.unit(shape.temperature) / shape.temperature;
    if loss.semi_hard {
        let arguments = arguments![all.address(), pairs.address(), views, factor, dy.address(), dz.address()];
        let grid = [fits(NAME, shape.anchors)?, 1, 1];
        let kernel = "pair_loss_backward_mined";
        let launch = Launch { program: PROGRAM, kernel, grid, block: BLOCK, arguments };
        // SAFETY: lengths are checked above; the kernel clamps indices of views below their number.
        return unsafe { gpu.launch(&launch) };
    }
    let partials = Partials::of(gpu, NAME, shape, &splits)?;
    let (kind, halves) = (Kind::of(loss, shape), Halves::of(gpu, shape, views, all, Pass::Backward)?);
    let arguments =
        arguments![halves.addresses(), pairs.address(), views, kind, splits.columns, partials.address()];
    let launch = Launch { program: PROGRAM, kernel: NAME, grid: partials.grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above; `partials` has room for every split of every anchor.
    unsafe { gpu.launch(&launch)? };
    partials.join(gpu, factor, dy, dz)
}
