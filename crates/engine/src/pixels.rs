//! 8-bit pixels on a device, which a loader writes and a step reads.

use std::fmt;

use crate::memory::{Memory, Place};
use crate::tensor::count;
use crate::{Device, EngineError, Result};

/// 8-bit RGB images of one size on a device, (n, h, w, 3), rows from the top, channels interleaved.
///
/// They stay at one address for as long as they live, so that a captured step may read them. Writing them is not
/// part of such a step. On a GPU, writing returns immediately: work that is started later sees the new pixels, work
/// that was started before sees the old ones.
pub struct Pixels {
    shape: [usize; 4],
    memory: Memory,
    device: Device,
    /// Uploads them to a GPU; made by the first write.
    #[cfg(feature = "cuda")]
    upload: Option<Upload>,
}

/// The number of channels of an upload.
const WAYS: usize = 2;

/// Bytes in host memory or on a GPU.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Bytes<'a> {
    /// In host memory.
    Host(&'a [u8]),
    /// In a GPU's memory.
    #[cfg(feature = "cuda")]
    Gpu(simclr_cuda::Slice<'a, u8>),
}

impl<'a> Bytes<'a> {
    /// The bytes, which must be in host memory.
    pub(crate) fn host(self) -> Result<&'a [u8]> {
        match self {
            Bytes::Host(bytes) => Ok(bytes),
            #[cfg(feature = "cuda")]
            Bytes::Gpu(_) => Err(crate::memory::elsewhere()),
        }
    }
}

impl Pixels {
    /// Room for images of `shape`, (n, h, w, 3). Their values are arbitrary until written.
    ///
    /// # Errors
    /// [`EngineError::Shape`] for another number of channels, [`EngineError::OutOfMemory`] if a GPU does not have
    /// enough memory.
    pub fn new(device: &Device, shape: [usize; 4]) -> Result<Pixels> {
        if shape[3] != 3 {
            return Err(EngineError::shape("pixels", "(n, h, w, 3)", shape));
        }
        let memory = device.place().take(count(&shape));
        let pixels = Pixels {
            shape,
            memory,
            device: device.clone(),
            #[cfg(feature = "cuda")]
            upload: None,
        };
        pixels.bytes()?;
        Ok(pixels)
    }

    /// Bytes of GPU memory that `len` bytes of pixels take once they are written, including their upload buffers.
    pub fn needs_to_write(len: usize) -> usize {
        (1 + WAYS) * len
    }

    /// (n, h, w, 3).
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        count(&self.shape)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where they live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All bytes, in place.
    pub(crate) fn bytes(&self) -> Result<Bytes<'_>> {
        match self.device.place() {
            Place::Host(_) => Ok(Bytes::Host(self.memory.host()?)),
            #[cfg(feature = "cuda")]
            Place::Gpu(_) => Ok(Bytes::Gpu(self.memory.gpu()?)),
        }
    }

    /// Replaces all pixels. They go to a GPU through pinned memory, in parallel with its other work.
    ///
    /// # Errors
    /// [`EngineError::Shape`] for another number of bytes, [`EngineError::Device`] if the device fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() != self.len() {
            return Err(EngineError::shape("pixels", format!("{} bytes", self.len()), bytes.len()));
        }
        match self.device.place() {
            Place::Host(_) => {
                let to = self.memory.host_mut::<u8>(self.device.place())?;
                // Only the beginning of a dry device's memory exists.
                let there = to.len().min(bytes.len());
                to[..there].copy_from_slice(&bytes[..there]);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => {
                if self.upload.is_none() {
                    self.upload = Some(Upload::new(gpu, bytes.len())?);
                }
                match &mut self.upload {
                    Some(upload) => upload.write(&self.device, gpu, bytes, self.memory.gpu_mut(gpu)?),
                    None => Ok(()),
                }
            }
        }
    }

    /// The bytes for a GPU's kernels, for writing.
    #[cfg(feature = "cuda")]
    pub(crate) fn gpu_mut(&mut self, gpu: &simclr_cuda::Device) -> Result<simclr_cuda::SliceMut<'_, u8>> {
        self.memory.gpu_mut(gpu)
    }

    /// Copies all pixels to the host, once they are written.
    ///
    /// # Errors
    /// As [`Pixels::write`].
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len()];
        self.memory.read(self.device.place(), &mut bytes)?;
        Ok(bytes)
    }
}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pixels({:?}, {})", self.shape, self.device)
    }
}

/// Two channels to a GPU, used in turn: one is filled while the other is still in use.
#[cfg(feature = "cuda")]
struct Upload {
    channels: [simclr_cuda::Channel; WAYS],
    next: usize,
}

#[cfg(feature = "cuda")]
impl Upload {
    fn new(gpu: &simclr_cuda::Device, len: usize) -> Result<Upload> {
        let channel = || simclr_cuda::Channel::new(gpu, len);
        Ok(Upload { channels: [channel()?, channel()?], next: 0 })
    }

    fn write(
        &mut self,
        device: &Device,
        gpu: &simclr_cuda::Device,
        bytes: &[u8],
        to: simclr_cuda::SliceMut<u8>,
    ) -> Result<()> {
        let channel = &mut self.channels[self.next];
        self.next = (self.next + 1) % WAYS;
        device.copy_bytes(bytes, channel.bytes()?);
        channel.send()?;
        gpu.copy(channel.arrived()?, to)?;
        channel.done()?;
        Ok(())
    }
}
