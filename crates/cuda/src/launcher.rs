//! Launching kernels, on a GPU or on a stand-in for one.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;

use crate::{CudaError, Program, Result, Slice, SliceMut};

/// A kernel with its grid and arguments.
pub struct Launch<'a> {
    /// The program that contains the kernel.
    pub program: Program,
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks in each dimension.
    pub grid: [u32; 3],
    /// Threads of a block, which has one dimension.
    pub block: u32,
    /// The arguments, in the kernel's order.
    pub arguments: &'a [&'a dyn Argument],
}

/// A value that is passed to a kernel as its bytes in memory.
pub trait Argument {
    /// The address of the value on the host.
    fn address(&self) -> *const c_void;
}

impl<T: Copy> Argument for T {
    fn address(&self) -> *const c_void {
        std::ptr::from_ref(self).cast()
    }
}

/// Runs kernels in order: each begins when those before it have ended.
///
/// # Safety
/// [`Launcher::launch`] must run exactly the kernel asked for and touch no memory that the kernel would not. Memory
/// from [`Launcher::scratch`] and [`Launcher::upload`] must have the requested length, begin at a multiple of 256 and
/// stay valid until all launches made before it was dropped have ended.
pub unsafe trait Launcher {
    /// Starts a kernel.
    ///
    /// # Safety
    /// The arguments must match the kernel's parameters in order and type, and all memory that it reads or writes
    /// must exist and be borrowed by the caller: exclusively where the kernel writes, shared where it only reads.
    unsafe fn launch(&self, launch: &Launch) -> Result<()>;

    /// Memory for what one kernel leaves to the next. Its initial contents are arbitrary.
    fn scratch(&self, bytes: usize) -> Result<Box<dyn Memory>>;

    /// Memory that holds a copy of `bytes` when the next kernel runs.
    fn upload(&self, bytes: &[u8]) -> Result<Box<dyn Memory>>;
}

/// An owned range of a device's memory.
pub trait Memory: fmt::Debug {
    /// The device address of its first byte.
    fn address(&self) -> u64;
}

/// Memory for a number of values of `T` that one kernel leaves to the next.
#[derive(Debug)]
pub(crate) struct Scratch<T> {
    memory: Box<dyn Memory>,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Scratch<T> {
    pub fn new(gpu: &dyn Launcher, len: usize) -> Result<Scratch<T>> {
        // A saturated size fails: no device has that much memory.
        let memory = gpu.scratch(len.saturating_mul(size_of::<T>()))?;
        Ok(Scratch { memory, len, of: PhantomData })
    }

    pub fn address(&self) -> u64 {
        self.memory.address()
    }

    /// The values, to be written. The kernels of this crate write them before they read them.
    pub fn as_mut(&mut self) -> SliceMut<'_, T> {
        // SAFETY: the memory was allocated for `len` values of this type and is borrowed exclusively.
        unsafe { SliceMut::from_raw(self.memory.address(), self.len) }
    }

    pub fn as_ref(&self) -> Slice<'_, T> {
        // SAFETY: the memory was allocated for `len` values of this type; callers first launch a kernel that writes
        // them.
        unsafe { Slice::from_raw(self.memory.address(), self.len) }
    }
}

/// Builds a launch's arguments from values. Temporaries among them live as long as the `let` binding, as the borrow
/// checker ensures.
macro_rules! arguments {
    ($($value:expr),* $(,)?) => { &[$(&$value as &dyn crate::launcher::Argument),*] };
}
pub(crate) use arguments;

/// Threads of most blocks.
pub(crate) const BLOCK: u32 = 256;

/// A grid of blocks of [`BLOCK`] threads for a pass of `shares` work items, of which each thread does several: what
/// it reads once for the first serves the others.
pub(crate) fn grid(shares: usize) -> [u32; 3] {
    const EACH: usize = 4;
    const MOST: usize = 8192;
    [shares.div_ceil(EACH * BLOCK as usize).clamp(1, MOST) as u32, 1, 1]
}

/// A grid of at least `threads` threads.
pub(crate) fn exact_grid(kernel: &'static str, threads: usize) -> Result<[u32; 3]> {
    Ok([fits(kernel, threads.div_ceil(BLOCK as usize))?, 1, 1])
}

/// A grid with a thread for each of the `shares` work items of every image. Images lie along the second dimension,
/// where a block may have to do several.
pub(crate) fn image_grid(kernel: &'static str, batch: usize, shares: usize) -> Result<[u32; 3]> {
    const MOST: usize = 65_535;
    fits_image(kernel, shares)?;
    let [blocks, ..] = exact_grid(kernel, shares)?;
    Ok([blocks.max(1), batch.clamp(1, MOST) as u32, 1])
}

/// Checks a count of values or threads of one image, and returns it as kernels take it: they count in 32 bits and
/// divide by `Divisor`s within an image, and count in 64 bits across images.
pub(crate) fn fits_image(kernel: &'static str, count: usize) -> Result<u32> {
    // A whole number of blocks, so that even the last thread's number is below 2^31, as `Divisor` requires.
    const MOST: usize = 1 << 31;
    let what = || format!("{count} is more than the kernel can count in an image ({MOST})");
    expect(kernel, count <= MOST, what)?;
    Ok(count as u32)
}

/// Checks a count, and returns it as kernels take it.
pub(crate) fn fits(kernel: &'static str, count: usize) -> Result<u32> {
    // Indices are doubled and tripled in 32 bits.
    if count < 1 << 30 {
        return Ok(count as u32);
    }
    Err(CudaError::Lengths { kernel, what: format!("{count} is more than the kernel can count") })
}

/// Returns a `Lengths` error unless `holds`.
pub(crate) fn expect(kernel: &'static str, holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(CudaError::Lengths { kernel, what: what() }) }
}

/// Returns a `Lengths` error unless a slice is `expected` values long.
pub(crate) fn expect_len(kernel: &'static str, name: &str, len: usize, expected: usize) -> Result<()> {
    expect(kernel, len == expected, || format!("{name} has {len} values, {expected} are needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_counted_up_to_2_to_the_31() {
        assert_eq!(image_grid("pooling", 1 << 20, 1 << 31).unwrap(), [1 << 23, 65_535, 1]);
        let error = image_grid("pooling", 1, (1 << 31) + 1).unwrap_err().to_string();
        assert!(error.contains("2147483649 is more"), "{error}");
        assert_eq!(grid(1 << 36), [8192, 1, 1]);
    }
}
