//! Average pooling by windows of 2 x 2 pixels, channels last.

use simclr_kernels::{AvgPoolGeometry, Write};

use super::pooling::run;
use crate::launcher::{Launcher, expect, expect_len, fits, fits_image};
use crate::{Element, Result, Slice, SliceMut};

/// `AvgPool` of `pooling.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Windows {
    batch: u32,
    height: u32,
    width: u32,
    channels: u32,
    out_height: u32,
    out_width: u32,
    stride: u32,
    zeros: u32,
    add: u32,
}

impl Windows {
    fn new(kernel: &'static str, g: &AvgPoolGeometry, write: Write) -> Result<Windows> {
        expect(kernel, g.is_valid(), || format!("an image and a stride of 1 or 2 are needed: {g:?}"))?;
        fits_image(kernel, g.height.saturating_mul(g.width).saturating_mul(g.channels))?;
        let count = |value| fits(kernel, value);
        Ok(Windows {
            batch: count(g.batch)?,
            height: count(g.height)?,
            width: count(g.width)?,
            channels: count(g.channels)?,
            out_height: count(g.out_height())?,
            out_width: count(g.out_width())?,
            stride: count(g.stride)?,
            zeros: g.zeros.into(),
            add: (write == Write::Add).into(),
        })
    }
}

/// Average pooling: each value of y is the mean of its window.
pub fn avg_pool_forward<E: Element>(
    gpu: &dyn Launcher,
    g: &AvgPoolGeometry,
    x: Slice<E>,
    y: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "avg_pool_forward";
    let windows = Windows::new(NAME, g, Write::Over)?;
    expect_len(NAME, "x", x.len(), g.input_len())?;
    expect_len(NAME, "y", y.len(), g.output_len())?;
    let Windows { batch, out_height, out_width, channels, .. } = windows;
    let sizes = [batch, out_height, out_width, channels];
    // SAFETY: lengths are checked above; a thread writes a pack of the output.
    unsafe { run::<E>(gpu, NAME, &[x.address(), y.address()], &windows, sizes) }
}

/// dx of [`avg_pool_forward`], written or added: for each pixel, the sum over the windows that contain it of its weight
/// there times dy.
pub fn avg_pool_backward<E: Element>(
    gpu: &dyn Launcher,
    g: &AvgPoolGeometry,
    dy: Slice<E>,
    dx: SliceMut<E>,
    write: Write,
) -> Result<()> {
    const NAME: &str = "avg_pool_backward";
    let windows = Windows::new(NAME, g, write)?;
    expect_len(NAME, "dy", dy.len(), g.output_len())?;
    expect_len(NAME, "dx", dx.len(), g.input_len())?;
    let Windows { batch, height, width, channels, .. } = windows;
    let sizes = [batch, height, width, channels];
    // SAFETY: lengths are checked above; a thread writes a pack of the input's gradient.
    unsafe { run::<E>(gpu, NAME, &[dy.address(), dx.address()], &windows, sizes) }
}
