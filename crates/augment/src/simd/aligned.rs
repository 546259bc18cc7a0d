//! A buffer of `f32` that is aligned to cache lines.

use std::ops::{Deref, DerefMut};

use super::BLOCK;

/// The values of a cache line, which is also the widest vector.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; BLOCK]);

const _: () = assert!(size_of::<Line>() == size_of::<[f32; BLOCK]>());

/// A growing buffer of `f32`. A vector that begins at a whole number of blocks lies in one cache line; reading it
/// from two would take twice as long.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
}

impl Aligned {
    /// Makes room for `length` values, rounded up to whole blocks; new ones are 0.
    pub fn resize(&mut self, length: usize) {
        self.lines.resize(length.div_ceil(BLOCK), Line([0.0; BLOCK]));
    }
}

impl Deref for Aligned {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        // SAFETY: a line is `BLOCK` values and nothing else, as asserted above, and the lines are contiguous.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * BLOCK) }
    }
}

impl DerefMut for Aligned {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * BLOCK) }
    }
}
