//! The operations of a vector.

use std::ops::{Add, Div, Mul, Sub};

/// The lanes of the widest vector. Rows are padded to a multiple of this, so that no pass has a remainder.
pub(crate) const BLOCK: usize = 16;

/// The three channels of `$pixels`, each as `$value`, mapped by an expression.
///
/// Does what `map` would do. But a closure is compiled without the instruction set of its caller, and unless it is
/// inlined, the vectors leave their registers.
macro_rules! each {
    ($pixels:expr, $value:ident => $result:expr) => {{
        let [red, green, blue] = $pixels;
        [
            {
                let $value = red;
                $result
            },
            {
                let $value = green;
                $result
            },
            {
                let $value = blue;
                $result
            },
        ]
    }};
}
pub(crate) use each;

/// `length` rounded up to a whole number of blocks.
pub(crate) const fn round_up(length: usize) -> usize {
    length.next_multiple_of(BLOCK)
}

/// A vector of `f32` lanes, whose number divides [`BLOCK`].
///
/// Arithmetic is that of `f32`, lane by lane. No lane is ever NaN.
pub(crate) trait Vector:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// The number of lanes.
    const LANES: usize;

    /// The offsets from its source at which [`Vector::lookup`] reads each lane.
    type Index: Copy;

    /// `value` in every lane.
    fn splat(value: f32) -> Self;

    /// Loads the values that begin at `source`.
    ///
    /// # Safety
    /// [`Vector::LANES`] values can be read there.
    unsafe fn load(source: *const f32) -> Self;

    /// Writes the lanes to the memory that begins at `out`.
    ///
    /// # Safety
    /// [`Vector::LANES`] values can be written there.
    unsafe fn store(self, out: *mut f32);

    /// Loads the bytes that begin at `source`, as values from 0 to 255.
    ///
    /// # Safety
    /// [`Vector::LANES`] bytes can be read there.
    unsafe fn load_bytes(source: *const u8) -> Self;

    /// Loads the interleaved pixels that begin at `source`, as three vectors: reds, greens, blues.
    ///
    /// # Safety
    /// Three times [`Vector::LANES`] values can be read there.
    unsafe fn load_pixels(source: *const f32) -> [Self; 3];

    /// Writes pixels as interleaved bytes, red, green, blue, beginning at `out`: values in [0, 1] times 255, rounded
    /// half to even.
    ///
    /// # Safety
    /// Three times [`Vector::LANES`] bytes can be written there.
    unsafe fn store_pixels(pixels: [Self; 3], out: *mut u8);

    /// The smaller, lane by lane; the second where they are equal.
    fn min(self, other: Self) -> Self;

    /// The larger, lane by lane; the second where they are equal.
    fn max(self, other: Self) -> Self;

    /// `yes` where `self == other`, else `no`.
    fn if_equal(self, other: Self, yes: Self, no: Self) -> Self;

    /// `yes` where `self < other`, else `no`.
    fn if_less(self, other: Self, yes: Self, no: Self) -> Self;

    /// The magnitude.
    fn abs(self) -> Self;

    /// Loads the offsets that begin at `source`.
    ///
    /// # Safety
    /// [`Vector::LANES`] offsets can be read there.
    unsafe fn index(source: *const u32) -> Self::Index;

    /// Reads `source[index]` for each lane. All offsets must be below [`Vector::LANES`].
    ///
    /// # Safety
    /// [`Vector::LANES`] values can be read there.
    unsafe fn lookup(source: *const f32, index: Self::Index) -> Self;

    /// [`Vector::lookup`] with offsets below twice [`Vector::LANES`].
    ///
    /// # Safety
    /// Twice [`Vector::LANES`] values can be read there.
    unsafe fn lookup_wide(source: *const f32, index: Self::Index) -> Self;

    /// [`Vector::lookup`] with any offsets.
    ///
    /// # Safety
    /// A value can be read at each offset.
    unsafe fn gather(source: *const f32, index: Self::Index) -> Self;

    /// Clips to [0, 1].
    #[inline(always)]
    fn clip(self) -> Self {
        self.max(Self::splat(0.0)).min(Self::splat(1.0))
    }
}
