//! The first layer of networks for small images, on tensor cores: a 3 x 3 convolution of stride 1 and padding 1 over 3
//! channels, in 16 bits, a BatchNorm and a ReLU.
//!
//! The layer is bound by memory traffic: x is small, and computing from it is cheap. So the convolution's output, y, is
//! never written. It is computed once for its sums, again for relu(y scale + shift), and a third time in backward to
//! know where the ReLU let values through. There dy is read once. Let g be dy where the ReLU is open (0 elsewhere), and
//! p the values under the taps of a pixel. BatchNorm's backward makes dy_conv = g a + y b + c (a, b and c per channel),
//! and y = w p, so that
//!
//! ```text
//! dw = sum of dy_conv p^T = a sum of g p^T + b w (sum of p p^T) + c sum of p^T,
//! ```
//!
//! and a, b and c follow from the sums of g and of g y = w (g p). These sums of products, the correlations, are all
//! that backward gathers over pixels; the rest is little work.
//!
//! Factors have 16 bits; an output is the f32 sum of 27 products, and is not rounded before the ReLU. Sums over pixels
//! are added up in f32 over at most 64 consecutive outputs (correlations: 2048), then in f64, in an order that depends
//! on the shape alone.

use simclr_kernels::Conv2dGeometry;

use super::batch_norm::{self, BackwardSums};
use super::reductions::sum_pieces;
use crate::divisor::Divisor;
use crate::launcher::{
    BLOCK, Launch, Launcher, Scratch, arguments, exact_grid, expect, expect_len, fits, fits_image,
};
use crate::{Element, Module, Program, Result, Slice, SliceMut};

/// Rows and columns of outputs in a strip.
const STRIP: [usize; 2] = [8, 32];
/// Channels of a block: the first number if it divides the number of channels, else the second.
const BLOCK_CHANNELS: [usize; 2] = [64, 16];

/// Factors in the sums of products: the values under 27 taps, and 1.
const KINDS: usize = 28;

/// `Sizes` of `first_layer.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: u32,
    height: u32,
    width: u32,
    out_channels: u32,
    strips: u32,
    by_image: Divisor,
    by_row: Divisor,
}

/// How a convolution is divided: `pieces` blocks, each for several strips, for every group of channels.
struct Plan {
    sizes: Sizes,
    pieces: usize,
    groups: u32,
    wide: u32,
}

impl Plan {
    /// Divides the strips into up to `pieces` pieces, or more where a piece would have over `most` strips. Callers ask
    /// for enough pieces to fill the largest GPUs several times.
    fn of<E: Element>(kernel: &'static str, g: &Conv2dGeometry, pieces: usize, most: usize) -> Result<Plan> {
        expect_served::<E>(kernel, g)?;
        let count = |value| fits(kernel, value);
        // Values of an image are counted in 32 bits.
        fits_image(kernel, g.in_height * g.in_width * g.out_channels)?;
        let [lines, columns] = [g.in_height.div_ceil(STRIP[0]), g.in_width.div_ceil(STRIP[1])];
        let strips = g.batch * lines * columns;
        let each = strips.div_ceil(pieces).clamp(1, most);
        let channels = BLOCK_CHANNELS[usize::from(!g.out_channels.is_multiple_of(BLOCK_CHANNELS[0]))];
        let sizes = Sizes {
            batch: count(g.batch)?,
            height: count(g.in_height)?,
            width: count(g.in_width)?,
            out_channels: count(g.out_channels)?,
            strips: count(strips)?,
            by_image: Divisor::by(count(lines * columns)?),
            by_row: Divisor::by(count(columns)?),
        };
        Ok(Plan {
            sizes,
            pieces: strips.div_ceil(each),
            groups: count(g.out_channels / channels)?,
            wide: u32::from(channels == BLOCK_CHANNELS[0]),
        })
    }

    fn launch<'a>(
        &self,
        program: Program,
        kernel: &'static str,
        arguments: &'a [&'a dyn crate::launcher::Argument],
    ) -> Launch<'a> {
        Launch { program, kernel, grid: [self.pieces as u32, self.groups, 1], block: BLOCK, arguments }
    }
}

/// Whether this module's kernels serve a convolution of elements of type `E`.
pub fn serves<E: Element>(g: &Conv2dGeometry) -> bool {
    let shape = [g.in_channels, g.kernel_height, g.kernel_width, g.stride, g.padding];
    let channels = g.out_channels.is_multiple_of(16) && g.out_channels <= 128;
    E::TYPE.size() == 2 && g.is_valid() && shape == [3, 3, 3, 1, 1] && channels
}

fn program<E: Element>() -> Program {
    Program::typed(Module::FirstLayer, E::TYPE)
}

/// The sums of y = x * w as the layer computes it, of x (N, H, W, 3) and w (K, 3, 3, 3), which is rounded to the type
/// of x, to nearest, ties to even: `sums` = [sum of each channel; K values, sum of its squares; K values].
///
/// # Errors
/// `Lengths` for geometries that [`serves`] rejects, and for lengths that do not match the geometry.
pub fn sums<E: Element>(
    gpu: &dyn Launcher,
    g: &Conv2dGeometry,
    x: Slice<E>,
    w: Slice<f32>,
    sums: SliceMut<f64>,
) -> Result<()> {
    const NAME: &str = "first_layer_sums";
    let plan = Plan::of::<E>(NAME, g, 1024, 16)?;
    expect_operands(NAME, g, x, w)?;
    let width = 2 * g.out_channels;
    expect_len(NAME, "sums", sums.len(), width)?;
    let partials = Scratch::<f64>::new(gpu, plan.pieces * width)?;
    let arguments = arguments![x.address(), w.address(), partials.address(), plan.sizes, plan.wide];
    // SAFETY: lengths are checked above; the kernel reads only pixels inside the image, the plan's groups cover the
    // channels, and there are partials for each piece.
    unsafe { gpu.launch(&plan.launch(program::<E>(), NAME, arguments))? };
    sum_pieces(gpu, partials.as_ref(), plan.pieces, sums)
}

/// Writes relu((x * w) scale + shift), (N, H, W, K); `coefficients` are those of a BatchNorm, (4, K).
///
/// # Errors
/// As [`sums`].
pub fn forward<E: Element>(
    gpu: &dyn Launcher,
    g: &Conv2dGeometry,
    x: Slice<E>,
    w: Slice<f32>,
    coefficients: Slice<f32>,
    to: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "first_layer_forward";
    let plan = Plan::of::<E>(NAME, g, 1024, 16)?;
    expect_operands(NAME, g, x, w)?;
    expect_len(NAME, "coefficients", coefficients.len(), 4 * g.out_channels)?;
    expect_len(NAME, "the output", to.len(), g.output_len())?;
    let arguments =
        arguments![x.address(), w.address(), coefficients.address(), to.address(), plan.sizes, plan.wide];
    // SAFETY: as in `sums`; every output is written by the one warp that computes it.
    unsafe { gpu.launch(&plan.launch(program::<E>(), NAME, arguments)) }
}

/// The number of values of the correlations that [`backward_sums`] writes.
pub fn correlations_len(g: &Conv2dGeometry) -> usize {
    (g.out_channels + KINDS) * KINDS
}

/// Computes, from `dy`, the gradient of [`forward`]'s output, the sums that BatchNorm's backward needs, and the
/// correlations for [`backward_weight`].
///
/// # Errors
/// As [`sums`].
pub fn backward_sums<E: Element>(
    gpu: &dyn Launcher,
    g: &Conv2dGeometry,
    x: Slice<E>,
    w: Slice<f32>,
    coefficients: Slice<f32>,
    dy: Slice<E>,
    mut correlations: SliceMut<f64>,
    to: BackwardSums,
) -> Result<()> {
    const NAME: &str = "first_layer_correlations";
    let plan = Plan::of::<E>(NAME, g, 512, 32)?;
    expect_operands(NAME, g, x, w)?;
    let (channels, width) = (g.out_channels, correlations_len(g));
    expect_len(NAME, "coefficients", coefficients.len(), 4 * channels)?;
    expect_len(NAME, "dy", dy.len(), g.output_len())?;
    expect_len(NAME, "correlations", correlations.len(), width)?;
    let partials = Scratch::<f64>::new(gpu, plan.pieces * width)?;
    let arguments = arguments![
        x.address(),
        w.address(),
        coefficients.address(),
        dy.address(),
        partials.address(),
        plan.sizes,
        plan.wide
    ];
    // SAFETY: as in `sums`.
    unsafe { gpu.launch(&plan.launch(program::<E>(), NAME, arguments))? };
    sum_pieces(gpu, partials.as_ref(), plan.pieces, correlations.reborrow())?;
    drop(partials);

    const SUMS: &str = "first_layer_backward_sums";
    let sums = Scratch::<f64>::new(gpu, 2 * channels)?;
    let count = fits(SUMS, channels)?;
    let arguments =
        arguments![correlations.address(), w.address(), coefficients.address(), sums.address(), count];
    let grid = exact_grid(SUMS, channels)?;
    let launch = Launch { program: program::<E>(), kernel: SUMS, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch)? };
    batch_norm::backward_totals(gpu, sums.as_ref(), 1, 1, coefficients, to)
}

/// dw (K, 3, 3, 3), from the correlations and from [a; K, b; K, c; K] as [`batch_norm::backward_coefficients`] computes
/// them. `E` is the type of x.
///
/// # Errors
/// As [`sums`].
pub fn backward_weight<E: Element>(
    gpu: &dyn Launcher,
    g: &Conv2dGeometry,
    w: Slice<f32>,
    correlations: Slice<f64>,
    abc: Slice<f32>,
    dw: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "first_layer_backward_weight";
    expect_served::<E>(NAME, g)?;
    expect_len(NAME, "w", w.len(), g.weight_len())?;
    expect_len(NAME, "correlations", correlations.len(), correlations_len(g))?;
    expect_len(NAME, "abc", abc.len(), 3 * g.out_channels)?;
    expect_len(NAME, "dw", dw.len(), g.weight_len())?;
    let channels = fits(NAME, g.out_channels)?;
    let arguments = arguments![correlations.address(), w.address(), abc.address(), dw.address(), channels];
    let grid = exact_grid(NAME, dw.len())?;
    let launch = Launch { program: program::<E>(), kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(&launch) }
}

fn expect_operands<E>(kernel: &'static str, g: &Conv2dGeometry, x: Slice<E>, w: Slice<f32>) -> Result<()> {
    expect_len(kernel, "x", x.len(), g.input_len())?;
    expect_len(kernel, "w", w.len(), g.weight_len())
}

fn expect_served<E: Element>(kernel: &'static str, g: &Conv2dGeometry) -> Result<()> {
    expect(kernel, serves::<E>(g), || {
        format!(
            "16 bits, 3 channels, 3 x 3 taps, stride 1, padding 1 and 16, 32, ... 128 outputs are needed: {g:?}"
        )
    })
}
