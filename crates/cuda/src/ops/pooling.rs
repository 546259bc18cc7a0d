//! Pooling over images, channels last.

use simclr_kernels::PoolGeometry;

use crate::divisor::Divisor;
use crate::launcher::{
    Argument, BLOCK, Launch, Launcher, Scratch, arguments, exact_grid, expect, expect_len, fits, fits_image,
    image_grid,
};
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
    side: u32,
    stride: u32,
    /// Above and at the left; the padding below and at the right follows from the number of outputs.
    padding: u32,
}

impl Window {
    /// The window of a geometry, and the numbers of values of its input and output.
    fn new(kernel: &'static str, g: &PoolGeometry) -> Result<(Window, usize, usize)> {
        expect(kernel, g.is_valid(), || format!("every window must touch the image: {g:?}"))?;
        fits_image(kernel, g.in_height.saturating_mul(g.in_width).saturating_mul(g.channels))?;
        let count = |value| fits(kernel, value);
        let window = Window {
            batch: count(g.batch)?,
            in_height: count(g.in_height)?,
            in_width: count(g.in_width)?,
            channels: count(g.channels)?,
            out_height: count(g.out_height())?,
            out_width: count(g.out_width())?,
            side: count(g.side)?,
            stride: count(g.stride)?,
            padding: count(g.padding[0])?,
        };
        Ok((window, g.input_len(), g.output_len()))
    }

    /// The shape of the input.
    fn inputs(&self) -> [u32; 4] {
        [self.batch, self.in_height, self.in_width, self.channels]
    }

    /// The shape of the output.
    fn outputs(&self) -> [u32; 4] {
        [self.batch, self.out_height, self.out_width, self.channels]
    }
}

pub(super) fn program<E: Element>() -> Program {
    Program::typed(Module::Pooling, E::TYPE)
}

/// Launches a kernel with a thread for each pack of each pixel of `batch` images of `height` x `width` pixels.
///
/// # Safety
/// `operands` and the window must be the first arguments of `kernel`. The operands must have the lengths that the
/// window gives them, and the sizes must be the window's: of its input or output, whichever `kernel` has threads for.
pub(super) unsafe fn run<E: Element>(
    gpu: &dyn Launcher,
    kernel: &'static str,
    operands: &[u64],
    window: &dyn Argument,
    [batch, height, width, channels]: [u32; 4],
) -> Result<()> {
    let packs = E::TYPE.packs(channels as usize);
    let grid = image_grid(kernel, batch as usize, height as usize * width as usize * packs)?;
    let (by_packs, by_width) = (Divisor::by(packs as u32), Divisor::by(width));
    let mut arguments: Vec<&dyn Argument> = operands.iter().map(|address| address as &dyn Argument).collect();
    arguments.extend([window, &by_packs, &by_width]);
    let launch = Launch { program: program::<E>(), kernel, grid, block: BLOCK, arguments: &arguments };
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(&launch) }
}

/// Max pooling: y (N, P, Q, C). Padding never wins; NaN does.
pub fn max_pool_forward<E: Element>(
    gpu: &dyn Launcher,
    g: &PoolGeometry,
    x: Slice<E>,
    y: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "max_pool_forward";
    let (window, inputs, outputs) = Window::new(NAME, g)?;
    expect_len(NAME, "x", x.len(), inputs)?;
    expect_len(NAME, "y", y.len(), outputs)?;
    let operands = [x.address(), y.address()];
    // SAFETY: lengths are checked above.
    unsafe { run::<E>(gpu, NAME, &operands, &window, window.outputs()) }
}

/// dx of [`max_pool_forward`]: each dy goes to its window's maximum, or to the first of equal maxima. Windows have at
/// most 254 pixels.
///
/// A first pass finds which tap of each window that is, as a byte, so that the second, which gathers, reads no x.
pub fn max_pool_backward<E: Element>(
    gpu: &dyn Launcher,
    g: &PoolGeometry,
    x: Slice<E>,
    y: Slice<E>,
    dy: Slice<E>,
    dx: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "max_pool_backward";
    const WINNERS: &str = "max_pool_winners";
    let (window, inputs, outputs) = Window::new(NAME, g)?;
    expect_len(NAME, "x", x.len(), inputs)?;
    expect_len(NAME, "dx", dx.len(), inputs)?;
    expect_len(NAME, "y", y.len(), outputs)?;
    expect_len(NAME, "dy", dy.len(), outputs)?;
    let taps = g.side.saturating_mul(g.side);
    expect(NAME, taps < 255, || format!("windows of {taps} pixels, at most 254 are possible"))?;
    let winners = Scratch::<u8>::new(gpu, outputs)?;
    let operands = [x.address(), y.address(), winners.address()];
    // SAFETY: lengths are checked above; there is a winner for each output.
    unsafe { run::<E>(gpu, WINNERS, &operands, &window, window.outputs())? };
    let operands = [winners.address(), dy.address(), dx.address()];
    if (g.side, g.stride, g.padding) == (3, 2, [1, 1]) {
        // SAFETY: as above; the output has half as many rows and columns as the input, rounded up, as this kernel
        // assumes.
        unsafe { run::<E>(gpu, "max_pool_backward_halved", &operands, &window, window.outputs()) }
    } else {
        // SAFETY: as above.
        unsafe { run::<E>(gpu, NAME, &operands, &window, window.inputs()) }
    }
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
    let (batch, pixels, count) = sizes(NAME, y.len(), x.len(), pixels, channels)?;
    let packs = E::TYPE.packs(channels);
    let by_packs = Divisor::by(fits(NAME, packs)?);
    let grid = exact_grid(NAME, fits_image(NAME, batch as usize * packs)? as usize)?;
    let arguments = arguments![x.address(), y.address(), batch, pixels, count, by_packs];
    let launch = Launch { program: program::<E>(), kernel: NAME, grid, block: BLOCK, arguments };
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
    let (batch, pixels, count) = sizes(NAME, dy.len(), dx.len(), pixels, channels)?;
    let packs = E::TYPE.packs(channels);
    let by_packs = Divisor::by(fits(NAME, packs)?);
    let grid = exact_grid(NAME, fits_image(NAME, batch as usize * packs)? as usize)?;
    let arguments = arguments![dy.address(), dx.address(), batch, pixels, count, by_packs];
    let launch = Launch { program: program::<E>(), kernel: NAME, grid, block: BLOCK, arguments };
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
