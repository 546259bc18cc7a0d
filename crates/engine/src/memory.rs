//! Where a tensor's values are: in host memory or on a GPU.

#[cfg(feature = "cuda")]
use std::sync::Arc;

use bytemuck::Pod;
#[cfg(feature = "cuda")]
use simclr_cuda::{CudaError, DeviceBuffer, Slice, SliceMut};
use simclr_kernels::buffer::{Buffer, Pool};

use crate::{EngineError, Result};

/// Values, shared by clones.
#[derive(Clone)]
pub(crate) enum Memory {
    Host(Buffer),
    /// If the GPU was out of memory, holds the error for the first operation that needs the values.
    #[cfg(feature = "cuda")]
    Gpu(std::result::Result<Arc<DeviceBuffer<u8>>, Arc<CudaError>>),
}

/// The source of a device's memory.
pub(crate) enum Place {
    Host(Pool),
    #[cfg(feature = "cuda")]
    Gpu(simclr_cuda::Device),
}

impl Place {
    /// Allocates `bytes` bytes of arbitrary values.
    pub(crate) fn take(&self, bytes: usize) -> Memory {
        match self {
            Place::Host(pool) => Memory::Host(pool.take(bytes)),
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => Memory::Gpu(gpu.buffer(bytes).map(Arc::new).map_err(Arc::new)),
        }
    }
}

impl Memory {
    /// How many bytes there are.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Memory::Host(buffer) => buffer.len(),
            #[cfg(feature = "cuda")]
            Memory::Gpu(buffer) => buffer.as_ref().map_or(0, |buffer| buffer.len()),
        }
    }

    /// The values, if they are in host memory.
    pub(crate) fn host<E: Pod>(&self) -> Result<&[E]> {
        match self {
            Memory::Host(buffer) => Ok(buffer.as_slice()),
            #[cfg(feature = "cuda")]
            Memory::Gpu(_) => Err(elsewhere()),
        }
    }

    /// The same for writing. Shared values are copied first.
    pub(crate) fn host_mut<E: Pod>(&mut self, place: &Place) -> Result<&mut [E]> {
        match (self, place) {
            (Memory::Host(buffer), Place::Host(pool)) => {
                if buffer.get_mut::<E>().is_none() {
                    let mut copy = pool.take(buffer.len());
                    if let Some(values) = copy.get_mut::<E>() {
                        values.copy_from_slice(buffer.as_slice());
                    }
                    *buffer = copy;
                }
                buffer.get_mut().ok_or_else(shared)
            }
            #[cfg(feature = "cuda")]
            _ => Err(elsewhere()),
        }
    }

    /// Copies all values to the host.
    pub(crate) fn read<E: Pod>(&self, place: &Place, to: &mut [E]) -> Result<()> {
        match (self, place) {
            (Memory::Host(buffer), _) => to.copy_from_slice(buffer.as_slice()),
            #[cfg(feature = "cuda")]
            (Memory::Gpu(_), Place::Gpu(gpu)) => gpu.copy_from(self.gpu()?, to)?,
            #[cfg(feature = "cuda")]
            (Memory::Gpu(_), Place::Host(_)) => return Err(elsewhere()),
        }
        Ok(())
    }

    /// Replaces all values.
    pub(crate) fn write<E: Pod>(&mut self, place: &Place, values: &[E]) -> Result<()> {
        match place {
            Place::Host(_) => self.host_mut(place)?.copy_from_slice(values),
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => gpu.copy_to(values, self.gpu_mut(gpu)?)?,
        }
        Ok(())
    }
}

#[cfg(feature = "cuda")]
impl Memory {
    /// The values, if they are on a GPU.
    pub(crate) fn gpu<E: Pod>(&self) -> Result<Slice<'_, E>> {
        match self {
            Memory::Gpu(Ok(buffer)) => Ok(buffer.read_as()?),
            Memory::Gpu(Err(refused)) => Err(EngineError::from(&**refused)),
            Memory::Host(_) => Err(misplaced("on a GPU", "in host memory")),
        }
    }

    /// The same for writing. Shared values are copied first.
    pub(crate) fn gpu_mut<E: Pod>(&mut self, gpu: &simclr_cuda::Device) -> Result<SliceMut<'_, E>> {
        if let Memory::Gpu(Ok(buffer)) = self
            && Arc::get_mut(buffer).is_none()
        {
            let mut copy = gpu.buffer::<u8>(buffer.len())?;
            gpu.copy(buffer.read(), copy.write())?;
            *buffer = Arc::new(copy);
        }
        match self {
            Memory::Gpu(Ok(buffer)) => Ok(Arc::get_mut(buffer).ok_or_else(shared)?.write_as()?),
            Memory::Gpu(Err(refused)) => Err(EngineError::from(&**refused)),
            Memory::Host(_) => Err(misplaced("on a GPU", "in host memory")),
        }
    }
}

/// Unreachable: callers make the buffer unique before they write.
fn shared() -> EngineError {
    EngineError::Value { op: "tensor", what: "values to be written are shared".to_owned() }
}

#[cfg(feature = "cuda")]
pub(crate) fn elsewhere() -> EngineError {
    misplaced("in host memory", "on a GPU")
}

#[cfg(feature = "cuda")]
fn misplaced(needed: &str, found: &str) -> EngineError {
    EngineError::Value { op: "tensor", what: format!("values {needed} are needed, these are {found}") }
}
