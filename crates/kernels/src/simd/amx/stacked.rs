//! Sums of products for images that are stacked: a tile is one pixel of 16 or 32 images, and the taps of a kernel row
//! read it while it is in a register.

use std::arch::asm;
use std::ops::Range;

use super::{ROW, SIDE, TILE_BYTES, Tiles};

/// Reads tiles whose rows follow each other, each from so many bytes on.
macro_rules! load {
    ($from:expr, $([$tile:literal, $offset:literal]),+) => {
        asm!(
            $(concat!("tileloadd ", $tile, ", [{from} + {row} + ", $offset, "]"),)+
            from = in(reg) $from,
            row = in(reg) ROW,
            options(nostack, readonly),
        )
    };
}

/// Writes tiles like [`load`].
macro_rules! store {
    ($to:expr, $([$tile:literal, $offset:literal]),+) => {
        asm!(
            $(concat!("tilestored [{to} + {row} + ", $offset, "], ", $tile),)+
            to = in(reg) $to,
            row = in(reg) ROW,
            options(nostack),
        )
    };
}

impl Tiles {
    /// Adds to four tiles of sums, one for each of four output pixels in a row, the products of source pixels of that
    /// row with `TAPS` neighbouring taps, at most 3: output pixel j reads source pixel `j * STEP + s` by tap s.
    ///
    /// Source pixel t is the tile `t * pixel` bytes from `pixels` on, tap s the s-th tile of `taps`; only the source
    /// pixels `inside` exist. Rows of tiles follow each other.
    ///
    /// # Safety
    ///
    /// 1024 bytes must be valid for reading at `pixels + t * pixel` for all t of `inside` below `3 * STEP + TAPS`, and
    /// at `taps + s * 1024` for all s below `TAPS`.
    #[inline(always)]
    pub unsafe fn correlate<const STEP: usize, const TAPS: usize>(
        &mut self,
        pixels: *const u8,
        pixel: usize,
        inside: Range<usize>,
        taps: *const u8,
    ) {
        const { assert!(STEP > 0 && TAPS > 0 && TAPS <= 3) };
        // SAFETY: the registers are ready while `self` lives; the caller vouches for the tiles.
        unsafe {
            load!(taps, ["tmm4", 0]);
            if TAPS > 1 {
                load!(taps, ["tmm5", 1024]);
            }
            if TAPS > 2 {
                load!(taps, ["tmm6", 2048]);
            }
            // Both loops are unrolled, so that all but `inside` is known.
            for t in 0..3 * STEP + TAPS {
                let reads =
                    |s: usize| s < TAPS && t >= s && (t - s).is_multiple_of(STEP) && (t - s) / STEP < 4;
                if !inside.contains(&t) || !(0..3).any(reads) {
                    continue;
                }
                load!(pixels.wrapping_add(t * pixel), ["tmm7", 0]);
                for s in 0..TAPS {
                    if reads(s) {
                        product((t - s) / STEP, s);
                    }
                }
            }
        }
    }

    /// Writes the four tiles of sums below each other, to 16 columns of `to` from `first` on.
    #[inline(always)]
    pub fn store_below(&self, to: &mut [[f32; 2 * SIDE]; 4 * SIDE], first: usize) {
        assert!(first <= SIDE, "16 columns from {first} on");
        // SAFETY: the registers are ready while `self` lives; `to` has 64 rows of 32 numbers.
        unsafe {
            asm!(
                "tilestored [{to} + {pitch}], tmm0",
                "tilestored [{to} + {pitch} + 2048], tmm1",
                "tilestored [{to} + {pitch} + 4096], tmm2",
                "tilestored [{to} + {pitch} + 6144], tmm3",
                to = in(reg) to.as_mut_ptr().cast::<f32>().wrapping_add(first),
                pitch = in(reg) 2 * ROW,
                options(nostack),
            );
        }
    }
}

/// A row of output pixels and the row of source pixels that they read.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The number of output pixels, and of source pixels.
    pub outputs: usize,
    pub inputs: usize,
    /// The source pixel that output pixel 0 reads by the first tap; it may be none.
    pub first: isize,
}

impl Tiles {
    /// Sets the sums of [`Tiles::correlate_rows`] to 0.
    #[inline(always)]
    pub fn clear_rows(&mut self) {
        self.clear();
        // SAFETY: the registers are ready while `self` lives.
        unsafe { asm!("tilezero tmm4", "tilezero tmm5", options(nostack, nomem)) };
    }

    /// Adds to two tiles of sums for each of `TAPS` neighbouring taps, at most 3, the products of a row of output
    /// pixels with the source pixels that they read: output pixel j reads source pixel `j * STEP + s + first` by tap s.
    ///
    /// Output pixel j consists of two tiles, j * 1024 bytes from `outputs` and from `outputs + below` on; source pixel
    /// t of the one t * 1024 bytes from `inputs` on.
    ///
    /// # Safety
    ///
    /// The tiles of all pixels of `rows` must be valid for reading.
    #[inline(always)]
    pub unsafe fn correlate_rows<const STEP: usize, const TAPS: usize>(
        &mut self,
        outputs: *const u8,
        below: usize,
        inputs: *const u8,
        rows: Rows,
    ) {
        const { assert!(STEP > 0 && TAPS > 0 && TAPS <= 3) };
        macro_rules! add {
            ($output:expr, $low:literal, $high:literal) => {
                asm!(
                    "tileloadd tmm6, [{low} + {row}]",
                    concat!("tdpbf16ps tmm", $low, ", tmm6, tmm7"),
                    "tileloadd tmm6, [{high} + {row}]",
                    concat!("tdpbf16ps tmm", $high, ", tmm6, tmm7"),
                    low = in(reg) $output,
                    high = in(reg) $output.wrapping_add(below),
                    row = in(reg) ROW,
                    options(nostack, readonly),
                )
            };
        }
        let output = |t: usize, s: usize| {
            let distance = usize::try_from(t as isize - s as isize - rows.first).ok()?;
            let read = distance.is_multiple_of(STEP) && distance / STEP < rows.outputs;
            read.then(|| outputs.wrapping_add(distance / STEP * TILE_BYTES))
        };
        for t in 0..rows.inputs {
            // SAFETY: the registers are ready while `self` lives; the caller vouches for the tiles of both rows.
            unsafe {
                load!(inputs.wrapping_add(t * TILE_BYTES), ["tmm7", 0]);
                if let Some(output) = output(t, 0) {
                    add!(output, 0, 1);
                }
                if TAPS > 1
                    && let Some(output) = output(t, 1)
                {
                    add!(output, 2, 3);
                }
                if TAPS > 2
                    && let Some(output) = output(t, 2)
                {
                    add!(output, 4, 5);
                }
            }
        }
    }

    /// Reads the sums that [`Tiles::save_rows`] has written.
    #[inline(always)]
    pub fn load_rows<const TAPS: usize>(&mut self, from: &[f32]) {
        assert!(TAPS <= 3 && from.len() >= TAPS * 2 * SIDE * SIDE, "two tiles for each of {TAPS} taps");
        let from = from.as_ptr();
        // SAFETY: the registers are ready while `self` lives; `from` has two tiles for each tap.
        unsafe {
            load!(from, ["tmm0", 0], ["tmm1", 1024]);
            if TAPS > 1 {
                load!(from, ["tmm2", 2048], ["tmm3", 3072]);
            }
            if TAPS > 2 {
                load!(from, ["tmm4", 4096], ["tmm5", 5120]);
            }
        }
    }

    /// Writes the sums of [`Tiles::correlate_rows`], tile by tile: for each tap the upper and the lower.
    #[inline(always)]
    pub fn save_rows<const TAPS: usize>(&self, to: &mut [f32]) {
        assert!(TAPS <= 3 && to.len() >= TAPS * 2 * SIDE * SIDE, "two tiles for each of {TAPS} taps");
        let to = to.as_mut_ptr();
        // SAFETY: the registers are ready while `self` lives; `to` has room for two tiles for each tap.
        unsafe {
            store!(to, ["tmm0", 0], ["tmm1", 1024]);
            if TAPS > 1 {
                store!(to, ["tmm2", 2048], ["tmm3", 3072]);
            }
            if TAPS > 2 {
                store!(to, ["tmm4", 4096], ["tmm5", 5120]);
            }
        }
    }
}

/// Adds the product of tile 7 and tile `4 + tap` to tile `sum`.
///
/// # Safety
///
/// The registers must be ready.
#[inline(always)]
unsafe fn product(sum: usize, tap: usize) {
    macro_rules! add {
        ($sum:literal, $tap:literal) => {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(concat!("tdpbf16ps tmm", $sum, ", tmm7, tmm", $tap), options(nostack, nomem));
            }
        };
    }
    match (sum, tap) {
        (0, 0) => add!(0, 4),
        (1, 0) => add!(1, 4),
        (2, 0) => add!(2, 4),
        (3, 0) => add!(3, 4),
        (0, 1) => add!(0, 5),
        (1, 1) => add!(1, 5),
        (2, 1) => add!(2, 5),
        (3, 1) => add!(3, 5),
        (0, 2) => add!(0, 6),
        (1, 2) => add!(1, 6),
        (2, 2) => add!(2, 6),
        (3, 2) => add!(3, 6),
        _ => {}
    }
}
