//! Selective kernels: mixing the two C-channel streams of images (N, pixels, 2 C).

use simclr_kernels::Write;

use crate::divisor::Divisor;
use crate::launcher::{
    Argument, BLOCK, Launch, Launcher, Scratch, expect, expect_len, fits, fits_image, image_grid,
};
use crate::{Element, Module, Program, Result, Slice, SliceMut};

/// The most pixels of a thread: enough that writing its sums costs little beside what it reads.
const PIXELS: usize = 32;

/// Shapes of two streams, and how they are divided among threads.
#[derive(Clone, Copy)]
struct Streams {
    batch: usize,
    channels: usize,
    slices: usize,
    packs: usize,
    counts: [u32; 4],
}

impl Streams {
    /// For images of `len` values in all.
    fn new<E: Element>(kernel: &'static str, len: usize, pixels: usize, channels: usize) -> Result<Streams> {
        let image = pixels.saturating_mul(channels).saturating_mul(2);
        expect(kernel, image > 0 && len.is_multiple_of(image), || {
            format!("{len} values are not whole images of {pixels} pixels with 2 x {channels} channels")
        })?;
        fits_image(kernel, image)?;
        let (batch, slices) = (len / image, pixels.div_ceil(PIXELS));
        let count = |value| fits(kernel, value);
        let counts = [count(batch)?, count(pixels)?, count(channels)?, count(slices)?];
        Ok(Streams { batch, channels, slices, packs: E::TYPE.packs(channels), counts })
    }

    /// Memory for the sums of each slice.
    fn partials(&self, gpu: &dyn Launcher) -> Result<Scratch<f32>> {
        Scratch::<f32>::new(gpu, self.batch * self.slices * self.channels)
    }

    /// Launches a kernel with a thread for each pack of each slice.
    ///
    /// # Safety
    /// `arguments` must be the first ones of `kernel`, the counts and the divisor its last, and the memory among them
    /// must be as long as the counts say.
    unsafe fn run<E: Element>(
        &self,
        gpu: &dyn Launcher,
        kernel: &'static str,
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        let grid = image_grid(kernel, self.batch, self.slices * self.packs)?;
        let by_packs = Divisor::by(fits(kernel, self.packs)?);
        let mut arguments = arguments.to_vec();
        arguments.extend(self.counts.iter().map(|count| count as &dyn Argument));
        arguments.push(&by_packs);
        let program = Program::typed(Module::Selective, E::TYPE);
        // SAFETY: the caller's promise.
        unsafe { gpu.launch(&Launch { program, kernel, grid, block: BLOCK, arguments: &arguments }) }
    }

    /// Launches a kernel with a thread for each channel.
    ///
    /// # Safety
    /// `arguments` must be those of `kernel`, and the memory among them must be as long as the counts among them say.
    unsafe fn run_channels<E: Element>(
        &self,
        gpu: &dyn Launcher,
        kernel: &'static str,
        arguments: &[&dyn Argument],
    ) -> Result<()> {
        let grid = image_grid(kernel, self.batch, self.channels)?;
        let program = Program::typed(Module::Selective, E::TYPE);
        // SAFETY: the caller's promise.
        unsafe { gpu.launch(&Launch { program, kernel, grid, block: BLOCK, arguments }) }
    }
}

/// y (N, C): the mean over all pixels of the sum of both streams.
pub fn fuse_forward<E: Element>(
    gpu: &dyn Launcher,
    x: Slice<E>,
    pixels: usize,
    channels: usize,
    y: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "fuse_sums";
    let streams = Streams::new::<E>(NAME, x.len(), pixels, channels)?;
    expect_len(NAME, "y", y.len(), streams.batch * channels)?;
    let partials = streams.partials(gpu)?;
    let [batch, pixels, channels, slices] = streams.counts;
    let (from, sums, to) = (x.address(), partials.address(), y.address());
    // SAFETY: lengths are checked above; there is a sum for each slice.
    unsafe {
        streams.run::<E>(gpu, NAME, &[&from, &sums])?;
        streams.run_channels::<E>(gpu, "fuse_means", &[&sums, &to, &batch, &pixels, &channels, &slices])
    }
}

/// dx of [`fuse_forward`], written or added: dy / pixels at every pixel of both streams.
pub fn fuse_backward<E: Element>(
    gpu: &dyn Launcher,
    dy: Slice<f32>,
    pixels: usize,
    channels: usize,
    dx: SliceMut<E>,
    write: Write,
) -> Result<()> {
    const NAME: &str = "fuse_backward";
    let streams = Streams::new::<E>(NAME, dx.len(), pixels, channels)?;
    expect_len(NAME, "dy", dy.len(), streams.batch * channels)?;
    let add = u32::from(write == Write::Add);
    // SAFETY: lengths are checked above.
    unsafe { streams.run::<E>(gpu, NAME, &[&dy.address(), &dx.address(), &add]) }
}

/// y = a x1 + b x2, where x1 and x2 are the streams, and (a, b) of each channel of each image is the softmax of its
/// two logits.
pub fn select_forward<E: Element>(
    gpu: &dyn Launcher,
    x: Slice<E>,
    logits: Slice<f32>,
    pixels: usize,
    channels: usize,
    y: SliceMut<E>,
) -> Result<()> {
    const NAME: &str = "select_forward";
    let streams = Streams::new::<E>(NAME, x.len(), pixels, channels)?;
    expect_len(NAME, "logits", logits.len(), streams.batch * 2 * channels)?;
    expect_len(NAME, "y", y.len(), x.len() / 2)?;
    // SAFETY: lengths are checked above.
    unsafe { streams.run::<E>(gpu, NAME, &[&x.address(), &logits.address(), &y.address()]) }
}

/// Gradients of [`select_forward`]; dx replaces x.
pub fn select_backward<E: Element>(
    gpu: &dyn Launcher,
    dy: Slice<E>,
    logits: Slice<f32>,
    pixels: usize,
    channels: usize,
    x: SliceMut<E>,
    dlogits: SliceMut<f32>,
) -> Result<()> {
    const NAME: &str = "select_backward";
    let streams = Streams::new::<E>(NAME, x.len(), pixels, channels)?;
    expect_len(NAME, "dy", dy.len(), x.len() / 2)?;
    expect_len(NAME, "logits", logits.len(), streams.batch * 2 * channels)?;
    expect_len(NAME, "dlogits", dlogits.len(), logits.len())?;
    let partials = streams.partials(gpu)?;
    let [batch, _, channels, slices] = streams.counts;
    let (sums, logits) = (partials.address(), logits.address());
    let (dy, x, dlogits) = (dy.address(), x.address(), dlogits.address());
    // SAFETY: lengths are checked above; there is a sum for each slice.
    unsafe {
        streams.run::<E>(gpu, NAME, &[&dy, &logits, &x, &sums])?;
        streams.run_channels::<E>(
            gpu,
            "select_logits",
            &[&sums, &logits, &dlogits, &batch, &channels, &slices],
        )
    }
}
