//! Memory for a kernel's intermediate values, kept per thread and reused.
//!
//! After the first steps of a training run every request finds a buffer that is large enough, so the steady
//! state allocates nothing.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use crate::buffer::block::{ALIGNMENT, Block, HUGE_PAGE};

/// Buffers of at least this size consist of huge pages, if the system grants them.
const HUGE: usize = 512 << 10;

thread_local! {
    /// The free buffers of this thread.
    static FREE: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// A buffer on loan from the thread's store, to which it returns when dropped.
///
/// A guard rather than a function that takes a closure, because a closure's body is compiled on its own, without
/// the vector instructions of the function around it.
pub struct Scratch<T: bytemuck::Pod> {
    buffer: ManuallyDrop<Block>,
    len: usize,
    kind: PhantomData<T>,
}

/// Takes a buffer of `len` numbers, aligned to 64 bytes. Its contents are initialised but arbitrary: whatever an
/// earlier use left.
pub fn take<T: bytemuck::Pod>(len: usize) -> Scratch<T> {
    const { assert!(align_of::<T>() <= ALIGNMENT && size_of::<T>() > 0) };
    let bytes = len.saturating_mul(size_of::<T>());
    Scratch { buffer: ManuallyDrop::new(find(bytes)), len, kind: PhantomData }
}

impl<T: bytemuck::Pod> Deref for Scratch<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `find` returned a block of at least `len` numbers, initialised, aligned to 64 bytes, owned by `self`;
        // any bit pattern is a valid `Pod`.
        unsafe { std::slice::from_raw_parts(self.buffer.start().as_ptr().cast(), self.len) }
    }
}

impl<T: bytemuck::Pod> DerefMut for Scratch<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.buffer.start().as_ptr().cast(), self.len) }
    }
}

impl<T: bytemuck::Pod> Drop for Scratch<T> {
    fn drop(&mut self) {
        // SAFETY: the buffer is taken out once, here, and not used afterwards.
        let buffer = unsafe { ManuallyDrop::take(&mut self.buffer) };
        // While the thread exits, the store may be gone already: then the buffer is freed.
        let _ = FREE.try_with(|free| free.borrow_mut().push(buffer));
    }
}

/// Allocates a block of `bytes` bytes and some more.
fn new(bytes: usize) -> Block {
    let alignment = if bytes >= HUGE { HUGE_PAGE } else { ALIGNMENT };
    // Spare room, so that slowly growing requests do not allocate each time.
    let roomy = bytes.checked_add(bytes / 8).and_then(|roomy| roomy.checked_next_multiple_of(alignment));
    Block::zeroed(roomy.unwrap_or(usize::MAX).max(4096), alignment)
}

/// Returns the smallest free buffer that is large enough, or a new one.
fn find(bytes: usize) -> Block {
    let found = FREE.with(|free| {
        let mut free = free.borrow_mut();
        let fitting = (0..free.len()).filter(|&i| free[i].len() >= bytes).min_by_key(|&i| free[i].len());
        match fitting {
            Some(i) => Some(free.swap_remove(i)),
            None => {
                // All are too small: the new buffer replaces the largest rather than being kept beside it.
                let largest = (0..free.len()).max_by_key(|&i| free[i].len());
                if let Some(i) = largest {
                    free.swap_remove(i);
                }
                None
            }
        }
    });
    found.unwrap_or_else(|| new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_in_use_are_distinct_and_aligned() {
        let mut a = take::<f32>(1000);
        let mut b = take::<f32>(10);
        let mut c = take::<f64>(600_000);
        assert_eq!((a.len(), b.len(), c.len()), (1000, 10, 600_000));
        assert_eq!(a.as_ptr() as usize % 64, 0);
        assert_eq!(b.as_ptr() as usize % 64, 0);
        assert_eq!(c.as_ptr() as usize % HUGE_PAGE, 0);
        a.fill(1.0);
        b.fill(2.0);
        c.fill(3.0);
        assert!(a.iter().all(|&v| v == 1.0) && b.iter().all(|&v| v == 2.0));
    }

    #[test]
    fn a_buffer_is_used_again() {
        let first = take::<f32>(5000).as_ptr() as usize;
        let second = take::<f32>(4000).as_ptr() as usize;
        assert_eq!(first, second);
    }

    #[test]
    fn a_size_beyond_the_address_space_is_refused() {
        // With the spare room, rounded up, the first wraps to a few bytes modulo 2^64.
        for bytes in [usize::MAX / 9 * 8 + 8, usize::MAX - 1, usize::MAX] {
            let refused = std::panic::catch_unwind(|| drop(new(bytes))).unwrap_err();
            assert!(
                refused.downcast_ref::<String>().unwrap().contains("exceeds the address space"),
                "{bytes}"
            );
        }
    }
}
