//! Vectors of `f32`, with one implementation for each instruction set.
//!
//! The passes over a view are written once, over the trait [`Vector`], and instantiated for each instruction set.
//! All of its operations are exactly rounded, lane by lane, so that every implementation computes the same bits;
//! [`portable`] specifies them.
//!
//! This module holds all `unsafe` of the crate.

mod aligned;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod kernels;
mod portable;
#[cfg(test)]
mod tests;
mod vector;

use simclr_isa::Isa;
#[cfg(target_arch = "x86_64")]
use simclr_isa::Level;

pub(crate) use aligned::Aligned;
pub(crate) use vector::{BLOCK, Vector, each, round_up};

/// Runs `task` with the vectors of `isa`.
pub(crate) fn run<T: Task>(isa: Isa, task: T) -> T::Output {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` of this level exists only where AVX2 was detected.
        Level::Avx2 => unsafe { with_avx2(task) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Isa` of these levels exists only where AVX-512 F and BW were detected.
        Level::Avx512 | Level::Avx512Bf16 | Level::Amx => unsafe { with_avx512(task) },
        _ => task.run::<portable::Array>(),
    }
}

/// Work over vectors of any width. `run` and all that it calls should be `#[inline(always)]`: only then do the
/// vectors stay in registers.
pub(crate) trait Task {
    /// What the work returns.
    type Output;

    /// Does the work with vectors of one kind.
    fn run<V: Vector>(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<T: Task>(task: T) -> T::Output {
    task.run::<avx2::F32x8>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avx512f,avx512bw")]
fn with_avx512<T: Task>(task: T) -> T::Output {
    task.run::<avx512::F32x16>()
}
