//! A result that several threads write, each its own part.

/// A pointer to numbers that other threads write too, elsewhere.
#[derive(Clone, Copy)]
pub struct SharedMut {
    start: *mut f32,
    len: usize,
}

// SAFETY: the pointer is only used through `at`, whose users promise to write nothing that another thread touches.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    /// Shares `data` for as long as the caller keeps it borrowed.
    pub fn new(data: &mut [f32]) -> SharedMut {
        SharedMut { start: data.as_mut_ptr(), len: data.len() }
    }

    /// The number at `offset`.
    #[inline(always)]
    pub fn at(self, offset: usize) -> *mut f32 {
        self.start.wrapping_add(offset)
    }

    /// The part from `offset` on.
    pub fn from(self, offset: usize) -> SharedMut {
        assert!(offset <= self.len, "part of a shared slice");
        SharedMut { start: self.at(offset), len: self.len - offset }
    }

    /// The numbers from `offset` on, checked to exist.
    ///
    /// # Safety
    ///
    /// Nobody else may use them during 'a, for which the shared slice must be alive.
    pub unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [f32] {
        assert!(len <= self.len && offset <= self.len - len, "part of a shared slice");
        // SAFETY: in bounds by the assertion, exclusive and alive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}
