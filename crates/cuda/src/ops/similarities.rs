//! What losses over similarities share: their tiles, and the gradient that is put together from splits. See
//! `similarities.cuh`.

use simclr_kernels::contrastive::ContrastiveShape;

use crate::launcher::{BLOCK, Launch, Launcher, Scratch, arguments, expect, expect_len, fits, grid};
use crate::{Module, Program, Result, Slice, SliceMut};

const TILE: usize = 64;
/// Dimensions of dz that a block computes.
const PART: usize = 128;

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

/// How the other views are cut, so that enough blocks are at work.
pub(super) struct Splits {
    pub rows: u32,
    pub count: usize,
    pub columns: u32,
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

/// The views and their splits, once lengths are known to belong together.
pub(super) fn checked(
    kernel: &'static str,
    shape: &ContrastiveShape,
    z: usize,
    all: usize,
) -> Result<(Views, Splits)> {
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

/// Room for each split's part of a gradient, (splits, anchors, dim), and the grid of the kernel that fills it.
pub(super) struct Partials {
    values: Scratch,
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
        let values = Scratch::of::<f32>(gpu, splits.count * shape.anchors * shape.dim)?;
        Ok(Partials { values, splits: count, grid })
    }

    pub fn address(&self) -> u64 {
        self.values.address()
    }

    /// dz = factor dy times the sum of the parts, once they are filled. dz has anchors x dim values.
    pub fn join(self, gpu: &dyn Launcher, factor: f32, dy: Slice<f32>, dz: SliceMut<f32>) -> Result<()> {
        const NAME: &str = "nt_xent_gradient";
        expect_len(NAME, "parts", self.values.as_ref::<f32>().len(), self.splits as usize * dz.len())?;
        let arguments =
            arguments![self.address(), self.splits, dz.len() as i64, factor, dy.address(), dz.address()];
        let program = Program::of(Module::NtXent);
        let launch = Launch { program, kernel: NAME, grid: grid(dz.len()), block: BLOCK, arguments };
        // SAFETY: there are as many parts as the kernel reads, and dy is one value.
        unsafe { gpu.launch(&launch) }
    }
}
