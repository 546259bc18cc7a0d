//! A buffer of `f32` that is aligned to cache lines.

use std::ops::{Deref, DerefMut};

use super::BLOCK;

/// The values of a cache line, which is also the widest vector.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; BLOCK]);

/// The most lines that a buffer keeps when it needs fewer: 64 MiB.
const KEPT: usize = (64 << 20) / size_of::<Line>();

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
        let lines = length.div_ceil(BLOCK);
        // What a huge image took is not kept for others.
        if self.lines.capacity() > KEPT && lines <= KEPT {
            self.lines = Vec::new();
        }
        self.lines.resize(lines, Line([0.0; BLOCK]));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_no_more_than_usual_images_take() {
        let mut buffer = Aligned::default();
        buffer.resize((KEPT + 1) * BLOCK);
        assert_eq!(buffer.len(), (KEPT + 1) * BLOCK);
        buffer.resize(3 * BLOCK);
        assert!(buffer.len() == 3 * BLOCK && buffer.lines.capacity() <= KEPT);
        let kept = buffer.lines.capacity();
        buffer.resize(BLOCK);
        assert_eq!(buffer.lines.capacity(), kept);
    }
}
