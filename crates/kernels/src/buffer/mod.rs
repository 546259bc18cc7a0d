//! Host memory for tensors: aligned, on huge pages if large, and recycled through a pool.

pub mod arena;
pub(crate) mod block;

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arena::{Arena, Place};
use block::{ALIGNMENT, Block, HUGE_PAGE};
use bytemuck::Pod;

/// Buffers of at least this size are parts of long stretches. Smaller ones, some of which live for a whole run, would
/// only fragment the stretches.
const LARGE: usize = 1 << 20;

/// Recycles host memory, so that training in its steady state neither allocates nor faults pages in.
///
/// Free small buffers are kept by exact size. Large ones are ranges of a few long stretches, so that the memory that
/// a tensor leaves serves tensors of any size.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    hollow: bool,
    free: Mutex<HashMap<usize, Vec<Block>>>,
    /// Free handles, to be reused: see [`Buffer`].
    handles: Mutex<Vec<Arc<Owned>>>,
    large: Mutex<Large>,
    live: AtomicUsize,
    /// Bytes held in small blocks, and in large ranges.
    held: [AtomicUsize; 2],
    peak: AtomicUsize,
}

/// Long stretches of memory; in a hollow pool, without the memory.
#[derive(Debug, Default)]
struct Large {
    arena: Arena,
    /// The memory of each stretch.
    stretches: Vec<Block>,
}

impl Large {
    /// Takes an initialised range of `bytes`, with its address, which is `None` in a hollow pool.
    fn take(&mut self, bytes: usize, hollow: bool) -> (Place, Option<NonNull<u8>>) {
        let place = self.arena.take(bytes).unwrap_or_else(|| self.grow(bytes, hollow));
        if hollow {
            return (place, None);
        }
        // SAFETY: the arena hands out ranges within the length with which the stretch was added.
        let start = unsafe { self.stretches[place.stretch].start().add(place.offset) };
        (place, Some(start))
    }

    /// Adds a stretch and takes a range of it.
    fn grow(&mut self, bytes: usize, hollow: bool) -> Place {
        let least = bytes.checked_next_multiple_of(HUGE_PAGE).unwrap_or(bytes);
        let wanted = self.arena.next_stretch(bytes);
        let mut len = wanted;
        if !hollow {
            let block = Block::mapped(wanted).or_else(|| {
                len = least;
                Block::mapped(least)
            });
            match block {
                Some(block) => self.stretches.push(block),
                None => Block::refused(least),
            }
        }
        self.arena.add(len);
        match self.arena.take(bytes) {
            Some(place) => place,
            None => unreachable!("the new stretch is long enough"),
        }
    }
}

impl Pool {
    /// Creates a pool that counts bytes like any other but has little memory: only the first MiB of a buffer exists.
    /// It serves to measure how much memory a computation would take.
    pub fn hollow() -> Pool {
        Pool { shared: Arc::new(Shared { hollow: true, ..Shared::default() }) }
    }

    /// Whether this is a [`Pool::hollow`] one.
    pub fn is_hollow(&self) -> bool {
        self.shared.hollow
    }

    /// Takes a buffer of `bytes` bytes. Its contents are initialised but arbitrary: whatever its last user left.
    ///
    /// # Panics
    ///
    /// If `bytes` exceeds the address space, unless the pool is a [`Pool::hollow`] one.
    pub fn take(&self, bytes: usize) -> Buffer {
        let shared = &*self.shared;
        let size = bytes.max(ALIGNMENT);
        let memory = if size < LARGE {
            let recycled = lock(&shared.free).get_mut(&size).and_then(Vec::pop);
            Memory::Small(recycled.unwrap_or_else(|| {
                shared.held[0].fetch_add(size, Ordering::Relaxed);
                Block::zeroed(size, ALIGNMENT)
            }))
        } else {
            let mut large = lock(&shared.large);
            let (place, start) = large.take(size, shared.hollow);
            shared.held[1].store(large.arena.used_in_all(), Ordering::Relaxed);
            match start {
                Some(start) => Memory::Range(place, start),
                None => Memory::Hollow(place, Block::zeroed(LARGE, ALIGNMENT)),
            }
        };
        let live = shared.live.fetch_add(size, Ordering::Relaxed) + size;
        shared.peak.fetch_max(live, Ordering::Relaxed);
        let owned = Owned { memory, size, bytes, pool: Some(self.clone()) };
        let handle = lock(&shared.handles).pop();
        Buffer(ManuallyDrop::new(match handle {
            Some(mut handle) => match Arc::get_mut(&mut handle) {
                Some(place) => {
                    *place = owned;
                    handle
                }
                None => Arc::new(owned),
            },
            None => Arc::new(owned),
        }))
    }

    /// Bytes currently in use by buffers of this pool.
    pub fn live_bytes(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// Bytes obtained from the system and not given back, in use or free.
    pub fn held_bytes(&self) -> usize {
        self.shared.held.iter().map(|held| held.load(Ordering::Relaxed)).sum()
    }

    /// The most bytes ever in use at once.
    pub fn peak_bytes(&self) -> usize {
        self.shared.peak.load(Ordering::Relaxed)
    }

    /// Gives free memory back to the system: small buffers, and the stretches if no large buffer is in use.
    pub fn trim(&self) {
        let small = std::mem::take(&mut *lock(&self.shared.free));
        let freed: usize = small.values().flatten().map(|block| block.len()).sum();
        self.shared.held[0].fetch_sub(freed, Ordering::Relaxed);
        let mut large = lock(&self.shared.large);
        if large.arena.is_idle() {
            *large = Large::default();
            self.shared.held[1].store(0, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer from a [`Pool`], to which it returns when its last clone is dropped.
///
/// The reference count is recycled too, so that a tensor allocates nothing at all once the pool is warm.
#[derive(Clone, Debug)]
pub struct Buffer(ManuallyDrop<Arc<Owned>>);

/// What all clones of a buffer share.
#[derive(Debug)]
struct Owned {
    memory: Memory,
    /// The bytes counted for it in the pool.
    size: usize,
    bytes: usize,
    /// The pool to return to; `None` in a free handle.
    pool: Option<Pool>,
}

#[derive(Debug)]
enum Memory {
    None,
    Small(Block),
    /// A range of a stretch that lives as long as any of its ranges.
    Range(Place, NonNull<u8>),
    /// A range without memory, and a block that stands in for its beginning.
    Hollow(Place, Block),
}

// SAFETY: an `Owned` owns its range of memory exclusively, as a `Box<[u8]>` does.
unsafe impl Send for Owned {}
// SAFETY: shared access only reads.
unsafe impl Sync for Owned {}

impl Buffer {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the buffer holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.bytes == 0
    }

    /// The contents as values of `T`, without the bytes beyond a whole number of values.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        const { assert!(align_of::<T>() <= ALIGNMENT && size_of::<T>() > 0) };
        // SAFETY: there are at least `len` initialised bytes, aligned for `T` (asserted above), and any bit pattern
        // is a `T` since it is `Pod`.
        unsafe { std::slice::from_raw_parts(self.0.start().as_ptr().cast(), self.len() / size_of::<T>()) }
    }

    /// The contents as mutable values of `T`; `None` while there are other clones.
    pub fn get_mut<T: Pod>(&mut self) -> Option<&mut [T]> {
        const { assert!(align_of::<T>() <= ALIGNMENT && size_of::<T>() > 0) };
        let owned = Arc::get_mut(&mut self.0)?;
        // SAFETY: as in `as_slice`, and `&mut self` without other clones is the only access.
        Some(unsafe {
            std::slice::from_raw_parts_mut(owned.start().as_ptr().cast(), owned.len() / size_of::<T>())
        })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the handle is taken out once, here, and not touched again.
        let mut handle = unsafe { ManuallyDrop::take(&mut self.0) };
        // Two last clones dropped at the same time may each see the other: then the handle is freed, and `Owned`'s drop
        // returns the memory.
        let Some(pool) = Arc::get_mut(&mut handle).and_then(Owned::give_back) else { return };
        lock(&pool.shared.handles).push(handle);
    }
}

impl Owned {
    fn len(&self) -> usize {
        match &self.memory {
            Memory::Hollow(_, block) => self.bytes.min(block.len()),
            _ => self.bytes,
        }
    }

    fn start(&self) -> NonNull<u8> {
        match &self.memory {
            Memory::None => NonNull::dangling(),
            Memory::Small(block) | Memory::Hollow(_, block) => block.start(),
            Memory::Range(_, start) => *start,
        }
    }

    /// Gives the memory back to its pool and returns the pool; does nothing the second time.
    fn give_back(&mut self) -> Option<Pool> {
        let pool = self.pool.take()?;
        let shared = &*pool.shared;
        shared.live.fetch_sub(self.size, Ordering::Relaxed);
        match std::mem::replace(&mut self.memory, Memory::None) {
            Memory::None => {}
            Memory::Small(block) => lock(&shared.free).entry(self.size).or_default().push(block),
            Memory::Range(place, _) | Memory::Hollow(place, _) => {
                lock(&shared.large).arena.give_back(place, self.size);
            }
        }
        Some(pool)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        for bytes in [4096, 3 << 20] {
            let pool = Pool::default();
            let mut first = pool.take(bytes);
            first.get_mut::<u8>().unwrap().fill(7);
            let address = first.as_slice::<u8>().as_ptr();
            drop(first);
            let second = pool.take(bytes);
            assert_eq!(second.as_slice::<u8>().as_ptr(), address);
            assert_eq!((pool.live_bytes(), pool.held_bytes(), pool.peak_bytes()), (bytes, bytes, bytes));
            pool.trim();
            assert_eq!((pool.live_bytes(), pool.held_bytes()), (bytes, bytes));
            drop(second);
            pool.trim();
            assert_eq!((pool.live_bytes(), pool.held_bytes()), (0, 0));
        }
    }

    #[test]
    fn what_a_large_buffer_leaves_serves_several_small_ones() {
        let pool = Pool::default();
        drop(pool.take(64 << 20));
        let mut parts: Vec<Buffer> = (0..4).map(|_| pool.take(16 << 20)).collect();
        for (i, part) in parts.iter_mut().enumerate() {
            part.get_mut::<u8>().unwrap().fill(i as u8);
        }
        assert!(
            parts.iter().enumerate().all(|(i, part)| part.as_slice::<u8>().iter().all(|&b| b == i as u8))
        );
        assert_eq!(pool.held_bytes(), 64 << 20);
    }

    #[test]
    fn a_hollow_pool_counts_what_it_does_not_have() {
        let pool = Pool::hollow();
        let (small, large) = (pool.take(4096), pool.take(1 << 40));
        assert_eq!((small.len(), large.len()), (4096, LARGE));
        assert_eq!(large.as_slice::<u8>().iter().map(|&b| u64::from(b)).sum::<u64>(), 0);
        assert_eq!((pool.live_bytes(), pool.peak_bytes()), (4096 + (1 << 40), 4096 + (1 << 40)));
        drop((small, large));
        drop(pool.take(1 << 40));
        assert_eq!((pool.live_bytes(), pool.held_bytes()), (0, 4096 + (1 << 40)));
    }

    #[test]
    fn a_buffer_is_written_by_its_only_clone_and_returns_with_the_last() {
        let pool = Pool::default();
        let mut first = pool.take(100);
        let second = first.clone();
        assert!(first.get_mut::<u8>().is_none());
        drop(first);
        assert_eq!(pool.live_bytes(), 100);
        drop(second);
        assert_eq!((pool.live_bytes(), lock(&pool.shared.handles).len()), (0, 1));
        let mut third = pool.take(200);
        assert!(third.get_mut::<u8>().is_some() && third.len() == 200);
        assert!(lock(&pool.shared.handles).is_empty());
    }

    #[test]
    fn buffers_are_aligned_and_zero_when_new() {
        let pool = Pool::default();
        for bytes in [0, 4, 100, 3 << 20, 5 << 20] {
            let buffer = pool.take(bytes);
            assert_eq!(buffer.as_slice::<f32>().as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(buffer.as_slice::<f32>().len(), bytes / 4);
            assert!(buffer.as_slice::<u8>().iter().all(|&b| b == 0));
            std::mem::forget(buffer);
        }
    }
}
