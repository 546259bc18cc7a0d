//! Convolutions of few channels, such as a network's first, packed into convolutions of 8 channels or more.
//!
//! Tensor cores multiply 8 channels of a 16-bit type together, and libraries are slow with fewer. Channels are
//! therefore padded with zeros. Where the stride is 2, the four pixels of each 2 x 2 block first become the channels
//! of one pixel (space to depth), so that the packed convolution has stride 1: tap r of output p lies at row
//! 2 p + r - padding = 2 (p + a) + b with b in {0, 1}, which is tap a - floor(-padding / 2) at row b of a block. A
//! 7 x 7 kernel of stride 2 over 3 channels becomes a 4 x 4 kernel of stride 1 over 12, padded to 16. The padding of
//! the image is part of the packed images. The result is the same up to the order of sums.

use std::marker::PhantomData;

use simclr_kernels::Conv2dGeometry;

use crate::divisor::Divisor;
use crate::launcher::{
    BLOCK, Launch, Launcher, arguments, exact_grid, expect, expect_len, fits, fits_image, image_grid,
};
use crate::{Element, Module, Program, Result, Slice, SliceMut};

/// The number of channels of packed images is a multiple of this.
const GROUP: usize = 8;

/// A packed convolution of elements of type `E`.
#[derive(Debug, Clone, Copy)]
pub struct Packing<E> {
    element: PhantomData<E>,
    whole: Conv2dGeometry,
    packed: Conv2dGeometry,
    sizes: Sizes,
}

/// `Stem` of `stem.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: u32,
    height: u32,
    width: u32,
    channels: u32,
    out_channels: u32,
    side_height: u32,
    side_width: u32,
    stride: u32,
    padding: u32,
    first: i32,
    packed_height: u32,
    packed_width: u32,
    packed_channels: u32,
    packed_side_height: u32,
    packed_side_width: u32,
    by_packed_width: Divisor,
}

/// Whether a convolution of elements of type `E` is faster when packed: it has fewer than 8 channels, a 16-bit type,
/// and a stride of 1 or 2.
pub fn pays<E: Element>(g: &Conv2dGeometry) -> bool {
    g.in_channels < GROUP && (1..=2).contains(&g.stride) && E::TYPE.size() == 2
}

impl<E: Element> Packing<E> {
    /// Plans the packing of a convolution.
    ///
    /// # Errors
    /// `Lengths` for an invalid geometry, a stride above 2, and sizes that the kernels cannot count.
    pub fn of(g: &Conv2dGeometry) -> Result<Packing<E>> {
        const NAME: &str = "packing a convolution";
        let packs = g.is_valid() && g.stride <= 2;
        expect(NAME, packs, || format!("a convolution of stride 1 or 2 is needed: {g:?}"))?;
        // -floor(-padding / stride), and the number of packed taps that the kernel covers from there on.
        let before = g.padding.div_ceil(g.stride);
        let taps = |side: usize| (before * g.stride - g.padding + side - 1) / g.stride + 1;
        let [kernel_height, kernel_width] = [g.kernel_height, g.kernel_width].map(taps);
        let packed = Conv2dGeometry {
            batch: g.batch,
            in_height: g.out_height() + kernel_height - 1,
            in_width: g.out_width() + kernel_width - 1,
            in_channels: (g.stride * g.stride * g.in_channels).next_multiple_of(GROUP),
            out_channels: g.out_channels,
            kernel_height,
            kernel_width,
            stride: 1,
            padding: 0,
        };
        let count = |value| fits(NAME, value);
        // Kernels count the values of an image and of the weights in 32 bits.
        fits_image(NAME, g.input_len() / g.batch)?;
        fits_image(NAME, packed.input_len() / g.batch)?;
        count(packed.weight_len())?;
        let sizes = Sizes {
            batch: count(g.batch)?,
            height: count(g.in_height)?,
            width: count(g.in_width)?,
            channels: count(g.in_channels)?,
            out_channels: count(g.out_channels)?,
            side_height: count(g.kernel_height)?,
            side_width: count(g.kernel_width)?,
            stride: count(g.stride)?,
            padding: count(g.padding)?,
            first: -(count(before)? as i32),
            packed_height: count(packed.in_height)?,
            packed_width: count(packed.in_width)?,
            packed_channels: count(packed.in_channels)?,
            packed_side_height: count(kernel_height)?,
            packed_side_width: count(kernel_width)?,
            by_packed_width: Divisor::by(count(packed.in_width)?),
        };
        Ok(Packing { element: PhantomData, whole: *g, packed, sizes })
    }

    /// The geometry of the packed convolution. Its output is that of the original one.
    pub fn geometry(&self) -> &Conv2dGeometry {
        &self.packed
    }
}

fn program<E: Element>() -> Program {
    Program::typed(Module::Stem, E::TYPE)
}

/// Packs x (N, H, W, C) into (N, H', W', C'), the input of the packed geometry.
pub fn pack_images<E: Element>(
    gpu: &dyn Launcher,
    packing: &Packing<E>,
    x: Slice<E>,
    packed: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "stem_pack_images";
    expect_len(NAME, "x", x.len(), packing.whole.input_len())?;
    expect_len(NAME, "packed images", packed.len(), packing.packed.input_len())?;
    let packs = packing.packed.in_channels / E::TYPE.width();
    let by_packs = Divisor::by(fits(NAME, packs)?);
    let shares = packing.packed.in_height * packing.packed.in_width * packs;
    let grid = image_grid(NAME, packing.whole.batch, shares)?;
    let arguments = arguments![x.address(), packed.address(), packing.sizes, by_packs];
    let launch = Launch { program: program::<E>(), kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above; the kernel reads x only where a pixel is inside the image.
    unsafe { gpu.launch(&launch) }
}

/// Packs w (K, R, S, C) into (K, R', S', C'), rounded to nearest, ties to even.
pub fn pack_weights<E: Element>(
    gpu: &dyn Launcher,
    packing: &Packing<E>,
    w: Slice<f32>,
    packed: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "stem_pack_weights";
    expect_len(NAME, "w", w.len(), packing.whole.weight_len())?;
    expect_len(NAME, "packed weights", packed.len(), packing.packed.weight_len())?;
    let grid = exact_grid(NAME, packed.len())?;
    let arguments = arguments![w.address(), packed.address(), packing.sizes];
    let launch = Launch { program: program::<E>(), kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above; the kernel reads w only where a tap is one of the kernel's.
    unsafe { gpu.launch(&launch) }
}

/// Unpacks the gradient of packed weights, (K, R', S', C'), into dw (K, R, S, C), exactly. Values that belong to no
/// tap are dropped.
pub fn unpack_weights<E: Element>(
    gpu: &dyn Launcher,
    packing: &Packing<E>,
    packed: Slice<f32>,
    dw: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "stem_unpack_weights";
    expect_len(NAME, "packed weights", packed.len(), packing.packed.weight_len())?;
    expect_len(NAME, "dw", dw.len(), packing.whole.weight_len())?;
    let grid = exact_grid(NAME, dw.len())?;
    let arguments = arguments![packed.address(), dw.address(), packing.sizes];
    let launch = Launch { program: program::<E>(), kernel: NAME, grid, block: BLOCK, arguments };
    // SAFETY: lengths are checked above; every tap of the kernel is one of the packed kernel.
    unsafe { gpu.launch(&launch) }
}
