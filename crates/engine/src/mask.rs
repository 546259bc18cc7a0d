//! Masks: where a BatchNorm's output was positive.

use crate::Device;
use crate::memory::Memory;

/// Where a BatchNorm's output was positive, in the layout of its device's kernels. It is far smaller than the output,
/// which it replaces in backward.
#[derive(Clone)]
pub struct Mask(Memory);

impl Mask {
    /// A mask of `bytes` bytes, which are arbitrary until written. If a GPU is out of memory, the first operation that
    /// needs them returns the error.
    pub fn empty(device: &Device, bytes: usize) -> Mask {
        Mask(device.place().take(bytes))
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// The bytes for a GPU's kernels.
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
