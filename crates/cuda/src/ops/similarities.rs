//! The common part of losses over similarities: the views split into 16-bit halves, their tiling, and the gradient,
//! which is summed over splits. See `similarities.cuh`.

use simclr_kernels::contrastive::ContrastiveShape;

use crate::launcher::{BLOCK, Launch, Launcher, Scratch, arguments, expect, expect_len, fits, grid};
use crate::{Module, Program, Result, Slice, SliceMut};

/// Anchors of a block.
const ANCHORS: usize = 128;
/// Views of a tile, and dimensions of a slab.
const TILE: usize = 64;
/// Dimensions of dz that a block computes.
const PART: usize = 128;
/// Views that one block splits into halves.
const GROUP: usize = 16;
/// Blocks that run concurrently: two on each multiprocessor of the largest GPUs.
const BLOCKS: usize = 264;

/// The program with the kernels that all such losses launch.
const PROGRAM: Program = Program::of(Module::NtXent);

/// `Views` of `similarities.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Views {
    pub anchors: u32,
    views: u32,
    offset: u32,
    dim: u32,
    inverse_temperature: f32,
}

/// `Halves` of `similarities.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Addresses {
    along: u64,
    across: u64,
    scales: u64,
}

/// Which halves of views a pass multiplies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Similarities alone.
    Forward,
    /// Similarities, and weights with views.
    Backward,
}

/// Views split into 16-bit halves, laid out for tensor cores.
pub(super) struct Halves {
    along: Scratch<u32>,
    across: Option<Scratch<u32>>,
    scales: Scratch<f32>,
}

impl Halves {
    /// Splits `all`, whose length is already checked.
    pub fn of(
        gpu: &dyn Launcher,
        shape: &ContrastiveShape,
        views: Views,
        all: Slice<f32>,
        pass: Pass,
    ) -> Result<Halves> {
        const NAME: &str = "split_views";
        let rows = shape.views.next_multiple_of(TILE);
        let words = || Scratch::<u32>::new(gpu, rows * shape.dim.next_multiple_of(TILE));
        let halves = Halves {
            along: words()?,
            across: (pass == Pass::Backward).then(words).transpose()?,
            scales: Scratch::<f32>::new(gpu, rows)?,
        };
        let arguments = arguments![all.address(), views, halves.addresses()];
        let grid = [fits(NAME, rows / GROUP)?, 1, 1];
        let launch = Launch { program: PROGRAM, kernel: NAME, grid, block: BLOCK, arguments };
        // SAFETY: `all` has `shape.views` views, and there is room for whole tiles of them.
        unsafe { gpu.launch(&launch)? };
        Ok(halves)
    }

    /// The halves' addresses, as kernels take them.
    pub fn addresses(&self) -> Addresses {
        let across = self.across.as_ref().map_or(0, Scratch::address);
        Addresses { along: self.along.address(), across, scales: self.scales.address() }
    }
}

/// How the views that anchors are compared with are split, so that enough blocks run.
pub(super) struct Splits {
    pub rows: u32,
    pub count: usize,
    pub columns: u32,
}

impl Splits {
    fn of(kernel: &'static str, shape: &ContrastiveShape) -> Result<Splits> {
        let (rows, tiles) = (shape.anchors.div_ceil(ANCHORS), shape.views.div_ceil(TILE));
        let wanted = (BLOCKS / rows).clamp(1, tiles);
        let columns = tiles.div_ceil(wanted) * TILE;
        Ok(Splits {
            rows: fits(kernel, rows)?,
            count: shape.views.div_ceil(columns),
            columns: fits(kernel, columns)?,
        })
    }
}

/// Checks the shape and the length of `all`, and returns the views and their splits.
pub(super) fn checked(kernel: &'static str, shape: &ContrastiveShape, all: usize) -> Result<(Views, Splits)> {
    let sound = shape.anchors >= 2
        && shape.anchors.is_multiple_of(2)
        && shape.dim > 0
        && shape.offset + shape.anchors <= shape.views
        && shape.temperature > 0.0;
    expect(kernel, sound, || format!("two views of every image are needed: {shape:?}"))?;
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

/// Memory for each split's part of a gradient, (splits, anchors, dim), and the grid of the kernel that fills it.
pub(super) struct Partials {
    values: Scratch<f32>,
    splits: u32,
    pub grid: [u32; 3],
}

impl Partials {
    pub fn of(
        gpu: &dyn Launcher,
        kernel: &'static str,
        shape: &ContrastiveShape,
        splits: &Splits,
    ) -> Result<Partials> {
        let count = fits(kernel, splits.count)?;
        let grid = [splits.rows, count, fits(kernel, shape.dim.div_ceil(PART))?];
        let values = Scratch::<f32>::new(gpu, splits.count * shape.anchors * shape.dim)?;
        Ok(Partials { values, splits: count, grid })
    }

    pub fn address(&self) -> u64 {
        self.values.address()
    }

    /// dz = factor dy times the sum of the parts, once they are filled. dz has anchors x dim values.
    pub fn join(self, gpu: &dyn Launcher, factor: f32, dy: Slice<f32>, dz: SliceMut<f32>) -> Result<()> {
        const NAME: &str = "nt_xent_gradient";
        expect_len(NAME, "parts", self.values.as_ref().len(), self.splits as usize * dz.len())?;
        let arguments =
            arguments![self.address(), self.splits, dz.len() as i64, factor, dy.address(), dz.address()];
        let launch = Launch { program: PROGRAM, kernel: NAME, grid: grid(dz.len()), block: BLOCK, arguments };
        // SAFETY: `values` holds as many parts as the kernel reads (checked above), and dy is one value.
        unsafe { gpu.launch(&launch) }
    }
}
