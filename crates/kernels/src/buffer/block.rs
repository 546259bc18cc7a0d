//! An aligned block of memory from the system, on huge pages if it is aligned to these.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// The size of a cache line and of an AVX-512 vector.
pub(crate) const ALIGNMENT: usize = 64;
/// The size of x86-64's large pages, which save address translations: blocks aligned to it ask the system for them.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// An owned block of bytes aligned to at least [`ALIGNMENT`].
#[derive(Debug)]
pub(crate) struct Block {
    start: NonNull<u8>,
    layout: Layout,
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
        Block { start, layout }.advised()
    }

    /// Allocates untouched huge pages, NOT initialised. Returns `None` if the system refuses the allocation.
    pub fn untouched(bytes: usize) -> Option<Block> {
        let layout = Block::layout(bytes, HUGE_PAGE);
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        Some(Block { start, layout }.advised())
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
        // SAFETY: `start` came from the global allocator with this same layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
