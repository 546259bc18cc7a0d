//! Making views on a GPU.

use simclr_augment::{Recipe, ViewFamily};

use crate::{Device, EngineError, Pixels, Result};

/// Where an image's pixels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Among the pixels sent with its views, from this byte on.
    Sent(usize),
    /// Kept from an earlier batch.
    Kept(KeptAt),
}

/// A place among the pixels that a [`ViewMaker`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAt {
    #[cfg(feature = "cuda")]
    place: simclr_cuda::KeptAt,
    #[cfg(not(feature = "cuda"))]
    nowhere: Nowhere,
}

/// Has no values: without GPUs there are no places and no view makers.
#[cfg(not(feature = "cuda"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nowhere {}

impl KeptAt {
    /// The place `bytes` bytes later.
    pub fn after(self, bytes: usize) -> KeptAt {
        #[cfg(feature = "cuda")]
        return KeptAt { place: self.place.after(bytes) };
        #[cfg(not(feature = "cuda"))]
        {
            let _ = bytes;
            match self.nowhere {}
        }
    }
}

/// Makes views of decoded images on a GPU: the same as those of `simclr-augment`, except for rounding (1 of 255).
///
/// [`ViewMaker::send`] sends a batch while the GPU works on earlier ones, and [`ViewMaker::make`] makes its views; two
/// batches may be under way. Images may be kept on the GPU for later batches, within a limit.
#[derive(Debug)]
pub struct ViewMaker {
    #[cfg(feature = "cuda")]
    device: Device,
    #[cfg(feature = "cuda")]
    gpu: simclr_cuda::Device,
    #[cfg(feature = "cuda")]
    maker: simclr_cuda::ViewMaker,
    #[cfg(not(feature = "cuda"))]
    nowhere: Nowhere,
}

/// Describes the operators of a family that a GPU cannot run, if there are any.
pub fn impossible_on_gpu(family: &ViewFamily) -> Option<&'static str> {
    #[cfg(feature = "cuda")]
    return simclr_cuda::ops::views::impossible(family);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = family;
        Some(crate::device::NO_CUDA)
    }
}

fn not_a_gpu(device: &Device) -> EngineError {
    EngineError::Value { op: "views", what: format!("a GPU is needed, {device} is not one") }
}

#[cfg(feature = "cuda")]
impl ViewMaker {
    /// A view maker that keeps up to `limit` bytes of images.
    ///
    /// # Errors
    /// [`EngineError::Value`] if the device is not a GPU.
    pub fn new(device: &Device, limit: usize) -> Result<ViewMaker> {
        match device.place() {
            crate::memory::Place::Gpu(gpu) => Ok(ViewMaker {
                device: device.clone(),
                gpu: gpu.clone(),
                maker: simclr_cuda::ViewMaker::new(gpu, limit),
            }),
            crate::memory::Place::Host(_) => Err(not_a_gpu(device)),
        }
    }

    /// Bytes of GPU memory that it takes to send and make batches of `views` views of `side` x `side` pixels, from
    /// images of `pixels` bytes in total, none of whose sides is longer than `longest` pixels.
    pub fn needs(views: usize, pixels: usize, side: usize, longest: u32) -> usize {
        simclr_cuda::ViewMaker::needs(views, pixels, side, longest)
    }

    /// Bytes of GPU memory that it takes to keep `bytes` bytes of images.
    pub fn to_keep(bytes: usize) -> usize {
        simclr_cuda::ViewMaker::to_keep(bytes)
    }

    /// Sends `pixels`, 8-bit RGB images one after another, and the recipes of `count` views of these images or of
    /// kept ones. Returns before they have arrived.
    ///
    /// # Errors
    /// [`EngineError::Device`] if two batches are under way, an image is missing, a recipe cannot be made on a GPU
    /// ([`impossible_on_gpu`]), or the device fails.
    pub fn send<'r>(
        &mut self,
        pixels: &[u8],
        count: usize,
        views: impl Iterator<Item = (Source, &'r Recipe)>,
    ) -> Result<()> {
        let room = self.maker.room(count, pixels.len())?;
        self.device.copy_bytes(pixels, room);
        let views = views.map(|(source, recipe)| match source {
            Source::Sent(at) => (simclr_cuda::Source::Sent(at), recipe),
            Source::Kept(at) => (simclr_cuda::Source::Kept(at.place), recipe),
        });
        Ok(self.maker.send(views)?)
    }

    /// Makes the views of the oldest batch under way, in order with the GPU's other work. With `keep`, keeps the
    /// batch's pixels and returns where they begin, or `None` if there is no room for them.
    ///
    /// # Errors
    /// [`EngineError::Shape`] if `out` is on another device or its images are not square; [`EngineError::Device`] if no
    /// batch is under way, `out` does not have one image per view, or the device fails.
    pub fn make(&mut self, keep: bool, out: &mut Pixels) -> Result<Option<KeptAt>> {
        let side = out.shape()[1];
        if out.device() != &self.device || out.shape()[2] != side {
            return Err(EngineError::shape("views", format!("square images on {}", self.device), &*out));
        }
        let kept = self.maker.make(side, keep, out.gpu_mut(&self.gpu)?)?;
        Ok(kept.map(|place| KeptAt { place }))
    }

    /// Bytes of images kept so far.
    pub fn kept(&self) -> usize {
        self.maker.kept()
    }
}

/// Without GPUs no view maker can exist.
#[cfg(not(feature = "cuda"))]
#[allow(missing_docs)]
impl ViewMaker {
    pub fn new(device: &Device, _: usize) -> Result<ViewMaker> {
        Err(not_a_gpu(device))
    }

    pub fn needs(_: usize, _: usize, _: usize, _: u32) -> usize {
        0
    }

    pub fn to_keep(_: usize) -> usize {
        0
    }

    pub fn send<'r>(
        &mut self,
        _: &[u8],
        _: usize,
        _: impl Iterator<Item = (Source, &'r Recipe)>,
    ) -> Result<()> {
        match self.nowhere {}
    }

    pub fn make(&mut self, _: bool, _: &mut Pixels) -> Result<Option<KeptAt>> {
        match self.nowhere {}
    }

    pub fn kept(&self) -> usize {
        match self.nowhere {}
    }
}
