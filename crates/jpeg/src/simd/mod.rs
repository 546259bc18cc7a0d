//! The inverse transform, upsampling and colour conversion, vectorised where the processor allows.
//!
//! `portable` specifies the results; the other forms compute the same bits. This module contains all `unsafe` code of
//! the crate.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;
#[cfg(test)]
mod tests;

use simclr_isa::Isa;
#[cfg(target_arch = "x86_64")]
use simclr_isa::Level;

use crate::block::Coefficients;

/// Calls the implementation of a function for an instruction set.
macro_rules! dispatch {
    ($isa:expr, $name:ident($($argument:expr),*)) => {
        match $isa.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` of these levels exists only where AVX2 was detected.
            Level::Avx2 | Level::Avx512 | Level::Avx512Bf16 | Level::Amx => unsafe { avx2::$name($($argument),*) },
            _ => portable::$name($($argument),*),
        }
    };
}

/// Computes the samples of two blocks, by row and column, from their coefficients and quantisation steps: libjpeg's
/// `jidctint.c` in the 16-bit arithmetic of libjpeg-turbo.
#[inline]
pub(crate) fn inverse_dct(
    isa: Isa,
    blocks: [&Coefficients; 2],
    steps: [&[i16; 64]; 2],
    out: &mut [[u8; 64]; 2],
) {
    dispatch!(isa, inverse_dct(blocks, steps, out));
}

/// Doubles the number of samples, by weights of 3 to 1. `row` begins one sample before the first and has one more
/// after the last.
pub(crate) fn upsample_across(isa: Isa, row: &[u8], out: &mut [u8]) {
    dispatch!(isa, upsample_across(row, out));
}

/// Like [`upsample_across`], on the sum of `near` and `far` with weights of 3 to 1.
pub(crate) fn upsample_both(isa: Isa, near: &[u8], far: &[u8], out: &mut [u8]) {
    dispatch!(isa, upsample_both(near, far, out));
}

/// The mean of `near` and `far` with weights of 3 to 1, with `bias` added to the sum before the division by 4.
pub(crate) fn upsample_down(isa: Isa, near: &[u8], far: &[u8], bias: u16, out: &mut [u8]) {
    dispatch!(isa, upsample_down(near, far, bias, out));
}

/// Writes every sample twice.
pub(crate) fn repeat_across(row: &[u8], out: &mut [u8]) {
    portable::repeat_across(row, out);
}

/// Writes `count` pixels, red, green, blue, to the beginning of `out`, whose rest may be overwritten. The rows may be
/// read as far as whole vectors of 32 reach.
pub(crate) fn to_rgb(isa: Isa, luma: &[u8], cb: &[u8], cr: &[u8], count: usize, out: &mut [u8]) {
    dispatch!(isa, to_rgb(luma, cb, cr, count, out));
}

/// The sample of a block that consists of its mean alone.
#[inline]
pub(crate) fn mean(coefficient: i16, step: i16) -> u8 {
    let value = i32::from(coefficient.wrapping_mul(step));
    (((value + 4) >> 3) + 128).clamp(0, 255) as u8
}
