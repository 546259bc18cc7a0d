//! Host memory for tensors: aligned, on huge pages where large, recycled through a pool.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;

/// A cache line, and a whole AVX-512 vector.
const ALIGNMENT: usize = 64;
/// x86-64's large page: buffers from this size on start on one, and ask the kernel for it.
const HUGE_PAGE: usize = 2 << 20;

/// What a buffer of a hollow pool holds at most; larger ones only count as what they would be.
const HOLLOW: usize = 1 << 20;

/// An owned, initialised block of bytes aligned to at least 64.
#[derive(Debug)]
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    /// What it counts as: its length, except in a hollow pool.
    size: usize,
}

// SAFETY: a `Block` owns its memory exclusively, as a `Box<[u8]>` does.
unsafe impl Send for Block {}
// SAFETY: shared access only reads.
unsafe impl Sync for Block {}

impl Block {
    fn new(bytes: usize) -> Block {
        let alignment = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        // A block of no bytes still gets an address of its own.
        let Ok(layout) = Layout::from_size_align(bytes.max(ALIGNMENT), alignment) else {
            panic!("a buffer of {bytes} bytes exceeds the address space")
        };
        // SAFETY: the layout's size is at least `ALIGNMENT`, so it is not zero.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if bytes >= HUGE_PAGE {
            // SAFETY: the range was allocated just above; advice changes no contents, and a refusal is harmless.
            unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        Block { start, layout, size: layout.size() }
    }

    /// A block that counts as `bytes`, of which it has [`HOLLOW`] at most.
    fn hollow(bytes: usize) -> Block {
        let mut block = Block::new(bytes.min(HOLLOW));
        block.size = bytes;
        block
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `start` came from the global allocator with this very layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Recycles host memory, so that the steady state of training neither allocates nor faults pages in.
///
/// Blocks are kept by exact size: a network asks for the same sizes every step.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    hollow: bool,
    free: Mutex<HashMap<usize, Vec<Block>>>,
    live: AtomicUsize,
    held: AtomicUsize,
    peak: AtomicUsize,
}

impl Pool {
    /// A pool that counts like any other, with little memory behind it: of a buffer above a MiB only the first MiB exists. For finding
    /// out what a computation would take.
    pub fn hollow() -> Pool {
        Pool { shared: Arc::new(Shared { hollow: true, ..Shared::default() }) }
    }

    /// A buffer of `bytes` bytes. Its contents are initialised but arbitrary: whatever its last user left.
    pub fn take(&self, bytes: usize) -> Buffer {
        let size = bytes.max(ALIGNMENT);
        let recycled =
            self.shared.free.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&size).and_then(Vec::pop);
        let block = recycled.unwrap_or_else(|| {
            self.shared.held.fetch_add(size, Ordering::Relaxed);
            if self.shared.hollow { Block::hollow(size) } else { Block::new(size) }
        });
        let live = self.shared.live.fetch_add(size, Ordering::Relaxed) + size;
        self.shared.peak.fetch_max(live, Ordering::Relaxed);
        let bytes = bytes.min(block.layout.size());
        Buffer { block: ManuallyDrop::new(block), bytes, pool: self.clone() }
    }

    /// Bytes now in use by buffers of this pool.
    pub fn live_bytes(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// Bytes obtained from the system and not given back: those in use and those waiting.
    pub fn held_bytes(&self) -> usize {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// The most bytes ever in use at once.
    pub fn peak_bytes(&self) -> usize {
        self.shared.peak.load(Ordering::Relaxed)
    }

    /// Gives the memory that nobody uses back to the system.
    pub fn trim(&self) {
        let blocks = std::mem::take(&mut *self.shared.free.lock().unwrap_or_else(PoisonError::into_inner));
        let freed: usize = blocks.values().flatten().map(|block| block.size).sum();
        self.shared.held.fetch_sub(freed, Ordering::Relaxed);
    }
}

/// A buffer from a [`Pool`], to which it returns when dropped.
#[derive(Debug)]
pub struct Buffer {
    block: ManuallyDrop<Block>,
    bytes: usize,
    pool: Pool,
}

impl Buffer {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the buffer holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The contents as values of `T`; bytes beyond a whole number of them are left out.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        const { assert!(align_of::<T>() <= ALIGNMENT && size_of::<T>() > 0) };
        // SAFETY: the block has at least `bytes` initialised bytes, is aligned for `T` (asserted above), and any
        // bit pattern is a `T` since it is `Pod`.
        unsafe { std::slice::from_raw_parts(self.block.start.as_ptr().cast(), self.bytes / size_of::<T>()) }
    }

    /// The contents as values of `T`, for writing.
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        const { assert!(align_of::<T>() <= ALIGNMENT && size_of::<T>() > 0) };
        // SAFETY: as in `as_slice`, and `&mut self` is the only access.
        unsafe {
            std::slice::from_raw_parts_mut(self.block.start.as_ptr().cast(), self.bytes / size_of::<T>())
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the block is taken out once, here, and not touched again.
        let block = unsafe { ManuallyDrop::take(&mut self.block) };
        let size = block.size;
        self.pool.shared.live.fetch_sub(size, Ordering::Relaxed);
        self.pool
            .shared
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(size)
            .or_default()
            .push(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let pool = Pool::default();
        let first = pool.take(4096);
        let address = first.as_slice::<u8>().as_ptr();
        drop(first);
        let second = pool.take(4096);
        assert_eq!(second.as_slice::<u8>().as_ptr(), address);
        assert_eq!((pool.live_bytes(), pool.held_bytes(), pool.peak_bytes()), (4096, 4096, 4096));
        drop(second);
        pool.trim();
        assert_eq!((pool.live_bytes(), pool.held_bytes()), (0, 0));
    }

    #[test]
    fn a_hollow_pool_counts_what_it_does_not_have() {
        let pool = Pool::hollow();
        let (small, large) = (pool.take(4096), pool.take(1 << 40));
        assert_eq!((small.len(), large.len()), (4096, HOLLOW));
        assert_eq!(large.as_slice::<u8>().iter().map(|&b| u64::from(b)).sum::<u64>(), 0);
        assert_eq!((pool.live_bytes(), pool.peak_bytes()), (4096 + (1 << 40), 4096 + (1 << 40)));
        drop((small, large));
        drop(pool.take(1 << 40));
        assert_eq!((pool.live_bytes(), pool.held_bytes()), (0, 4096 + (1 << 40)));
    }

    #[test]
    fn buffers_are_aligned_and_zero_when_new() {
        let pool = Pool::default();
        for bytes in [0, 4, 100, 3 << 20] {
            let buffer = pool.take(bytes);
            assert_eq!(buffer.as_slice::<f32>().as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(buffer.as_slice::<f32>().len(), bytes / 4);
            assert!(buffer.as_slice::<u8>().iter().all(|&b| b == 0));
        }
    }
}
