//! An aligned block of memory from the system, on huge pages if it is aligned to these.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use memmap2::MmapMut;

/// The size of a cache line and of an AVX-512 vector.
pub(crate) const ALIGNMENT: usize = 64;
/// The size of x86-64's large pages, which save address translations: blocks aligned to it ask the system for them.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// An owned block of bytes aligned to at least [`ALIGNMENT`].
#[derive(Debug)]
pub(crate) struct Block {
    start: NonNull<u8>,
    layout: Layout,
    /// What the block is part of, if it is not the allocator's.
    mapping: Option<MmapMut>,
}

// SAFETY: a `Block` owns its memory exclusively, as a `Box<[u8]>` does.
unsafe impl Send for Block {}
// SAFETY: shared access only reads.
unsafe impl Sync for Block {}

impl Block {
    /// Allocates a block of zeros.
    pub fn zeroed(bytes: usize, alignment: usize) -> Block {
        let layout = Block::layout(bytes, alignment);
        // SAFETY: the layout's size is at least `ALIGNMENT`, so it is not zero.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Block { start, layout, mapping: None }.advised()
    }

    /// Zeros on huge pages that the system provides when they are first used, by the thread that uses them. Returns
    /// `None` if the system refuses.
    pub fn mapped(bytes: usize) -> Option<Block> {
        let layout = Block::layout(bytes, HUGE_PAGE);
        // Mappings begin at any small page.
        let mut mapping = MmapMut::map_anon(layout.size().checked_add(HUGE_PAGE)?).ok()?;
        let skipped = mapping.as_ptr().addr().wrapping_neg() % HUGE_PAGE;
        let start = NonNull::from(&mut mapping[skipped..][..layout.size()]).cast();
        Some(Block { start, layout, mapping: Some(mapping) }.advised())
    }

    /// Handles a refused allocation of `bytes` as the standard library does.
    pub fn refused(bytes: usize) -> ! {
        handle_alloc_error(Block::layout(bytes, HUGE_PAGE))
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Asks for huge pages, if the block is aligned to them.
    fn advised(self) -> Block {
        #[cfg(target_os = "linux")]
        if self.layout.align() == HUGE_PAGE {
            // SAFETY: the range is exactly this allocation; advice changes no contents, and a refusal is harmless.
            unsafe { libc::madvise(self.start.as_ptr().cast(), self.len(), libc::MADV_HUGEPAGE) };
        }
        self
    }

    fn layout(bytes: usize, alignment: usize) -> Layout {
        // A block of no bytes still gets its own address.
        match Layout::from_size_align(bytes.max(ALIGNMENT), alignment) {
            Ok(layout) => layout,
            Err(_) => panic!("a buffer of {bytes} bytes exceeds the address space"),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.mapping.is_none() {
            // SAFETY: `start` came from the global allocator with this same layout and is freed once.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_block_is_aligned_and_zero_to_its_end() {
        for bytes in [1, HUGE_PAGE, 3 * HUGE_PAGE + 5] {
            let block = Block::mapped(bytes).unwrap();
            assert!(block.start().addr().get().is_multiple_of(HUGE_PAGE) && block.len() >= bytes);
            // SAFETY: the block has so many initialised bytes, and lives.
            let contents = unsafe { std::slice::from_raw_parts(block.start().as_ptr(), block.len()) };
            assert!(contents.iter().all(|&byte| byte == 0));
        }
        assert!(Block::mapped(isize::MAX as usize - 2 * HUGE_PAGE).is_none(), "more than any machine has");
    }
}
