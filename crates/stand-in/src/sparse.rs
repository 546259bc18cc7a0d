//! Memory of any size, of which only what is written exists.

use std::fmt;
use std::marker::PhantomData;

use simclr_cuda::{Memory, Slice, SliceMut};

/// Plain numbers, zeros at first: as many as there are addresses for, a page of memory behind each stretch that was
/// written. Whoever reaches beyond their beginning or end by up to 16 GB, as far as a number of 32 bits that has
/// wrapped around leads with values of 4 bytes, ends the program.
pub struct Sparse<T> {
    start: *mut u8,
    mapped: usize,
    len: usize,
    kind: PhantomData<T>,
}

const GUARD: usize = 16 << 30;
const PAGE: usize = 4096;

impl<T: Copy> Sparse<T> {
    /// So many zeros.
    pub fn zeros(len: usize) -> Sparse<T> {
        let bytes = (len * size_of::<T>()).max(1).next_multiple_of(PAGE);
        let mapped = bytes + 2 * GUARD;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping touches no memory of anybody else; its middle becomes accessible, and the advice
        // changes no contents.
        let start = unsafe {
            let start = libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0);
            assert!(start != libc::MAP_FAILED, "no {mapped} addresses: {}", std::io::Error::last_os_error());
            let start = start.cast::<u8>();
            let inside = start.add(GUARD).cast();
            let opened = libc::mprotect(inside, bytes, libc::PROT_READ | libc::PROT_WRITE);
            assert!(opened == 0, "no {bytes} bytes: {}", std::io::Error::last_os_error());
            // Large pages would be much memory for a few values.
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

    /// Replaces the values from the `first` on.
    pub fn put(&mut self, first: usize, values: &[T]) {
        assert!(first <= self.len && values.len() <= self.len - first, "{first} of {}", self.len);
        // SAFETY: so many values lie there, and the borrow is exclusive.
        unsafe { self.first().add(first).copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    }

    /// `len` values from the `first` on.
    pub fn part(&self, first: usize, len: usize) -> Vec<T> {
        assert!(first <= self.len && len <= self.len - first, "{first} of {}", self.len);
        // SAFETY: so many plain numbers lie there, any bits of which are one.
        unsafe { std::slice::from_raw_parts(self.first().add(first), len) }.to_vec()
    }

    /// To be read by kernels.
    pub fn read(&self) -> Slice<'_, T> {
        // SAFETY: the memory holds so many values, begins at a page and lives as long.
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
        // SAFETY: this was mapped so, and nobody uses it any more. There is nobody to tell a failure.
        let _ = unsafe { libc::munmap(self.start.cast(), self.mapped) };
    }
}

impl<T> fmt::Debug for Sparse<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sparse({} values)", self.len)
    }
}
