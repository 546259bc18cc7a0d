//! Slices of device memory, as kernels take them.

use std::marker::PhantomData;

use crate::Result;
use crate::launcher::expect;

/// Values that kernels may read.
#[derive(Debug)]
pub struct Slice<'a, T> {
    address: u64,
    len: usize,
    borrow: PhantomData<&'a T>,
}

impl<T> Clone for Slice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slice<'_, T> {}

/// Values that kernels may read and write, and that nothing else may access until they have run.
#[derive(Debug)]
pub struct SliceMut<'a, T> {
    address: u64,
    len: usize,
    borrow: PhantomData<&'a mut T>,
}

impl<'a, T> Slice<'a, T> {
    /// A slice of `len` values that begins at a device's `address`.
    ///
    /// # Safety
    /// The values must exist for `'a` and be initialised, and nothing may write them meanwhile except launches made
    /// before. The address must be a multiple of 256, or lie a multiple of 16 bytes into an allocation that begins at
    /// one.
    pub unsafe fn from_raw(address: u64, len: usize) -> Slice<'a, T> {
        Slice { address, len, borrow: PhantomData }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device address, for a kernel.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The `len` values that begin at index `first`.
    ///
    /// # Errors
    /// `Lengths` where the range is out of bounds or does not begin at a multiple of 16 bytes.
    pub fn part(self, first: usize, len: usize) -> Result<Slice<'a, T>> {
        let inside =
            first <= self.len && len <= self.len - first && (first * size_of::<T>()).is_multiple_of(16);
        expect("a part", inside, || format!("{len} of {} values, from {first} on", self.len))?;
        Ok(Slice { address: self.address + (first * size_of::<T>()) as u64, len, borrow: PhantomData })
    }
}

impl<'a, T> SliceMut<'a, T> {
    /// A slice of `len` values that begins at a device's `address`.
    ///
    /// # Safety
    /// As [`Slice::from_raw`], and nothing else may read or write the values for `'a`. They need not be initialised.
    pub unsafe fn from_raw(address: u64, len: usize) -> SliceMut<'a, T> {
        SliceMut { address, len, borrow: PhantomData }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device address, for a kernel.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The same slice, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> SliceMut<'_, T> {
        SliceMut { address: self.address, len: self.len, borrow: PhantomData }
    }

    /// The same values, for reading only.
    pub fn as_slice(&self) -> Slice<'_, T> {
        Slice { address: self.address, len: self.len, borrow: PhantomData }
    }
}
