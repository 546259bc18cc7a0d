//! Vectors of `f32` on the instruction sets that they are written for, detected once.
//!
//! The passes over a view are written once, over the trait [`Vector`], and instantiated for each instruction set.
//! All of its operations are exactly rounded, lane by lane, so that every form computes the same bits; [`portable`]
//! specifies them.
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

use std::fmt;

pub(crate) use aligned::Aligned;
pub(crate) use vector::{BLOCK, Vector, each, round_up};

/// A level of vector instructions, proven present on this processor: one above [`Isa::PORTABLE`] can only be had from
/// [`Isa::detect`] or [`Isa::all`], which ask the processor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Isa(Level);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Level {
    Portable,
    Avx2,
    Avx512,
}

impl Isa {
    /// Plain Rust, which runs everywhere and specifies what the others compute.
    pub const PORTABLE: Isa = Isa(Level::Portable);

    /// The best level that this processor has.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2");
            if avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
                return Isa(Level::Avx512);
            }
            if avx2 {
                return Isa(Level::Avx2);
            }
        }
        Isa::PORTABLE
    }

    /// Every level that this processor has, portable first.
    pub fn all() -> Vec<Isa> {
        let best = Isa::detect();
        [Level::Portable, Level::Avx2, Level::Avx512]
            .map(Isa)
            .into_iter()
            .filter(|&isa| isa <= best)
            .collect()
    }

    /// Runs `task` with the vectors of this level.
    pub(crate) fn run<T: Task>(self, task: T) -> T::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` of this level exists only where `detect` found AVX2.
            Level::Avx2 => unsafe { with_avx2(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` of this level exists only where `detect` found AVX-512 F and BW.
            Level::Avx512 => unsafe { with_avx512(task) },
            _ => task.run::<portable::Array>(),
        }
    }
}

impl Default for Isa {
    fn default() -> Self {
        Self::detect()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        })
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
