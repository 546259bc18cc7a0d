//! Values that begin where a cache line does.

use std::ops::{Deref, DerefMut};

use super::BLOCK;

/// A cache line, and the widest vector.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; BLOCK]);

const _: () = assert!(size_of::<Line>() == size_of::<[f32; BLOCK]>());

/// A growing buffer of `f32`. A vector that begins at a whole number of blocks lies in one cache line: read from
/// two, it would take twice as long.
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
        // SAFETY: a line is `BLOCK` values and nothing else, as asserted beside it, and lines follow one another.
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
