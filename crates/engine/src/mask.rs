//! Masks: where a BatchNorm's output was positive.

use crate::Device;
use crate::memory::Memory;

/// Where a BatchNorm's output was positive, as the kernels of its device lay it out. It is a small part of the
/// output, and stands in for it in backward.
#[derive(Clone)]
pub struct Mask(Memory);

impl Mask {
    /// A mask of so many bytes, which are arbitrary until written. Where a GPU has no memory left, whatever needs
    /// them says so.
    pub fn empty(device: &Device, bytes: usize) -> Mask {
        Mask(device.place().take(bytes))
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// The bytes for the kernels of a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn gpu(&self) -> crate::Result<simclr_cuda::Slice<'_, u8>> {
        self.0.gpu()
    }

    /// The same for writing.
    #[cfg(feature = "cuda")]
    pub(crate) fn gpu_mut(
        &mut self,
        gpu: &simclr_cuda::Device,
    ) -> crate::Result<simclr_cuda::SliceMut<'_, u8>> {
        self.0.gpu_mut(gpu)
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} bytes)", self.bytes())
    }
}
