//! Memory for a kernel's intermediate values, kept per thread and used again.
//!
//! After the first steps of a training run every request finds a buffer that is large enough, so the steady
//! state allocates nothing.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

/// A cache line, and the width of the widest vector.
const ALIGNMENT: usize = 64;

/// From this size on a buffer is aligned to, and asks the system for, huge pages.
const HUGE_PAGE: usize = 2 << 20;

thread_local! {
    /// The buffers of this thread that nobody is using.
    static FREE: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Calls `body` with a buffer of `len` numbers, aligned to 64 bytes, of this thread. Its content is
/// arbitrary but initialised: whatever an earlier use has left there.
///
/// Calls may be nested, and `body` may run other work on this thread that calls this in turn.
pub fn with<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    let buffer = take(len * size_of::<f32>());
    // SAFETY: `take` returns a buffer of at least so many bytes, initialised, aligned to 64, owned by this frame.
    let slice = unsafe { std::slice::from_raw_parts_mut(buffer.start.as_ptr().cast::<f32>(), len) };
    let result = body(slice);
    buffer.give_back();
    result
}

/// As [`with`], for 64-bit numbers.
pub fn with_f64<R>(len: usize, body: impl FnOnce(&mut [f64]) -> R) -> R {
    with(2 * len, |buffer| body(bytemuck::cast_slice_mut(buffer)))
}

struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

impl Buffer {
    fn new(bytes: usize) -> Buffer {
        let alignment = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        // Room to spare, so that slowly growing requests do not allocate each time.
        let size = (bytes + bytes / 8).next_multiple_of(alignment).max(4096);
        let layout = match Layout::from_size_align(size, alignment) {
            Ok(layout) => layout,
            Err(_) => panic!("a scratch buffer of {bytes} bytes exceeds the address space"),
        };
        // SAFETY: the size is at least 4096.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        #[cfg(target_os = "linux")]
        if alignment == HUGE_PAGE {
            // SAFETY: the range is exactly the allocation above; the advice changes nothing but speed.
            unsafe { libc::madvise(start.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
        }
        Buffer { start, layout }
    }

    fn give_back(self) {
        // While the thread ends the list may be gone already; then the buffer is simply freed.
        let _ = FREE.try_with(|free| free.borrow_mut().push(self));
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// The smallest free buffer that is large enough, or a new one.
fn take(bytes: usize) -> Buffer {
    let found = FREE.with(|free| {
        let mut free = free.borrow_mut();
        let fitting = (0..free.len())
            .filter(|&i| free[i].layout.size() >= bytes)
            .min_by_key(|&i| free[i].layout.size());
        match fitting {
            Some(i) => Some(free.swap_remove(i)),
            None => {
                // All are too small: the largest is replaced by the new one rather than kept beside it.
                let largest = (0..free.len()).max_by_key(|&i| free[i].layout.size());
                if let Some(i) = largest {
                    free.swap_remove(i);
                }
                None
            }
        }
    });
    found.unwrap_or_else(|| Buffer::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_buffers_are_distinct_and_aligned() {
        with(1000, |a| {
            with(10, |b| {
                with_f64(600_000, |c| {
                    assert_eq!((a.len(), b.len(), c.len()), (1000, 10, 600_000));
                    assert_eq!(a.as_ptr() as usize % 64, 0);
                    assert_eq!(b.as_ptr() as usize % 64, 0);
                    assert_eq!(c.as_ptr() as usize % HUGE_PAGE, 0);
                    a.fill(1.0);
                    b.fill(2.0);
                    c.fill(3.0);
                    assert!(a.iter().all(|&v| v == 1.0) && b.iter().all(|&v| v == 2.0));
                });
            });
        });
    }

    #[test]
    fn a_buffer_is_used_again() {
        let first = with(5000, |a| a.as_ptr() as usize);
        let second = with(4000, |a| a.as_ptr() as usize);
        assert_eq!(first, second);
    }

    #[test]
    fn a_panic_inside_loses_nothing_but_the_buffer() {
        let result = std::panic::catch_unwind(|| with(100, |_| panic!("expected")));
        assert!(result.is_err());
        assert_eq!(with(100, |a| a.len()), 100);
    }
}
