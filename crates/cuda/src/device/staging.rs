//! Pinned host memory, which the GPU copies from and to without the CPU.

use std::sync::Arc;

use cudarc::driver::CudaContext;
use cudarc::driver::result::{self, event};
use cudarc::driver::sys::{CUevent, CUevent_flags, CUevent_wait_flags, CUstream};

use super::failed;
use crate::Result;

/// Pinned host memory, as bytes, and the last copy from or to it.
pub(super) struct Pinned {
    context: Arc<CudaContext>,
    copied: Event,
    start: *mut u8,
    len: usize,
}

// SAFETY: a `Pinned` owns its memory exclusively, as a `Box<[u8]>` does.
unsafe impl Send for Pinned {}
// SAFETY: shared access only reads and waits.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Allocates `len` bytes of zeros.
    pub fn new(context: &Arc<CudaContext>, len: usize) -> Result<Pinned> {
        let pinning = failed("pinning host memory");
        let copied = Event::new(context)?;
        let len = len.max(1);
        // SAFETY: the memory has `len` bytes, and is initialised before anything reads it.
        let start = unsafe {
            let start = result::malloc_host(len, 0).map_err(&pinning)?.cast::<u8>();
            start.write_bytes(0, len);
            start
        };
        Ok(Pinned { context: context.clone(), copied, start, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Waits for the last copy, and returns the bytes.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        self.copied.wait()?;
        // SAFETY: `len` bytes are initialised, no copy is under way, and the borrow is exclusive.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.start, self.len) })
    }

    /// Copies its first `len` bytes to a device's address, in the order of `stream`. Returns before the copy is done.
    ///
    /// # Safety
    /// `len` bytes at the address must be writable.
    pub unsafe fn send(&mut self, len: usize, address: u64, stream: CUstream) -> Result<()> {
        let bytes = &self.bytes_mut()?[..len];
        // SAFETY: the bytes do not change until the event recorded below has happened; the address is the caller's
        // promise.
        unsafe { result::memcpy_htod_async(address, bytes, stream) }.map_err(failed("copying to the GPU"))?;
        self.copied.record(stream)
    }

    /// Starts copying `len` bytes from a device's address, in the order of `stream`. [`Pinned::bytes_mut`] waits for
    /// them.
    ///
    /// # Safety
    /// `len` bytes at the address must be readable.
    pub unsafe fn receive(&mut self, len: usize, address: u64, stream: CUstream) -> Result<()> {
        let bytes = &mut self.bytes_mut()?[..len];
        // SAFETY: nothing reads the bytes until the event recorded below has happened; the address is the caller's
        // promise.
        unsafe { result::memcpy_dtoh_async(bytes, address, stream) }
            .map_err(failed("copying from the GPU"))?;
        self.copied.record(stream)
    }

    /// Makes `stream` wait until the last copy has ended.
    pub fn hold(&self, stream: CUstream) -> Result<()> {
        self.copied.hold(stream)
    }

    /// Waits until the last copy has ended.
    pub fn wait(&self) -> Result<()> {
        self.copied.wait()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Wait only for its own copy: waiting for the whole context would break a capture of another device in this
        // process.
        if self.context.bind_to_thread().is_ok() && self.copied.wait().is_ok() {
            // SAFETY: the memory came from `malloc_host` and is freed once. A failure cannot be reported from a drop.
            let _ = unsafe { result::free_host(self.start.cast()) };
        }
    }
}

/// A point in a stream's work.
pub(super) struct Event {
    context: Arc<CudaContext>,
    event: CUevent,
}

// SAFETY: events may be used by any thread to which the context is bound.
unsafe impl Send for Event {}
// SAFETY: as above; shared access only waits, which the driver lets any number of threads do.
unsafe impl Sync for Event {}

impl Event {
    /// Creates an event that counts as happened.
    pub fn new(context: &Arc<CudaContext>) -> Result<Event> {
        let creating = failed("making an event");
        context.bind_to_thread().map_err(&creating)?;
        let event = event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(&creating)?;
        Ok(Event { context: context.clone(), event })
    }

    /// Makes the event happen once the work started on `stream` so far has ended.
    pub fn record(&mut self, stream: CUstream) -> Result<()> {
        // SAFETY: the event lives, and streams live as long as their device, whose context this is.
        unsafe { event::record(self.event, stream) }.map_err(failed("recording an event"))
    }

    /// Waits until the event has happened.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the event lives.
        unsafe { event::synchronize(self.event) }.map_err(failed("waiting for an event"))
    }

    /// Makes `stream` wait until the event has happened.
    pub fn hold(&self, stream: CUstream) -> Result<()> {
        let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: the event and the stream live.
        unsafe { result::stream::wait_event(stream, self.event, flags) }
            .map_err(failed("waiting for an event"))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the event is destroyed once; the driver frees it only after it has happened.
            let _ = unsafe { event::destroy(self.event) };
        }
    }
}

/// The most pieces of copies that may be under way together.
const SLOTS: usize = 4;
/// The most bytes of a piece. Longer copies are made piece by piece: pinned memory is taken from the system for good,
/// and while the GPU copies one piece, the host can copy the next.
const PIECE: usize = 32 << 20;

/// A ring of pinned memory for copies to and from the GPU.
pub(super) struct Staging {
    context: Arc<CudaContext>,
    slots: Vec<Pinned>,
    next: usize,
}

impl Staging {
    pub fn new(context: Arc<CudaContext>) -> Staging {
        Staging { context, slots: Vec::new(), next: 0 }
    }

    /// The place of the next slot, which is at least `len` bytes long.
    fn slot(&mut self, len: usize) -> Result<usize> {
        let place = self.next;
        if place == self.slots.len() {
            self.slots.push(Pinned::new(&self.context, len)?);
        }
        if self.slots[place].len() < len {
            self.slots[place] = Pinned::new(&self.context, len.next_power_of_two())?;
        }
        // Only once there is a slot: the next call may fare better.
        self.next = (place + 1) % SLOTS;
        Ok(place)
    }

    /// Copies bytes to a device's address, in the order of `stream`. Returns before the copies of the last pieces are
    /// done.
    ///
    /// # Safety
    /// `bytes.len()` bytes at the address must be writable.
    pub unsafe fn send(&mut self, bytes: &[u8], address: u64, stream: CUstream) -> Result<()> {
        for (piece, address) in bytes.chunks(PIECE).zip((address..).step_by(PIECE)) {
            let place = self.slot(piece.len())?;
            let slot = &mut self.slots[place];
            slot.bytes_mut()?[..piece.len()].copy_from_slice(piece);
            // SAFETY: the caller's promise, of which this is a part.
            unsafe { slot.send(piece.len(), address, stream) }?;
        }
        Ok(())
    }

    /// Copies bytes from a device's address, and waits for them.
    ///
    /// # Safety
    /// `bytes.len()` bytes at the address must be readable.
    pub unsafe fn receive(&mut self, address: u64, bytes: &mut [u8], stream: CUstream) -> Result<()> {
        let mut under_way = None;
        for (piece, address) in bytes.chunks_mut(PIECE).zip((address..).step_by(PIECE)) {
            let place = self.slot(piece.len())?;
            // SAFETY: the caller's promise, of which this is a part.
            unsafe { self.slots[place].receive(piece.len(), address, stream) }?;
            if let Some((place, piece)) = under_way.replace((place, piece)) {
                self.take(place, piece)?;
            }
        }
        under_way.map_or(Ok(()), |(place, piece)| self.take(place, piece))
    }

    /// Waits for a slot's copy, and copies its first bytes.
    fn take(&mut self, place: usize, to: &mut [u8]) -> Result<()> {
        to.copy_from_slice(&self.slots[place].bytes_mut()?[..to.len()]);
        Ok(())
    }
}
