//! Copying batches to the GPU while it works on earlier ones.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::staging::{Event, Pinned};
use super::{Device, DeviceBuffer, failed};
use crate::{Result, Slice};

/// Transfers one batch of bytes at a time: pinned memory that the host fills, and the GPU's copy of it. Two channels,
/// used in turn, let copies overlap with work.
pub struct Channel {
    device: Device,
    copies: Arc<CudaStream>,
    pinned: Pinned,
    buffer: DeviceBuffer<u8>,
    used: Event,
}

impl Channel {
    /// A channel for batches of up to `len` bytes.
    ///
    /// # Errors
    /// `OutOfMemory` where the GPU is out of memory, `Call` where the driver fails.
    pub fn new(device: &Device, len: usize) -> Result<Channel> {
        device.refuse_in_capture("a channel")?;
        let context = &device.shared.context;
        let buffer = device.buffer(len)?;
        let mut used = Event::new(context)?;
        // Earlier work may still use the memory that the buffer got.
        used.record(device.raw_stream())?;
        Ok(Channel {
            copies: context.new_stream().map_err(failed("making a stream"))?,
            pinned: Pinned::new(context, len)?,
            buffer,
            used,
            device: device.clone(),
        })
    }

    /// The greatest length of a batch in bytes.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// The address of the GPU's copy.
    pub(super) fn address(&self) -> u64 {
        self.buffer.read().address()
    }

    /// The pinned memory, to be filled. Waits until the previous batch has been copied from it.
    ///
    /// # Errors
    /// `Call` where the driver fails.
    pub fn bytes(&mut self) -> Result<&mut [u8]> {
        self.device.bind()?;
        let len = self.buffer.len();
        Ok(&mut self.pinned.bytes_mut()?[..len])
    }

    /// Starts copying the bytes to the GPU, once work on the previous batch, up to the last [`Channel::done`], has
    /// ended. Returns without waiting.
    ///
    /// # Errors
    /// `Call` where the driver fails.
    pub fn send(&mut self) -> Result<()> {
        self.send_first(self.buffer.len())
    }

    /// As [`Channel::send`], but copies only the first `len` bytes; those after them are arbitrary on the GPU.
    pub(super) fn send_first(&mut self, len: usize) -> Result<()> {
        self.device.bind()?;
        let (len, stream) = (len.min(self.buffer.len()), self.copies.cu_stream());
        self.used.hold(stream)?;
        let to = self.buffer.write().address();
        // SAFETY: the buffer has at least `len` bytes, and lives as long as the channel, which waits for the copy
        // before it drops the buffer.
        unsafe { self.pinned.send(len, to, stream) }
    }

    /// The GPU's copy. Work that is started from now on waits until the copy is complete.
    ///
    /// # Errors
    /// `Call` where the driver fails.
    pub fn arrived(&self) -> Result<Slice<'_, u8>> {
        self.device.bind()?;
        self.pinned.hold(self.device.raw_stream())?;
        Ok(self.buffer.read())
    }

    /// Declares that no work started later needs the batch: the next one may overwrite it after the work so far.
    ///
    /// # Errors
    /// `Call` where the driver fails.
    pub fn done(&mut self) -> Result<()> {
        self.device.bind()?;
        self.used.record(self.device.raw_stream())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // The buffer goes back to the pool, which orders reuse on the main stream only, not on that of the copies.
        if self.device.bind().is_ok() {
            let _ = self.pinned.wait();
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({:?})", self.buffer)
    }
}
