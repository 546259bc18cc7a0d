//! The instruction sets that vector code is written for, detected at run time.
//!
//! An [`Isa`] proves that the processor has its instructions: the `unsafe` blocks of crates that use them rely on it.

#[cfg(target_arch = "x86_64")]
mod amx;

use std::fmt;

/// A level of vector instructions, proven present on this processor.
///
/// The inner value is private: an `Isa` above [`Isa::PORTABLE`] comes only from [`Isa::detect`] or [`Isa::forced`],
/// both of which ask the processor, so holding one is the proof that `unsafe` blocks rely on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Isa(Level);

/// A level of vector instructions, to choose an implementation by. Each level includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA (256-bit vectors).
    Avx2,
    /// AVX-512 F, BW, DQ and VL (512-bit vectors).
    Avx512,
    /// AVX-512 with BF16 dot products.
    Avx512Bf16,
    /// AMX's products of bf16 tiles, which the system must allow this process to use.
    Amx,
}

impl Level {
    /// All levels, in increasing order.
    pub const ALL: [Level; 5] = [Level::Portable, Level::Avx2, Level::Avx512, Level::Avx512Bf16, Level::Amx];

    /// The name of the level in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Bf16 => "avx512bf16",
            Level::Amx => "amx",
        }
    }
}

impl Isa {
    /// The portable level, which runs everywhere and specifies what the others compute.
    pub const PORTABLE: Isa = Isa(Level::Portable);

    /// Returns the highest level that this processor supports.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
            if bf16 && amx::allowed() {
                return Isa(Level::Amx);
            }
            if bf16 {
                return Isa(Level::Avx512Bf16);
            }
            if avx512 {
                return Isa(Level::Avx512);
            }
            if avx2 {
                return Isa(Level::Avx2);
            }
        }
        Isa::PORTABLE
    }

    /// Returns `level` if this processor supports it.
    pub fn forced(level: Level) -> Option<Isa> {
        (level <= Isa::detect().0).then_some(Isa(level))
    }

    /// Returns every level that this processor supports, portable first, for tests to iterate over.
    pub fn all() -> Vec<Isa> {
        Level::ALL.into_iter().filter_map(Isa::forced).collect()
    }

    /// Returns the lower of this level and `level`, for code that has no implementation above `level`.
    pub fn at_most(self, level: Level) -> Isa {
        Isa(self.0.min(level))
    }

    /// The level.
    pub fn level(self) -> Level {
        self.0
    }

    /// Runs `body` compiled for this instruction set.
    ///
    /// `body` should be a closure whose work is `#[inline(always)]`, so that it is vectorised at this level's
    /// width. Floating-point results do not depend on the level, since operations are neither contracted nor reordered.
    #[inline(always)]
    pub fn vectorize<R>(self, body: impl FnOnce() -> R) -> R {
        match self.0 {
            Level::Portable => body(),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` of this level exists only where `detect` found AVX2 and FMA.
            Level::Avx2 => unsafe { with_avx2(body) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` of this level exists only where `detect` found these AVX-512 parts.
            Level::Avx512 | Level::Avx512Bf16 | Level::Amx => unsafe { with_avx512(body) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => body(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
fn with_avx2<R>(body: impl FnOnce() -> R) -> R {
    body()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn with_avx512<R>(body: impl FnOnce() -> R) -> R {
    body()
}

impl Default for Isa {
    fn default() -> Self {
        Self::detect()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portable_is_always_there_and_levels_are_ordered() {
        let all = Isa::all();
        assert_eq!(all[0], Isa::PORTABLE);
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(all.last(), Some(&Isa::detect()));
        for isa in all {
            assert_eq!(isa.at_most(Level::Amx), isa);
            assert_eq!(isa.at_most(Level::Portable), Isa::PORTABLE);
            assert!(isa.at_most(Level::Avx2) <= isa && isa.at_most(Level::Avx2).level() <= Level::Avx2);
        }
    }

    #[test]
    fn vectorize_gives_the_same_bits_at_every_level() {
        let x: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
        let run = |isa: Isa| -> Vec<u32> {
            isa.vectorize(|| x.iter().map(|v| (v * 1.7 + 0.3).to_bits()).collect())
        };
        let expected = run(Isa::PORTABLE);
        assert!(Isa::all().into_iter().all(|isa| run(isa) == expected));
    }
}
