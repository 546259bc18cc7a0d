//! The processor's peak: the rate of independent multiply-adds in registers. No kernel computes faster, though one
//! that saves multiplications, such as Winograd's, may seem to, since its rate counts those that it saves.

use std::time::{Duration, Instant};

use crate::Cpu;
#[cfg(target_arch = "x86_64")]
use crate::Level;
#[cfg(target_arch = "x86_64")]
use crate::simd::amx::{Amx, ROW, SIDE, Side, Tiles};
use crate::simd::{Kernel, Simd, dispatch, lanes};

/// Independent sums: more than a multiply-add's latency times its throughput on any processor so far.
const CHAINS: usize = 12;
/// Multiply-adds of each chain in one piece, which takes about a millisecond.
const STEPS: usize = 200_000;
/// How long to repeat each measurement, of which the fastest repetition counts.
const PATIENCE: Duration = Duration::from_millis(60);

/// Measures f32 operations per second on all threads of `cpu`; a multiply-add counts as two.
pub fn f32_flops(cpu: &Cpu) -> f64 {
    flops(cpu, CHAINS * STEPS * lanes(cpu.isa), || dispatch(cpu.isa, MultiplyAdds))
}

/// Measures operations per second of bf16 products that accumulate in f32: of tiles with AMX, else of pairs. `None`
/// without AVX512_BF16.
pub fn bf16_flops(cpu: &Cpu) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    return match cpu.isa.level() {
        Level::Portable | Level::Avx2 | Level::Avx512 => None,
        // SAFETY: an `Isa` of this level exists only where `detect` found AVX-512 and its BF16 part.
        Level::Avx512Bf16 => Some(flops(cpu, CHAINS * STEPS * 2 * 16, || unsafe { bf16_dots() })),
        Level::Amx => {
            Amx::of(cpu.isa).map(|amx| flops(cpu, 4 * STEPS * SIDE * SIDE * 2 * SIDE, || bf16_tiles(amx)))
        }
    };
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = cpu;
        None
    }
}

/// The best rate of `piece`, which does `work` multiply-adds, on all threads.
fn flops(cpu: &Cpu, work: usize, piece: impl Fn() + Sync) -> f64 {
    let pieces = 4 * cpu.threads.count();
    let operations = (2 * pieces * work) as f64;
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed() < PATIENCE {
        let start = Instant::now();
        cpu.threads.run(pieces, |_| piece());
        best = best.min(start.elapsed().as_secs_f64());
    }
    operations / best
}

struct MultiplyAdds;

impl Kernel for MultiplyAdds {
    type Output = ();
    const BF16: bool = false;
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let factor = simd.splat(std::hint::black_box(0.5));
        let mut sums: [S::V; CHAINS] = std::array::from_fn(|i| simd.splat(std::hint::black_box(i as f32)));
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = simd.mul_add(*sum, factor, factor);
            }
        }
        std::hint::black_box(sums);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_dots() {
    use std::arch::x86_64::*;
    let ones = _mm512_set1_ps(std::hint::black_box(1.0));
    let pairs = _mm512_cvtne2ps_pbh(ones, ones);
    let mut sums: [__m512; CHAINS] = std::array::from_fn(|i| _mm512_set1_ps(std::hint::black_box(i as f32)));
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
        }
    }
    std::hint::black_box(sums);
}

/// Two by two tiles of sums, of tiles that stay in the first-level cache: loading them takes no time of its own.
#[cfg(target_arch = "x86_64")]
fn bf16_tiles(amx: Amx) {
    // SAFETY: the only tiles of this thread.
    let mut tiles = unsafe { Tiles::new(amx) };
    let ones = Ones([half::bf16::ONE; 4 * SIDE * SIDE]);
    let start = std::hint::black_box(ones.0.as_ptr().cast());
    let side = Side { start, pitch: ROW, neighbour: SIDE * ROW, step: 0 };
    tiles.clear();
    // SAFETY: `ones` holds two tiles of 16 rows of 32 values, at which every step begins.
    unsafe { tiles.multiply::<2>(side, side, STEPS) };
}

/// Two tiles on their own cache lines.
#[cfg(target_arch = "x86_64")]
#[repr(align(64))]
struct Ones([half::bf16; 4 * SIDE * SIDE]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cpu;
    use crate::{Isa, Level};

    #[test]
    fn every_level_has_a_rate() {
        for isa in Isa::all() {
            let cpu = cpu(isa, 1);
            let rate = f32_flops(&cpu);
            assert!(rate.is_finite() && rate > 0.0, "{rate}");
            assert_eq!(bf16_flops(&cpu).is_some(), isa.level() >= Level::Avx512Bf16);
        }
    }
}
