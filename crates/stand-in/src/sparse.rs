//! Memory of any size, of which only the written pages exist.

use std::fmt;
use std::marker::PhantomData;

use simclr_cuda::{Memory, Slice, SliceMut};

/// Plain numbers, initially zeros. There may be as many as there are addresses: only pages that are written take
/// memory. An access up to 16 GB before the beginning or beyond the end crashes the program: that is how far a 32-bit
/// index that wrapped around can be off with values of 4 bytes.
pub struct Sparse<T> {
    start: *mut u8,
    mapped: usize,
    len: usize,
    kind: PhantomData<T>,
}

const GUARD: usize = 16 << 30;
const PAGE: usize = 4096;

impl<T: Copy> Sparse<T> {
    /// Creates `len` zeros.
    pub fn zeros(len: usize) -> Sparse<T> {
        let bytes = (len * size_of::<T>()).max(1).next_multiple_of(PAGE);
        let mapped = bytes + 2 * GUARD;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping affects no other memory; its middle becomes accessible, and the advice changes no
        // contents.
        let start = unsafe {
            let start = libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0);
            assert!(start != libc::MAP_FAILED, "no {mapped} addresses: {}", std::io::Error::last_os_error());
            let start = start.cast::<u8>();
            let inside = start.add(GUARD).cast();
            let opened = libc::mprotect(inside, bytes, libc::PROT_READ | libc::PROT_WRITE);
            assert!(opened == 0, "no {bytes} bytes: {}", std::io::Error::last_os_error());
            // With huge pages, a few values would take much memory.
            #[cfg(target_os = "linux")]
            libc::madvise(inside, bytes, libc::MADV_NOHUGEPAGE);
            start
        };
        Sparse { start, mapped, len, kind: PhantomData }
    }

    fn first(&self) -> *mut T {
        // SAFETY: the mapping is longer than its guard.
        unsafe { self.start.add(GUARD).cast() }
    }

    /// Replaces the values from index `first` on.
    pub fn put(&mut self, first: usize, values: &[T]) {
        assert!(first <= self.len && values.len() <= self.len - first, "{first} of {}", self.len);
        // SAFETY: that many values lie there (checked above), and the borrow is exclusive.
        unsafe { self.first().add(first).copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    }

    /// The `len` values from index `first` on.
    pub fn part(&self, first: usize, len: usize) -> Vec<T> {
        assert!(first <= self.len && len <= self.len - first, "{first} of {}", self.len);
        // SAFETY: that many plain numbers lie there (checked above), and any bits are a valid number.
        unsafe { std::slice::from_raw_parts(self.first().add(first), len) }.to_vec()
    }

    /// To be read by kernels.
    pub fn read(&self) -> Slice<'_, T> {
        // SAFETY: the memory holds `len` values, begins at a page and lives as long as the borrow.
        unsafe { Slice::from_raw(self.first() as u64, self.len) }
    }

    /// To be written by kernels.
    pub fn write(&mut self) -> SliceMut<'_, T> {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { SliceMut::from_raw(self.first() as u64, self.len) }
    }
}

impl<T: Copy> Memory for Sparse<T> {
    fn address(&self) -> u64 {
        self.first() as u64
    }
}

impl<T> Drop for Sparse<T> {
    fn drop(&mut self) {
        // SAFETY: exactly this was mapped, and nothing uses it any more. A failure cannot be reported from a drop.
        let _ = unsafe { libc::munmap(self.start.cast(), self.mapped) };
    }
}

impl<T> fmt::Debug for Sparse<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sparse({} values)", self.len)
    }
}
