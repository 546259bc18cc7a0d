//! Gathering the pixels that a strided 1 x 1 convolution reads, and scattering them back: the rest of such a
//! convolution is a matrix product.

use simclr_kernels::{Conv2dGeometry, Write};

use crate::divisor::Divisor;
use crate::launcher::{BLOCK, Launch, Launcher, arguments, expect, expect_len, fits, fits_image, image_grid};
use crate::{Element, Module, Program, Result, Slice, SliceMut};

/// `Strided` of `strided.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: u32,
    height: u32,
    width: u32,
    rows: u32,
    columns: u32,
    channels: u32,
    stride: u32,
    by_packs: Divisor,
    by_columns: Divisor,
    by_width: Divisor,
    by_stride: Divisor,
}

/// Whether a convolution is 1 x 1, without padding, and strided, so that it skips pixels.
pub fn serves(g: &Conv2dGeometry) -> bool {
    (g.kernel_height, g.kernel_width, g.padding) == (1, 1, 0) && g.stride > 1
}

/// The same convolution on the gathered pixels, (N, P, Q, C).
pub fn together(g: &Conv2dGeometry) -> Conv2dGeometry {
    Conv2dGeometry { in_height: g.out_height(), in_width: g.out_width(), stride: 1, ..*g }
}

fn sizes<E: Element>(kernel: &'static str, g: &Conv2dGeometry) -> Result<(Sizes, usize)> {
    let of_pixels = serves(g) && g.is_valid();
    expect(kernel, of_pixels, || format!("a strided 1 x 1 convolution is needed: {g:?}"))?;
    let count = |value| fits(kernel, value);
    let packs = E::TYPE.packs(g.in_channels);
    let sizes = Sizes {
        batch: count(g.batch)?,
        height: count(g.in_height)?,
        width: count(g.in_width)?,
        rows: count(g.out_height())?,
        columns: count(g.out_width())?,
        channels: count(g.in_channels)?,
        stride: count(g.stride)?,
        by_packs: Divisor::by(count(packs)?),
        by_columns: Divisor::by(count(g.out_width())?),
        by_width: Divisor::by(count(g.in_width)?),
        by_stride: Divisor::by(count(g.stride)?),
    };
    // Values of an image are counted in 32 bits.
    fits_image(kernel, g.input_len() / g.batch)?;
    Ok((sizes, packs))
}

/// Gathers the pixels of x (N, H, W, C) that the convolution reads into (N, P, Q, C).
///
/// # Errors
/// `Lengths` for geometries that [`serves`] rejects, and for lengths that do not match the geometry.
pub fn gather<E: Element>(
    gpu: &dyn Launcher,
    g: &Conv2dGeometry,
    x: Slice<E>,
    to: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "strided_gather";
    let (sizes, packs) = sizes::<E>(NAME, g)?;
    expect_len(NAME, "x", x.len(), g.input_len())?;
    expect_len(NAME, "the pixels", to.len(), together(g).input_len())?;
    let arguments = arguments![x.address(), to.address(), sizes];
    let grid = image_grid(NAME, g.batch, g.out_height() * g.out_width() * packs)?;
    let program = Program::typed(Module::Strided, E::TYPE);
    // SAFETY: lengths are checked above; row (P - 1) and column (Q - 1) times the stride lie inside an image.
    unsafe { gpu.launch(&Launch { program, kernel: NAME, grid, block: BLOCK, arguments }) }
}

/// Scatters pixels (N, P, Q, C) to their places in x (N, H, W, C): added to its values, or with zeros between them.
///
/// # Errors
/// As [`gather`].
pub fn scatter<E: Element>(
    gpu: &dyn Launcher,
    g: &Conv2dGeometry,
    pixels: Slice<E>,
    x: SliceMut<E>,
    write: Write,
) -> Result<()> {
    let (kernel, shares) = match write {
        Write::Add => ("strided_add", g.out_height() * g.out_width()),
        Write::Over => ("strided_spread", g.in_height * g.in_width),
    };
    let (sizes, packs) = sizes::<E>(kernel, g)?;
    expect_len(kernel, "the pixels", pixels.len(), together(g).input_len())?;
    expect_len(kernel, "x", x.len(), g.input_len())?;
    let arguments = arguments![pixels.address(), x.address(), sizes];
    let grid = image_grid(kernel, g.batch, shares * packs)?;
    let program = Program::typed(Module::Strided, E::TYPE);
    // SAFETY: as above, and each value of x belongs to one thread.
    unsafe { gpu.launch(&Launch { program, kernel, grid, block: BLOCK, arguments }) }
}
