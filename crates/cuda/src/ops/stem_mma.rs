//! A network's first convolution on tensor cores, as small images have it: 3 x 3 taps of stride 1 over 3 channels
//! and a border of one zero, in 16 bits.
//!
//! Its output is all that costs: x is read once, and the channels' sums are taken of what has just been computed.
//! Terms are multiplied in 16 bits and added up in f32, 27 of them for an output. Sums over pixels are added up in
//! f32 for at most 64 outputs (gradients: 1024) one after the other, then in f64, in an order that depends on the
//! shape alone.

use simclr_kernels::Conv2dGeometry;

use super::reductions::{narrow_sums, sum_pieces};
use crate::divisor::Divisor;
use crate::launcher::{BLOCK, Launch, Launcher, Scratch, arguments, expect, expect_len, fits, fits_image};
use crate::{Element, Module, Program, Result, Slice, SliceMut};

/// Rows and columns of outputs in a strip.
const STRIP: [usize; 2] = [8, 32];
/// Channels of a block, if the whole is a multiple of the first; else the second.
const BLOCK_CHANNELS: [usize; 2] = [64, 16];

/// `Sizes` of `stem_mma.cu`.
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

/// How a convolution is cut: `pieces` blocks, each for several strips, for every group of channels.
struct Plan {
    sizes: Sizes,
    pieces: usize,
    groups: u32,
    wide: u32,
}

impl Plan {
    /// Pieces are enough for several rounds of the largest GPUs where there are as many strips, and have at most
    /// `most` strips.
    fn of<E: Element>(kernel: &'static str, g: &Conv2dGeometry, pieces: usize, most: usize) -> Result<Plan> {
        expect(kernel, serves::<E>(g), || {
            format!(
                "16 bits, 3 channels, 3 x 3 taps, stride 1, padding 1 and 16, 32, ... 128 outputs are needed: {g:?}"
            )
        })?;
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

/// Whether a convolution of elements of type `E` is one of these.
pub fn serves<E: Element>(g: &Conv2dGeometry) -> bool {
    let shape = [g.in_channels, g.kernel_height, g.kernel_width, g.stride, g.padding];
    let channels = g.out_channels.is_multiple_of(16) && g.out_channels <= 128;
    E::TYPE.size() == 2 && g.is_valid() && shape == [3, 3, 3, 1, 1] && channels
}

fn program<E: Element>() -> Program {
    Program::typed(Module::StemMma, E::TYPE)
}

/// y (N, H, W, K) of x (N, H, W, 3) and w (K, 3, 3, 3), both rounded to nearest, ties to even; and of y as it is
/// stored, `sums` = [sum of each channel; K values, sum of its squares; K values].
///
/// # Errors
/// `Lengths` for what [`serves`] does not, and lengths that do not belong together.
pub fn forward<E: Element>(
    gpu: &dyn Launcher,
    g: &Conv2dGeometry,
    x: Slice<E>,
    w: Slice<f32>,
    y: SliceMut<E>,
    sums: Option<SliceMut<f64>>,
) -> Result<()> {
    const NAME: &str = "stem_mma_forward";
    let plan = Plan::of::<E>(NAME, g, 1024, 16)?;
    expect_len(NAME, "x", x.len(), g.input_len())?;
    expect_len(NAME, "w", w.len(), g.weight_len())?;
    expect_len(NAME, "y", y.len(), g.output_len())?;
    let width = 2 * g.out_channels;
    let partials = match &sums {
        Some(sums) => {
            expect_len(NAME, "sums", sums.len(), width)?;
            Some(Scratch::of::<f64>(gpu, plan.pieces * width)?)
        }
        None => None,
    };
    let to = partials.as_ref().map_or(0, Scratch::address);
    let arguments = arguments![x.address(), w.address(), y.address(), to, plan.sizes, plan.wide];
    // SAFETY: lengths are checked above; the kernel looks at pixels inside the image, the plan's groups cover the
    // channels, and there are partials for each piece or none are written.
    unsafe { gpu.launch(&plan.launch(program::<E>(), NAME, arguments))? };
    match (partials, sums) {
        (Some(partials), Some(sums)) => sum_pieces(gpu, partials.as_ref(), plan.pieces, sums),
        _ => Ok(()),
    }
}

/// dw (K, 3, 3, 3) of x (N, H, W, 3) and dy (N, H, W, K).
///
/// # Errors
/// As [`forward`].
pub fn backward_weight<E: Element>(
    gpu: &dyn Launcher,
    g: &Conv2dGeometry,
    x: Slice<E>,
    dy: Slice<E>,
    dw: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "stem_mma_backward_weight";
    let plan = Plan::of::<E>(NAME, g, 512, 32)?;
    expect_len(NAME, "x", x.len(), g.input_len())?;
    expect_len(NAME, "dy", dy.len(), g.output_len())?;
    expect_len(NAME, "dw", dw.len(), g.weight_len())?;
    let partials = Scratch::of::<f64>(gpu, plan.pieces * g.weight_len())?;
    let arguments = arguments![x.address(), dy.address(), partials.address(), plan.sizes, plan.wide];
    // SAFETY: lengths are checked above; the kernel looks at pixels inside the image, the plan's groups cover the
    // channels, and there are partials for each piece.
    unsafe { gpu.launch(&plan.launch(program::<E>(), NAME, arguments))? };
    let mut exact = Scratch::of::<f64>(gpu, g.weight_len())?;
    sum_pieces(gpu, partials.as_ref(), plan.pieces, exact.as_mut())?;
    narrow_sums(gpu, exact.as_ref(), dw)
}
