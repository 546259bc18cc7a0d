//! An output of which several threads each write their own part.

/// A pointer to a slice in which other threads write too, each to a different part.
#[derive(Debug)]
pub struct SharedMut<T> {
    start: *mut T,
    len: usize,
}

// Not derived, since a derived implementation would require `T: Clone`.
impl<T> Clone for SharedMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedMut<T> {}

// SAFETY: the pointer is used only through the results of `at` and `slice`, whose users promise to write nothing
// that another thread touches.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    /// Shares `data`, which the caller must keep borrowed for as long as it is used.
    pub fn new(data: &mut [T]) -> SharedMut<T> {
        SharedMut { start: data.as_mut_ptr(), len: data.len() }
    }

    /// A pointer to the number at `offset`, unchecked.
    #[inline(always)]
    pub fn at(self, offset: usize) -> *mut T {
        self.start.wrapping_add(offset)
    }

    /// The part from `offset` on.
    pub fn from(self, offset: usize) -> SharedMut<T> {
        assert!(offset <= self.len, "part of a shared slice");
        SharedMut { start: self.at(offset), len: self.len - offset }
    }

    /// The `len` numbers from `offset` on, which are checked to exist.
    ///
    /// # Safety
    ///
    /// Nothing else may use these numbers during 'a, and the shared slice must be alive for 'a.
    pub unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [T] {
        assert!(len <= self.len && offset <= self.len - len, "part of a shared slice");
        // SAFETY: in bounds by the assertion, exclusive and alive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}
