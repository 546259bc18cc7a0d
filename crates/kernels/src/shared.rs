//! A result that several threads write, each its own part.

/// A pointer to numbers that other threads write too, elsewhere.
#[derive(Debug)]
pub struct SharedMut<T> {
    start: *mut T,
    len: usize,
}

// By hand: a derived form would ask the same of T.
impl<T> Clone for SharedMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SharedMut<T> {}

// SAFETY: the pointer is only used through what `at` and `slice` give, whose users promise to write nothing that
// another thread touches.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    /// Shares `data` for as long as the caller keeps it borrowed.
    pub fn new(data: &mut [T]) -> SharedMut<T> {
        SharedMut { start: data.as_mut_ptr(), len: data.len() }
    }

    /// The number at `offset`.
    #[inline(always)]
    pub fn at(self, offset: usize) -> *mut T {
        self.start.wrapping_add(offset)
    }

    /// The part from `offset` on.
    pub fn from(self, offset: usize) -> SharedMut<T> {
        assert!(offset <= self.len, "part of a shared slice");
        SharedMut { start: self.at(offset), len: self.len - offset }
    }

    /// The numbers from `offset` on, checked to exist.
    ///
    /// # Safety
    ///
    /// Nobody else may use them during 'a, for which the shared slice must be alive.
    pub unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [T] {
        assert!(len <= self.len && offset <= self.len - len, "part of a shared slice");
        // SAFETY: in bounds by the assertion, exclusive and alive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}
