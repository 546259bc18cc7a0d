//! What a vector can do.

use std::ops::{Add, Div, Mul, Sub};

/// Lanes of the widest vector. Rows are padded to a multiple of it, so that no pass has a remainder.
pub(crate) const BLOCK: usize = 16;

/// The three channels of `$pixels`, each as `$value`, mapped by an expression.
///
/// What `map` would do, but a closure is compiled without the instruction set of its caller, and where it is not
/// inlined the vectors leave their registers.
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

/// Some `f32` side by side, their number a divisor of [`BLOCK`].
///
/// Arithmetic is that of `f32`, lane by lane. No lane is ever NaN.
pub(crate) trait Vector:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// The number of lanes.
    const LANES: usize;

    /// Where the lanes of [`Vector::lookup`] are read, relative to its place.
    type Index: Copy;

    /// `value` in every lane.
    fn splat(value: f32) -> Self;

    /// The values from `source` on.
    ///
    /// # Safety
    /// [`Vector::LANES`] values can be read there.
    unsafe fn load(source: *const f32) -> Self;

    /// Writes the lanes to `out` and on.
    ///
    /// # Safety
    /// [`Vector::LANES`] values can be written there.
    unsafe fn store(self, out: *mut f32);

    /// The bytes from `source` on, as 0 to 255.
    ///
    /// # Safety
    /// [`Vector::LANES`] bytes can be read there.
    unsafe fn load_bytes(source: *const u8) -> Self;

    /// Three times as many values from `source` on, dealt out in turn: reds, greens, blues.
    ///
    /// # Safety
    /// Three times [`Vector::LANES`] values can be read there.
    unsafe fn load_pixels(source: *const f32) -> [Self; 3];

    /// Writes pixels as bytes, red, green, blue in turn, from `out` on: values in [0, 1] times 255, rounded half to
    /// even.
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

    /// The offsets from `source` on.
    ///
    /// # Safety
    /// [`Vector::LANES`] offsets can be read there.
    unsafe fn index(source: *const u32) -> Self::Index;

    /// `source[index]` for each lane, all offsets being below [`Vector::LANES`].
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
