//! AMX: products of tiles of bf16 that are summed in f32.
//!
//! A tile register holds 16 rows of 64 bytes. One instruction multiplies tile A, 16 rows of 16 pairs of bf16, with tile
//! B, 16 rows of 16 pairs, and adds the 16 x 16 sums of products to a tile of f32: `c[i][j] += a[i][p] . b[p][j]` over
//! 16 pairs p. It does the work of 256 of AVX-512's pair products in 16 cycles.
//!
//! The instructions are written as assembly, since their intrinsics are not stable. Compilers use no tile registers on
//! their own, so that values stay in them from one block of assembly to the next.

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use crate::{Isa, Level};

mod stacked;

pub use stacked::Rows;

/// Rows of a tile, and f32 values or pairs of bf16 in each.
pub const SIDE: usize = 16;
/// Bytes of a row of a tile.
pub const ROW: usize = 64;

/// Bytes of a tile.
pub const TILE_BYTES: usize = SIDE * ROW;

/// Proof that the processor has AMX, and that the system allows this process to use it.
#[derive(Clone, Copy, Debug)]
pub struct Amx(());

impl Amx {
    /// The proof that `isa` is; `None` below [`Level::Amx`].
    pub fn of(isa: Isa) -> Option<Amx> {
        (isa.level() >= Level::Amx).then_some(Amx(()))
    }
}

/// The layout of the tile registers: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Layout {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static LAYOUT: Layout = {
    let mut layout =
        Layout { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let mut tile = 0;
    while tile < 8 {
        layout.row_bytes[tile] = ROW as u16;
        layout.rows[tile] = SIDE as u8;
        tile += 1;
    }
    layout
};

/// One side of a product: tiles in memory, and the bytes from one to the next.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// The first tile.
    pub start: *const u8,
    /// From a row of a tile to the next.
    pub pitch: usize,
    /// From a tile to its neighbour, which belongs to other sums.
    pub neighbour: usize,
    /// From a tile to the next that is added to the same sums.
    pub step: usize,
}

/// This thread's tile registers, ready for use: a block of 2 x 2 tiles of sums. Dropped, they are free again.
pub struct Tiles {
    // The registers are those of one thread.
    thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Prepares the registers. Their contents are arbitrary.
    ///
    /// # Safety
    ///
    /// This thread must hold no other value: the first to be dropped would take the registers from both.
    #[inline(always)]
    pub unsafe fn new(_: Amx) -> Tiles {
        // SAFETY: `Amx` is made of an `Isa` of this level, which exists only where `Isa::detect` found AMX and the
        // system allows it; the layout is valid for it.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const LAYOUT, options(nostack, readonly)) };
        Tiles { thread: PhantomData }
    }

    /// Sets all sums to 0.
    #[inline(always)]
    pub fn clear(&mut self) {
        // SAFETY: the registers are ready while `self` lives.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
        }
    }

    /// Adds the products of `steps` pairs of tiles of `a` and `b` to the sums: to tile (i, j) those of neighbour i of
    /// `a` and neighbour j of `b`, for all i < 2 and j < `N`, which is 1 or 2.
    ///
    /// # Safety
    ///
    /// 16 rows of 64 bytes must be valid for reading at `start + i * neighbour + s * step + row * pitch` of both sides,
    /// for all s < `steps`, i < 2 (of `b`: i < `N`).
    #[inline(always)]
    pub unsafe fn multiply<const N: usize>(&mut self, a: Side, b: Side, steps: usize) {
        const { assert!(N == 1 || N == 2) };
        if steps == 0 {
            return;
        }
        let a1 = a.start.wrapping_add(a.neighbour);
        let b1 = b.start.wrapping_add(b.neighbour);
        // SAFETY: the registers are ready while `self` lives; the caller vouches for the tiles.
        unsafe {
            if N == 2 {
                asm!(
                    "2:",
                    "tileloadd tmm4, [{a0} + {ap}]",
                    "tileloadd tmm6, [{b0} + {bp}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b1} + {bp}]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{a1} + {ap}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {a0}, {astep}",
                    "add {a1}, {astep}",
                    "add {b0}, {bstep}",
                    "add {b1}, {bstep}",
                    "dec {n}",
                    "jnz 2b",
                    a0 = inout(reg) a.start => _,
                    a1 = inout(reg) a1 => _,
                    ap = in(reg) a.pitch,
                    astep = in(reg) a.step,
                    b0 = inout(reg) b.start => _,
                    b1 = inout(reg) b1 => _,
                    bp = in(reg) b.pitch,
                    bstep = in(reg) b.step,
                    n = inout(reg) steps => _,
                    options(nostack, readonly),
                );
            } else {
                asm!(
                    "2:",
                    "tileloadd tmm4, [{a0} + {ap}]",
                    "tileloadd tmm6, [{b0} + {bp}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{a1} + {ap}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "add {a0}, {astep}",
                    "add {a1}, {astep}",
                    "add {b0}, {bstep}",
                    "dec {n}",
                    "jnz 2b",
                    a0 = inout(reg) a.start => _,
                    a1 = inout(reg) a1 => _,
                    ap = in(reg) a.pitch,
                    astep = in(reg) a.step,
                    b0 = inout(reg) b.start => _,
                    bp = in(reg) b.pitch,
                    bstep = in(reg) b.step,
                    n = inout(reg) steps => _,
                    options(nostack, readonly),
                );
            }
        }
    }

    /// Reads sums that [`Tiles::save`] has written, tiles (i, j) for all i < 2 and j < `N`, which is 1 or 2.
    ///
    /// # Safety
    ///
    /// 256 numbers must be valid for reading at `from + i * below + 256 j`, for all i < 2 and j < `N`.
    #[inline(always)]
    pub unsafe fn load<const N: usize>(&mut self, from: *const f32, below: usize) {
        const { assert!(N == 1 || N == 2) };
        let low = from.wrapping_add(below);
        // SAFETY: the registers are ready while `self` lives; the caller vouches for the numbers.
        unsafe {
            asm!(
                "tileloadd tmm0, [{top} + {pitch}]",
                "tileloadd tmm2, [{low} + {pitch}]",
                top = in(reg) from,
                low = in(reg) low,
                pitch = in(reg) ROW,
                options(nostack, readonly),
            );
            if N == 2 {
                asm!(
                    "tileloadd tmm1, [{top} + {pitch} + 1024]",
                    "tileloadd tmm3, [{low} + {pitch} + 1024]",
                    top = in(reg) from,
                    low = in(reg) low,
                    pitch = in(reg) ROW,
                    options(nostack, readonly),
                );
            }
        }
    }

    /// Writes the sums tile by tile, for [`Tiles::load`].
    ///
    /// # Safety
    ///
    /// 256 numbers must be valid for writing at `to + i * below + 256 j`, for all i < 2 and j < `N`.
    #[inline(always)]
    pub unsafe fn save<const N: usize>(&self, to: *mut f32, below: usize) {
        const { assert!(N == 1 || N == 2) };
        let low = to.wrapping_add(below);
        // SAFETY: the registers are ready while `self` lives; the caller vouches for the numbers.
        unsafe {
            asm!(
                "tilestored [{top} + {pitch}], tmm0",
                "tilestored [{low} + {pitch}], tmm2",
                top = in(reg) to,
                low = in(reg) low,
                pitch = in(reg) ROW,
                options(nostack),
            );
            if N == 2 {
                asm!(
                    "tilestored [{top} + {pitch} + 1024], tmm1",
                    "tilestored [{low} + {pitch} + 1024], tmm3",
                    top = in(reg) to,
                    low = in(reg) low,
                    pitch = in(reg) ROW,
                    options(nostack),
                );
            }
        }
    }

    /// Writes the 32 x 32 sums, row by row (those of tiles (i, 1) are as they were if `multiply` left them out).
    #[inline(always)]
    pub fn store(&self, to: &mut [f32; 4 * SIDE * SIDE]) {
        // SAFETY: the registers are ready while `self` lives; `to` has 32 rows of 32 numbers.
        unsafe {
            asm!(
                "tilestored [{to} + {pitch}], tmm0",
                "tilestored [{to} + {pitch} + 64], tmm1",
                "tilestored [{low} + {pitch}], tmm2",
                "tilestored [{low} + {pitch} + 64], tmm3",
                to = in(reg) to.as_mut_ptr(),
                low = in(reg) to.as_mut_ptr().wrapping_add(2 * SIDE * SIDE),
                pitch = in(reg) 2 * ROW,
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the registers are ready until here.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Transposes 16 x 16 units of 32 bits.
///
/// # Safety
///
/// The processor must have AVX-512 F.
#[inline(always)]
pub unsafe fn transpose(rows: [__m512; SIDE]) -> [__m512; SIDE] {
    // SAFETY: the caller's promise.
    unsafe {
        let pairs = |a, b| {
            let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
            let low = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            (low, _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
        };
        // Within lanes of four: rows 4i to 4i + 3 become columns.
        let mut lanes = rows;
        for i in (0..SIDE).step_by(4) {
            let low =
                (_mm512_unpacklo_ps(rows[i], rows[i + 1]), _mm512_unpacklo_ps(rows[i + 2], rows[i + 3]));
            let high =
                (_mm512_unpackhi_ps(rows[i], rows[i + 1]), _mm512_unpackhi_ps(rows[i + 2], rows[i + 3]));
            (lanes[i], lanes[i + 1]) = pairs(low.0, low.1);
            (lanes[i + 2], lanes[i + 3]) = pairs(high.0, high.1);
        }
        // Then the 4 x 4 lanes.
        let mut columns = lanes;
        for i in 0..4 {
            let (a, b, c, d) = (lanes[i], lanes[i + 4], lanes[i + 8], lanes[i + 12]);
            let (ab02, ab13) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            let (cd02, cd13) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
            columns[i] = _mm512_shuffle_f32x4::<0x88>(ab02, cd02);
            columns[i + 4] = _mm512_shuffle_f32x4::<0x88>(ab13, cd13);
            columns[i + 8] = _mm512_shuffle_f32x4::<0xdd>(ab02, cd02);
            columns[i + 12] = _mm512_shuffle_f32x4::<0xdd>(ab13, cd13);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Element;
    use half::bf16;

    /// Says past the test runner, which holds back what passing tests print, what was not tested.
    fn skipped(why: &str) {
        use std::io::Write as _;
        drop(writeln!(std::io::stderr(), "SKIPPED: {why}"));
    }

    #[test]
    fn tiles_multiply_pairs() {
        let Some(amx) = Amx::of(Isa::detect()) else {
            skipped("this processor has no AMX, or the system does not allow it");
            return;
        };
        // SAFETY: the only tiles of this thread.
        let mut tiles = unsafe { Tiles::new(amx) };
        const STEPS: usize = 3;
        let value = |i: usize| bf16::narrow((i.wrapping_mul(2_654_435_761) >> 7 & 15) as f32 - 7.0);
        // 32 rows of `STEPS` tiles, and `STEPS` times two tiles beside each other.
        let a: Vec<bf16> = (0..32 * 32 * STEPS).map(value).collect();
        let b: Vec<bf16> = (0..16 * 64 * STEPS).map(|i| value(i + 5)).collect();
        let pitch = ROW * STEPS;
        let rows = Side { start: a.as_ptr().cast(), pitch, neighbour: SIDE * pitch, step: ROW };
        let columns = Side { start: b.as_ptr().cast(), pitch: 2 * ROW, neighbour: ROW, step: SIDE * 2 * ROW };
        let mut out = [f32::NAN; 4 * SIDE * SIDE];
        for width in [2, 1] {
            tiles.clear();
            // SAFETY: the tiles are those of `a` and `b`.
            unsafe {
                match width {
                    2 => tiles.multiply::<2>(rows, columns, STEPS),
                    _ => tiles.multiply::<1>(rows, columns, STEPS),
                }
            }
            let below = 2 * SIDE * SIDE + 5;
            let mut saved = vec![f32::NAN; below + 2 * SIDE * SIDE];
            // SAFETY: two rows of two tiles, `below` apart, have room.
            unsafe {
                match width {
                    2 => tiles.save::<2>(saved.as_mut_ptr(), below),
                    _ => tiles.save::<1>(saved.as_mut_ptr(), below),
                }
                tiles.clear();
                match width {
                    2 => tiles.load::<2>(saved.as_ptr(), below),
                    _ => tiles.load::<1>(saved.as_ptr(), below),
                }
            }
            let untouched = saved.iter().filter(|value| value.is_nan()).count();
            assert_eq!(untouched, 5 + (2 - width) * 2 * SIDE * SIDE);
            tiles.store(&mut out);
            for (i, row) in out.chunks_exact(2 * SIDE).enumerate() {
                for (j, &got) in row[..width * SIDE].iter().enumerate() {
                    let product =
                        |p: usize| a[i * 32 * STEPS + p].widen() * b[(p / 2 * 32 + j) * 2 + p % 2].widen();
                    // Small whole numbers, so that every order of summation is exact.
                    assert_eq!(got, (0..32 * STEPS).map(product).sum::<f32>(), "{i}, {j}");
                }
            }
        }
    }

    #[test]
    fn sixteen_rows_are_transposed() {
        if Isa::detect().level() < Level::Avx512 {
            skipped("this processor has no AVX-512");
            return;
        }
        #[target_feature(enable = "avx512f")]
        fn run(from: &[f32; 256], to: &mut [f32; 256]) {
            // SAFETY: AVX-512 F is enabled, and 16 rows of 16 numbers exist.
            unsafe {
                let rows = std::array::from_fn(|i| _mm512_loadu_ps(from.as_ptr().add(i * SIDE)));
                for (i, row) in transpose(rows).into_iter().enumerate() {
                    _mm512_storeu_ps(to.as_mut_ptr().add(i * SIDE), row);
                }
            }
        }
        let from: [f32; 256] = std::array::from_fn(|i| i as f32);
        let mut to = [0.0; 256];
        // SAFETY: the processor has AVX-512, as asked above.
        unsafe { run(&from, &mut to) };
        for (i, &value) in to.iter().enumerate() {
            assert_eq!(value, from[i % SIDE * SIDE + i / SIDE]);
        }
    }
}
