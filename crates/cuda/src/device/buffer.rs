//! Typed buffers on a GPU.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Pod;
use cudarc::driver::result;

use super::pool::Range;
use super::{Device, failed, lock};
use crate::launcher::{expect, expect_len};
use crate::{Memory, Result, Slice, SliceMut};

/// An owned buffer of values on a GPU, whose memory goes back to the pool when it is dropped.
pub struct DeviceBuffer<T> {
    range: Range,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Pod> DeviceBuffer<T> {
    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All values, to be read by kernels.
    pub fn read(&self) -> Slice<'_, T> {
        // SAFETY: the range has `len` values, begins at a multiple of 4096 and lives as long as the buffer; any bits
        // are a valid `T`, which is `Pod`.
        unsafe { Slice::from_raw(self.range.address(), self.len) }
    }

    /// All values, to be written by kernels.
    pub fn write(&mut self) -> SliceMut<'_, T> {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { SliceMut::from_raw(self.range.address(), self.len) }
    }
}

impl DeviceBuffer<u8> {
    /// All bytes as values of another type.
    ///
    /// # Errors
    /// `Lengths` where the bytes are not a whole number of values.
    pub fn read_as<T: Pod>(&self) -> Result<Slice<'_, T>> {
        let len = self.len_of::<T>()?;
        // SAFETY: `len` values lie in the range, which begins at a multiple of 4096; any bits are a valid `T`, which is
        // `Pod`.
        Ok(unsafe { Slice::from_raw(self.range.address(), len) })
    }

    /// All bytes as values of another type, to be written by kernels.
    ///
    /// # Errors
    /// As [`DeviceBuffer::read_as`].
    pub fn write_as<T: Pod>(&mut self) -> Result<SliceMut<'_, T>> {
        let len = self.len_of::<T>()?;
        // SAFETY: as above, and the borrow is exclusive.
        Ok(unsafe { SliceMut::from_raw(self.range.address(), len) })
    }

    fn len_of<T>(&self) -> Result<usize> {
        let size = size_of::<T>().max(1);
        let whole = self.len.is_multiple_of(size);
        expect("a buffer", whole, || format!("{} bytes are not whole values of {size}", self.len))?;
        Ok(self.len / size)
    }
}

impl<T> fmt::Debug for DeviceBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuffer({} values, {:?})", self.len, self.range)
    }
}

impl Device {
    /// A buffer of `len` arbitrary values.
    ///
    /// # Errors
    /// `OutOfMemory` where the GPU is out of memory.
    pub fn buffer<T: Pod>(&self, len: usize) -> Result<DeviceBuffer<T>> {
        self.bind()?;
        // A saturated size fails: no GPU has that much memory.
        let bytes = len.saturating_mul(size_of::<T>());
        Ok(DeviceBuffer { range: self.pool().take(bytes)?, len, values: PhantomData })
    }

    /// A buffer of zeros.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn zeros<T: Pod>(&self, len: usize) -> Result<DeviceBuffer<T>> {
        let mut buffer = self.buffer::<T>(len)?;
        self.clear(buffer.write())?;
        Ok(buffer)
    }

    /// A buffer of the given values.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub fn buffer_of<T: Pod>(&self, values: &[T]) -> Result<DeviceBuffer<T>> {
        let mut buffer = self.buffer::<T>(values.len())?;
        self.copy_to(values, buffer.write())?;
        Ok(buffer)
    }

    /// Sets every bit to 0.
    ///
    /// # Errors
    /// `Call` where the driver fails.
    pub fn clear<T: Pod>(&self, to: SliceMut<T>) -> Result<()> {
        self.bind()?;
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: these bytes are borrowed exclusively.
        unsafe { result::memset_d8_async(to.address(), 0, to.len() * size_of::<T>(), self.raw_stream()) }
            .map_err(failed("clearing a buffer"))
    }

    /// Copies values from the host, in stream order. Returns before they have arrived.
    ///
    /// # Errors
    /// `Lengths` where the lengths differ, `Call` where the driver fails or a step is being captured.
    pub fn copy_to<T: Pod>(&self, values: &[T], to: SliceMut<T>) -> Result<()> {
        expect_len("copying to the GPU", "the buffer", to.len(), values.len())?;
        self.refuse_in_capture("copying to the GPU")?;
        if values.is_empty() {
            return Ok(());
        }
        self.bind()?;
        let bytes = bytemuck::cast_slice(values);
        // SAFETY: `to` has as many bytes as `values`, borrowed exclusively.
        unsafe { lock(&self.shared.staging).send(bytes, to.address(), self.raw_stream()) }
    }

    /// Copies values to the host, and waits for the copy and all work before it.
    ///
    /// # Errors
    /// `Lengths` where the lengths differ, `Call` where the driver fails or a step is being captured.
    pub fn copy_from<T: Pod>(&self, from: Slice<T>, values: &mut [T]) -> Result<()> {
        expect_len("copying from the GPU", "the buffer", from.len(), values.len())?;
        self.refuse_in_capture("copying from the GPU")?;
        if values.is_empty() {
            return Ok(());
        }
        self.bind()?;
        let bytes = bytemuck::cast_slice_mut(values);
        // SAFETY: `from` has as many bytes as `values`, and is borrowed.
        unsafe { lock(&self.shared.staging).receive(from.address(), bytes, self.raw_stream()) }
    }

    /// The values of a slice, on the host.
    ///
    /// # Errors
    /// As [`Device::copy_from`].
    pub fn values<T: Pod>(&self, from: Slice<T>) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); from.len()];
        self.copy_from(from, &mut values)?;
        Ok(values)
    }

    /// Copies values on the GPU.
    ///
    /// # Errors
    /// `Lengths` where the lengths differ, `Call` where the driver fails.
    pub fn copy<T: Pod>(&self, from: Slice<T>, to: SliceMut<T>) -> Result<()> {
        expect_len("copying on the GPU", "the buffer", to.len(), from.len())?;
        if from.is_empty() {
            return Ok(());
        }
        self.bind()?;
        let bytes = from.len() * size_of::<T>();
        // SAFETY: both slices have that many bytes and are borrowed, `to` exclusively, so that they do not overlap.
        unsafe { result::memcpy_dtod_async(to.address(), from.address(), bytes, self.raw_stream()) }
            .map_err(failed("copying on the GPU"))
    }
}
