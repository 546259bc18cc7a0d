//! The inverse transform, upsampling and colours, in vectors where the processor has them.
//!
//! `portable` specifies what is computed; the other forms compute the same bits. This module holds all `unsafe` of
//! the crate.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;
#[cfg(test)]
mod tests;

use crate::block::Coefficients;

/// A level of vector instructions, proven present on this processor: one above [`Isa::PORTABLE`] can only be had from
/// [`Isa::detect`] or [`Isa::all`], which ask the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isa(Level);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

/// Calls the form of a function that a level stands for.
macro_rules! dispatch {
    ($isa:expr, $name:ident($($argument:expr),*)) => {
        match $isa.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` of this level exists only where `detect` found AVX2.
            Level::Avx2 => unsafe { avx2::$name($($argument),*) },
            Level::Portable => portable::$name($($argument),*),
        }
    };
}

impl Isa {
    /// Plain Rust, which runs everywhere and specifies what the others compute.
    pub const PORTABLE: Isa = Isa(Level::Portable);

    /// The best level that this processor has.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            return Isa(Level::Avx2);
        }
        Isa::PORTABLE
    }

    /// Every level that this processor has, portable first.
    pub fn all() -> Vec<Isa> {
        let mut all = vec![Isa::PORTABLE];
        all.extend(Some(Isa::detect()).filter(|&isa| isa != Isa::PORTABLE));
        all
    }

    /// The samples of two blocks, by row and column, of their coefficients and steps of quantisation: libjpeg's
    /// `jidctint.c` in the 16-bit arithmetic of libjpeg-turbo.
    #[inline]
    pub(crate) fn inverse_dct(
        self,
        blocks: [&Coefficients; 2],
        steps: [&[i16; 64]; 2],
        out: &mut [[u8; 64]; 2],
    ) {
        dispatch!(self, inverse_dct(blocks, steps, out));
    }

    /// Twice as many samples, weighted 3 to 1. `row` begins one sample before the first and has one more after the
    /// last.
    pub(crate) fn upsample_across(self, row: &[u8], out: &mut [u8]) {
        dispatch!(self, upsample_across(row, out));
    }

    /// As [`Isa::upsample_across`], of rows weighted 3 to 1.
    pub(crate) fn upsample_both(self, near: &[u8], far: &[u8], out: &mut [u8]) {
        dispatch!(self, upsample_both(near, far, out));
    }

    /// Rows weighted 3 to 1, with `bias` of 4 for rounding.
    pub(crate) fn upsample_down(self, near: &[u8], far: &[u8], bias: u16, out: &mut [u8]) {
        dispatch!(self, upsample_down(near, far, bias, out));
    }

    /// Every sample twice.
    pub(crate) fn repeat_across(self, row: &[u8], out: &mut [u8]) {
        portable::repeat_across(row, out);
    }

    /// `count` pixels, red, green, blue, to the beginning of `out`, whose rest may be written over. The rows may be
    /// read as far as whole vectors of 32 reach.
    pub(crate) fn to_rgb(self, luma: &[u8], cb: &[u8], cr: &[u8], count: usize, out: &mut [u8]) {
        dispatch!(self, to_rgb(luma, cb, cr, count, out));
    }
}

impl Default for Isa {
    fn default() -> Self {
        Self::detect()
    }
}

/// The sample of a block that is nothing but its mean.
#[inline]
pub(crate) fn mean(coefficient: i16, step: i16) -> u8 {
    let value = i32::from(coefficient.wrapping_mul(step));
    (((value + 4) >> 3) + 128).clamp(0, 255) as u8
}
