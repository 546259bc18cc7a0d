//! How kernels are started, on a GPU or on what stands in for one.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;

use crate::{CudaError, Program, Result, Slice, SliceMut};

/// A kernel with its grid and arguments.
pub struct Launch<'a> {
    /// Where the kernel is.
    pub program: Program,
    /// Its name.
    pub kernel: &'static str,
    /// Blocks in each direction.
    pub grid: [u32; 3],
    /// Threads of a block, in one direction.
    pub block: u32,
    /// Its arguments, in their order.
    pub arguments: &'a [&'a dyn Argument],
}

/// A value that is handed to a kernel as it lies in memory.
pub trait Argument {
    /// Where it lies.
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
/// [`Launcher::launch`] must run exactly the kernel asked for and touch no memory that it would not; memory of
/// [`Launcher::scratch`] and [`Launcher::upload`] must be as long as was asked for, begin at a multiple of 256 and
/// stay until launches that were made before it was dropped have ended.
pub unsafe trait Launcher {
    /// Starts a kernel.
    ///
    /// # Safety
    /// The arguments must be those of the kernel, in their order and of their types, and every memory that it reads
    /// or writes must be there and lent to the caller as the kernel uses it.
    unsafe fn launch(&self, launch: &Launch) -> Result<()>;

    /// Memory for what one kernel leaves to the next. What it holds is arbitrary.
    fn scratch(&self, bytes: usize) -> Result<Box<dyn Memory>>;

    /// Memory that holds a copy of `bytes` when the next kernel runs.
    fn upload(&self, bytes: &[u8]) -> Result<Box<dyn Memory>>;
}

/// A stretch of a device's memory, owned.
pub trait Memory: fmt::Debug {
    /// Where it begins.
    fn address(&self) -> u64;
}

/// Memory for so many values of `T` between two kernels.
#[derive(Debug)]
pub(crate) struct Scratch<T> {
    memory: Box<dyn Memory>,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Scratch<T> {
    pub fn new(gpu: &dyn Launcher, len: usize) -> Result<Scratch<T>> {
        // No device has as much as does not fit into a `usize`.
        let memory = gpu.scratch(len.saturating_mul(size_of::<T>()))?;
        Ok(Scratch { memory, len, of: PhantomData })
    }

    pub fn address(&self) -> u64 {
        self.memory.address()
    }

    /// Its values. Kernels that are launched from here write them before they read them.
    pub fn as_mut(&mut self) -> SliceMut<'_, T> {
        // SAFETY: the memory was made for so many values of this type and is borrowed exclusively.
        unsafe { SliceMut::from_raw(self.memory.address(), self.len) }
    }

    pub fn as_ref(&self) -> Slice<'_, T> {
        // SAFETY: the memory was made for so many values of this type; callers launch what writes them first.
        unsafe { Slice::from_raw(self.memory.address(), self.len) }
    }
}

/// Values as a launch takes them. They live as long as what `let` binds: the borrow checker sees to it.
macro_rules! arguments {
    ($($value:expr),* $(,)?) => { &[$(&$value as &dyn crate::launcher::Argument),*] };
}
pub(crate) use arguments;

/// Threads of most blocks.
pub(crate) const BLOCK: u32 = 256;

/// A grid of blocks of [`BLOCK`] threads for so many shares of a pass, of which each thread does several: what it
/// has read once for the first serves the others.
pub(crate) fn grid(shares: usize) -> [u32; 3] {
    const EACH: usize = 4;
    const MOST: usize = 8192;
    [shares.div_ceil(EACH * BLOCK as usize).clamp(1, MOST) as u32, 1, 1]
}

/// A grid with a thread for each of so many.
pub(crate) fn exact_grid(kernel: &'static str, threads: usize) -> Result<[u32; 3]> {
    Ok([fits(kernel, threads.div_ceil(BLOCK as usize))?, 1, 1])
}

/// A grid with a thread for each of so many shares of every image: images lie along the second direction, where a
/// block may have to do several.
pub(crate) fn image_grid(kernel: &'static str, batch: usize, shares: usize) -> Result<[u32; 3]> {
    const MOST: usize = 65_535;
    fits_image(kernel, shares)?;
    let [blocks, ..] = exact_grid(kernel, shares)?;
    Ok([blocks.max(1), batch.clamp(1, MOST) as u32, 1])
}

/// A count of values or threads of one image, as kernels take it: within an image they count in 32 bits and divide
/// by `Divisor`s, from image to image they count in 64 bits.
pub(crate) fn fits_image(kernel: &'static str, count: usize) -> Result<u32> {
    // These are whole blocks: no thread of the last one has a number that a `Divisor` does not divide.
    const MOST: usize = 1 << 31;
    let what = || format!("{count} is more than it can count, which is {MOST}");
    expect(kernel, count <= MOST, what)?;
    Ok(count as u32)
}

/// A count as kernels take it.
pub(crate) fn fits(kernel: &'static str, count: usize) -> Result<u32> {
    // Indices are doubled and tripled in 32 bits.
    if count < 1 << 30 {
        return Ok(count as u32);
    }
    Err(CudaError::Lengths { kernel, what: format!("{count} is more than it can count") })
}

/// Refuses lengths that do not belong together.
pub(crate) fn expect(kernel: &'static str, holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(CudaError::Lengths { kernel, what: what() }) }
}

/// Refuses a slice that is not `expected` values long.
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
