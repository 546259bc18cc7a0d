//! Pooling over images, channels last.

use simclr_kernels::Conv2dGeometry;

use crate::launcher::{BLOCK, Launch, Launcher, arguments, expect, expect_len, fits, grid};
use crate::{Element, Module, Program, Result, Slice, SliceMut};

/// `Window` of `pooling.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Window {
    batch: u32,
    in_height: u32,
    in_width: u32,
    channels: u32,
    out_height: u32,
    out_width: u32,
    side_height: u32,
    side_width: u32,
    stride: u32,
    padding: u32,
}

impl Window {
    /// The window of a geometry, whose `out_channels` are not used, and the values of its input and output.
    fn new(kernel: &'static str, g: &Conv2dGeometry) -> Result<(Window, usize, usize)> {
        let valid = g.is_valid() && g.padding < g.kernel_height.min(g.kernel_width);
        expect(kernel, valid, || format!("every window must touch the image: {g:?}"))?;
        let count = |value| fits(kernel, value);
        let window = Window {
            batch: count(g.batch)?,
            in_height: count(g.in_height)?,
            in_width: count(g.in_width)?,
            channels: count(g.in_channels)?,
            out_height: count(g.out_height())?,
            out_width: count(g.out_width())?,
            side_height: count(g.kernel_height)?,
            side_width: count(g.kernel_width)?,
            stride: count(g.stride)?,
            padding: count(g.padding)?,
        };
        let outputs = g.batch * g.out_height() * g.out_width() * g.in_channels;
        Ok((window, g.input_len(), outputs))
    }
}

fn program<E: Element>() -> Program {
    Program::typed(Module::Pooling, E::TYPE)
}

/// Max pooling: y (N, P, Q, C). Padding never wins; a NaN does. `g.out_channels` is not used.
pub fn max_pool_forward<E: Element>(
    gpu: &dyn Launcher,
    g: &Conv2dGeometry,
    x: Slice<E>,
    y: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "max_pool_forward";
    let (window, inputs, outputs) = Window::new(NAME, g)?;
    expect_len(NAME, "x", x.len(), inputs)?;
    expect_len(NAME, "y", y.len(), outputs)?;
    let arguments = arguments![x.address(), y.address(), window];
    let launch =
        Launch { program: program::<E>(), kernel: NAME, grid: grid(outputs), block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// dx of [`max_pool_forward`]: each dy goes to its window's maximum, to the first of equal ones.
pub fn max_pool_backward<E: Element>(
    gpu: &dyn Launcher,
    g: &Conv2dGeometry,
    x: Slice<E>,
    y: Slice<E>,
    dy: Slice<E>,
    dx: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "max_pool_backward";
    let (window, inputs, outputs) = Window::new(NAME, g)?;
    expect_len(NAME, "x", x.len(), inputs)?;
    expect_len(NAME, "dx", dx.len(), inputs)?;
    expect_len(NAME, "y", y.len(), outputs)?;
    expect_len(NAME, "dy", dy.len(), outputs)?;
    let arguments = arguments![x.address(), y.address(), dy.address(), dx.address(), window];
    let launch =
        Launch { program: program::<E>(), kernel: NAME, grid: grid(inputs), block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// Global average pooling: x (N, pixels, C) to y (N, C).
pub fn global_avg_pool_forward<E: Element>(
    gpu: &dyn Launcher,
    x: Slice<E>,
    pixels: usize,
    channels: usize,
    y: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "global_avg_pool_forward";
    let (batch, pixels, channels) = sizes(NAME, y.len(), x.len(), pixels, channels)?;
    let arguments = arguments![x.address(), y.address(), batch, pixels, channels];
    let launch =
        Launch { program: program::<E>(), kernel: NAME, grid: grid(y.len()), block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

/// dx of [`global_avg_pool_forward`]: dy / pixels at every pixel.
pub fn global_avg_pool_backward<E: Element>(
    gpu: &dyn Launcher,
    dy: Slice<f32>,
    pixels: usize,
    channels: usize,
    dx: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "global_avg_pool_backward";
    let (batch, pixels, channels) = sizes(NAME, dy.len(), dx.len(), pixels, channels)?;
    let arguments = arguments![dy.address(), dx.address(), batch, pixels, channels];
    let launch =
        Launch { program: program::<E>(), kernel: NAME, grid: grid(dx.len()), block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

fn sizes(
    kernel: &'static str,
    pooled: usize,
    whole: usize,
    pixels: usize,
    channels: usize,
) -> Result<(u32, u32, u32)> {
    let fit = channels > 0 && pooled.is_multiple_of(channels) && pooled * pixels == whole;
    expect(kernel, fit, || format!("{whole} values to {pooled} of {pixels} pixels, {channels} channels"))?;
    Ok((fits(kernel, pooled / channels)?, fits(kernel, pixels)?, fits(kernel, channels)?))
}
