//! A pool of a GPU's memory: in the steady state nothing is allocated from the driver.
//!
//! A pool reserves one long range of addresses, and maps memory to it as needed, so that memory freed by early layers
//! serves late ones whatever their sizes. Freed memory is reused immediately, by work that is started later on the same
//! stream, unless a captured step may still use it.

use std::fmt;
use std::ops::Range as Span;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{
    self, CUdevice_attribute, CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationGranularity_flags,
    CUmemAllocationProp, CUmemAllocationType, CUmemGenericAllocationHandle, CUmemLocation, CUmemLocationType,
};
use cudarc::driver::{CudaContext, CudaStream};
use simclr_kernels::buffer::arena::{Arena, Place};

use super::failed;
use crate::{CudaError, Memory, Result};

/// The least that is mapped together, where there is room for it, in bytes.
const STEP: usize = 64 << 20;

/// How much memory a device's buffers take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes in live buffers.
    pub live: usize,
    /// Bytes obtained from the driver: in live buffers or free for reuse.
    pub held: usize,
    /// The greatest value of `live` so far.
    pub peak: usize,
}

pub(super) struct Pool {
    context: Arc<CudaContext>,
    /// The stream of all work that uses the pool's memory.
    stream: Arc<CudaStream>,
    state: Mutex<State>,
}

struct State {
    arena: Arena,
    /// The first reserved address, and the number of reserved addresses.
    base: u64,
    length: usize,
    /// Memory mapped to the addresses, from the first on.
    mapped: Vec<(CUmemGenericAllocationHandle, usize)>,
    held: usize,
    granularity: usize,
    live: usize,
    peak: usize,
    /// The number of ranges and [`Hold`]s ever made, which serves as the time.
    clock: u64,
    /// When each existing hold was made.
    holds: Vec<u64>,
    /// Ranges that were dropped but are held: when each was live, and where it lies.
    withheld: Vec<(Span<u64>, Place, usize)>,
}

/// A part of a pool, given back when dropped.
pub(super) struct Range {
    pool: Arc<Pool>,
    /// When the range was taken, by the pool's clock.
    taken: u64,
    place: Place,
    address: u64,
    bytes: usize,
}

/// Prevents reuse of the memory of all ranges that were live when the hold was made, until the hold is dropped.
pub(super) struct Hold {
    pool: Arc<Pool>,
    made: u64,
}

impl Pool {
    /// A pool that reserves addresses for all of the GPU's memory and maps none yet, for work on `stream`.
    pub fn new(context: &Arc<CudaContext>, stream: &Arc<CudaStream>) -> Result<Pool> {
        let asking = failed("reserving addresses");
        context.bind_to_thread().map_err(&asking)?;
        let managed = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_ADDRESS_MANAGEMENT_SUPPORTED;
        if context.attribute(managed).map_err(&asking)? == 0 {
            let reason = "the driver does not support virtual memory management".to_owned();
            return Err(CudaError::Call { what: "reserving addresses", reason });
        }
        let total = context.total_mem().map_err(&asking)?;
        let (mut granularity, mut base) = (0, 0);
        // SAFETY: the properties are complete; the driver writes one number, then one address.
        unsafe {
            let properties = properties(context);
            let least = CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
            sys::cuMemGetAllocationGranularity(&mut granularity, &properties, least)
                .result()
                .map_err(&asking)?;
            let granularity = granularity.max(4096);
            let length = total.next_multiple_of(granularity);
            sys::cuMemAddressReserve(&mut base, length, granularity, 0, 0).result().map_err(&asking)?;
        }
        let granularity = granularity.max(4096);
        let length = total.next_multiple_of(granularity);
        let mut arena = Arena::default();
        arena.add(length);
        let state = State {
            arena,
            base,
            length,
            mapped: Vec::new(),
            held: 0,
            granularity,
            live: 0,
            peak: 0,
            clock: 0,
            holds: Vec::new(),
            withheld: Vec::new(),
        };
        Ok(Pool { context: context.clone(), stream: stream.clone(), state: Mutex::new(state) })
    }

    /// Another pool of the same GPU and stream.
    pub fn another(&self) -> Result<Pool> {
        Pool::new(&self.context, &self.stream)
    }

    /// Takes a range of `bytes`, whose contents are arbitrary.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Result<Range> {
        let mut state = self.lock();
        let out_of = |state: &State, reason: String| CudaError::OutOfMemory {
            wanted: bytes,
            live: state.live,
            held: state.held,
            reason,
        };
        let Some(place) = state.arena.take(bytes) else {
            return Err(out_of(&state, "the GPU does not have enough memory".to_owned()));
        };
        let end = place.offset + bytes.max(1);
        if end > state.held
            && let Err(error) = state.grow(&self.context, end)
        {
            state.arena.give_back(place, bytes);
            return Err(out_of(&state, error.to_string()));
        }
        state.live += bytes;
        state.peak = state.peak.max(state.live);
        let (taken, address) = (state.tick(), state.base + place.offset as u64);
        Ok(Range { pool: self.clone(), taken, place, address, bytes })
    }

    /// Prevents reuse of the memory of all live ranges, even once they are dropped.
    pub fn hold(self: &Arc<Self>) -> Hold {
        let mut state = self.lock();
        let made = state.tick();
        state.holds.push(made);
        Hold { pool: self.clone(), made }
    }

    pub fn usage(&self) -> MemoryUse {
        let state = self.lock();
        MemoryUse { live: state.live, held: state.held, peak: state.peak }
    }

    /// Returns all memory to the driver if no range is live. No work that used it may still run.
    pub fn trim(&self) -> Result<()> {
        let mut state = self.lock();
        if state.arena.is_idle() { state.unmap(&self.context) } else { Ok(()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the time and advances it.
    fn tick(&mut self) -> u64 {
        let now = self.clock;
        self.clock += 1;
        now
    }

    /// Whether a hold was made while a range with this lifetime was live.
    fn is_held(&self, life: &Span<u64>) -> bool {
        self.holds.iter().any(|made| life.contains(made))
    }

    /// Maps memory to the addresses up to offset `end`.
    fn grow(&mut self, context: &CudaContext, end: usize) -> Result<()> {
        let growing = failed("taking memory");
        context.bind_to_thread().map_err(&growing)?;
        let wanted = (end - self.held).next_multiple_of(self.granularity);
        let room = self.length - self.held;
        let generous = wanted.max(STEP.next_multiple_of(self.granularity)).min(room);
        // If the generous size does not fit, the needed one still may.
        if generous > wanted && self.map(context, generous).is_ok() {
            return Ok(());
        }
        self.map(context, wanted)
    }

    fn map(&mut self, context: &CudaContext, size: usize) -> Result<()> {
        let mapping = failed("taking memory");
        let at = self.base + self.held as u64;
        let mut handle = 0;
        // SAFETY: the properties are complete; `size` addresses from `at` on are reserved (`room` above), and nothing
        // is mapped to them yet.
        unsafe {
            let properties = properties(context);
            sys::cuMemCreate(&mut handle, size, &properties, 0).result().map_err(&mapping)?;
            let access = CUmemAccessDesc {
                location: properties.location,
                flags: CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
            };
            let mapped = sys::cuMemMap(at, size, 0, handle, 0).result();
            let allowed = mapped.and_then(|()| sys::cuMemSetAccess(at, size, &access, 1).result());
            if let Err(error) = allowed {
                if mapped.is_ok() {
                    let _ = sys::cuMemUnmap(at, size);
                }
                let _ = sys::cuMemRelease(handle);
                return Err(mapping(error));
            }
        }
        self.mapped.push((handle, size));
        self.held += size;
        Ok(())
    }

    fn unmap(&mut self, context: &CudaContext) -> Result<()> {
        let freeing = failed("giving memory back");
        context.bind_to_thread().map_err(&freeing)?;
        while let Some((handle, size)) = self.mapped.pop() {
            self.held -= size;
            // SAFETY: one call of `map` mapped `size` bytes at this address, and nothing uses them.
            unsafe {
                sys::cuMemUnmap(self.base + self.held as u64, size).result().map_err(&freeing)?;
                sys::cuMemRelease(handle).result().map_err(&freeing)?;
            }
        }
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Ranges keep their pool alive, so none is live, but work that used them may still run. Wait only for the
        // pool's stream: waiting for the whole context would break a capture of another device in this process.
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let idle = self.context.bind_to_thread().is_ok() && self.stream.synchronize().is_ok();
        if idle && state.unmap(&self.context).is_ok() {
            // SAFETY: exactly these addresses were reserved, and nothing is mapped to them. A failure cannot be
            // reported from a drop.
            let _ = unsafe { sys::cuMemAddressFree(state.base, state.length) };
        }
    }
}

/// The properties of allocations: memory of the GPU, not shared with other processes.
fn properties(context: &CudaContext) -> CUmemAllocationProp {
    // SAFETY: zero is a valid value of every field: no handle is requested, no flag is set.
    let mut properties: CUmemAllocationProp = unsafe { std::mem::zeroed() };
    properties.type_ = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location =
        CUmemLocation { type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: context.cu_device() };
    properties
}

impl Memory for Range {
    fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.live -= self.bytes;
        let life = self.taken..state.clock;
        if state.is_held(&life) {
            state.withheld.push((life, self.place, self.bytes));
        } else {
            state.arena.give_back(self.place, self.bytes);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.holds.retain(|made| *made != self.made);
        for (life, place, bytes) in std::mem::take(&mut state.withheld) {
            if state.is_held(&life) {
                state.withheld.push((life, place, bytes));
            } else {
                state.arena.give_back(place, bytes);
            }
        }
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x}", self.bytes, self.address)
    }
}
