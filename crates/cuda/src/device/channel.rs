//! Batches that travel to the GPU while it works on those before them.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::CudaStream;

use super::staging::{Event, Pinned};
use super::{Device, DeviceBuffer, failed};
use crate::{Result, Slice};

/// One batch of bytes on its way: pinned memory that the host fills, and the GPU's copy of it. Two of them, in
/// turn, let copies overlap with work.
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
    /// `OutOfMemory` where the GPU has not as much, `Call` where the driver refuses.
    pub fn new(device: &Device, len: usize) -> Result<Channel> {
        device.refuse_in_capture("a channel")?;
        let context = &device.shared.context;
        let buffer = device.buffer(len)?;
        let mut used = Event::new(context)?;
        // Work that was started before may still use the memory that the buffer got.
        used.record(device.raw_stream())?;
        Ok(Channel {
            copies: context.new_stream().map_err(failed("making a stream"))?,
            pinned: Pinned::new(context, len)?,
            buffer,
            used,
            device: device.clone(),
        })
    }

    /// The most bytes of a batch.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Where the GPU's copy is.
    pub(super) fn address(&self) -> u64 {
        self.buffer.read().address()
    }

    /// The host's side, to be filled: once the batch before has left it.
    ///
    /// # Errors
    /// `Call` where the driver refuses.
    pub fn bytes(&mut self) -> Result<&mut [u8]> {
        self.device.bind()?;
        let len = self.buffer.len();
        Ok(&mut self.pinned.bytes_mut()?[..len])
    }

    /// Sends the bytes off, once work on the batch before, up to the last [`Channel::done`], has ended. Returns at
    /// once.
    ///
    /// # Errors
    /// `Call` where the driver refuses.
    pub fn send(&mut self) -> Result<()> {
        self.send_first(self.buffer.len())
    }

    /// Sends the first `len` bytes off; those after them are arbitrary when they arrive.
    pub(super) fn send_first(&mut self, len: usize) -> Result<()> {
        self.device.bind()?;
        let (len, stream) = (len.min(self.buffer.len()), self.copies.cu_stream());
        self.used.hold(stream)?;
        let to = self.buffer.write().address();
        // SAFETY: the buffer is at least so long, and lives as long as the channel, which waits for the copy before
        // it drops it.
        unsafe { self.pinned.send(len, to, stream) }
    }

    /// The GPU's copy: work that is started from now on waits until it has arrived.
    ///
    /// # Errors
    /// `Call` where the driver refuses.
    pub fn arrived(&self) -> Result<Slice<'_, u8>> {
        self.device.bind()?;
        self.pinned.hold(self.device.raw_stream())?;
        Ok(self.buffer.read())
    }

    /// What was started so far is all that needs the batch.
    ///
    /// # Errors
    /// `Call` where the driver refuses.
    pub fn done(&mut self) -> Result<()> {
        self.device.bind()?;
        self.used.record(self.device.raw_stream())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // The buffer goes back to the pool, which knows nothing of the stream of copies.
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
