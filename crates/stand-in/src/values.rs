//! Memory for emulated kernels.

use std::marker::PhantomData;

use simclr_cuda::{Memory, Slice, SliceMut};

/// Memory that begins as NaN, between two guards that are checked for writes on drop.
#[derive(Debug)]
pub struct Guarded {
    words: Vec<u64>,
    start: usize,
    bytes: usize,
}

const GUARD: usize = 512;

impl Guarded {
    /// Allocates `bytes` bytes.
    pub fn new(bytes: usize) -> Guarded {
        let words = vec![u64::MAX; (bytes + 2 * GUARD + 256).div_ceil(8)];
        let address = words.as_ptr() as usize;
        let start = (address + GUARD).next_multiple_of(256) - address;
        Guarded { words, start, bytes }
    }

    fn all(&self) -> &[u8] {
        // SAFETY: any memory may be read as bytes.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), 8 * self.words.len()) }
    }

    fn bytes(&self) -> &[u8] {
        &self.all()[self.start..self.start + self.bytes]
    }

    /// Fills the memory with `bytes`, which must have its length.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.bytes_mut().copy_from_slice(bytes);
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.start + self.bytes);
        // SAFETY: a `u64` may hold any bytes, and the borrow is exclusive.
        let all: &mut [u8] =
            unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), 8 * self.words.len()) };
        &mut all[start..end]
    }
}

impl Memory for Guarded {
    fn address(&self) -> u64 {
        self.bytes().as_ptr() as u64
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let all = self.all();
        let intact = all[..self.start].iter().chain(&all[self.start + self.bytes..]).all(|&b| b == 0xff);
        assert!(intact || std::thread::panicking(), "a kernel wrote beyond {} bytes", self.bytes);
    }
}

/// Values in emulated memory.
#[derive(Debug)]
pub struct Values<T> {
    memory: Guarded,
    len: usize,
    kind: PhantomData<T>,
}

impl<T: Copy> Values<T> {
    /// Unwritten values: NaN, if they are floats.
    pub fn fresh(len: usize) -> Values<T> {
        Values { memory: Guarded::new(len * size_of::<T>()), len, kind: PhantomData }
    }

    /// The given values.
    pub fn of(values: &[T]) -> Values<T> {
        let mut out = Values::fresh(values.len());
        // SAFETY: plain numbers may be read as bytes.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        out.memory.bytes_mut().copy_from_slice(bytes);
        out
    }

    /// A copy of the values.
    pub fn get(&self) -> Vec<T> {
        // SAFETY: the memory is aligned to 256 and holds `len` plain numbers, for which any bits are valid.
        unsafe { std::slice::from_raw_parts(self.memory.bytes().as_ptr().cast::<T>(), self.len) }.to_vec()
    }

    /// To be read by kernels.
    pub fn read(&self) -> Slice<'_, T> {
        // SAFETY: the memory holds `len` values and lives as long as the borrow.
        unsafe { Slice::from_raw(self.memory.address(), self.len) }
    }

    /// To be written by kernels.
    pub fn write(&mut self) -> SliceMut<'_, T> {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { SliceMut::from_raw(self.memory.bytes_mut().as_mut_ptr() as u64, self.len) }
    }
}
