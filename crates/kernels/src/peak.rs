//! The processor's peak: the rate of independent multiply-adds in registers. No kernel computes faster, though one
//! that saves multiplications, such as Winograd's, may seem to, since its rate counts those that it saves.

use std::time::{Duration, Instant};

use crate::simd::{Kernel, Simd, dispatch, lanes};
use crate::{Cpu, Level};

/// Independent sums: more than a multiply-add's latency times its throughput on any processor so far.
const CHAINS: usize = 12;
/// Multiply-adds of each chain in one piece, which takes about a millisecond.
const STEPS: usize = 200_000;
/// How long to repeat each measurement, of which the fastest repetition counts.
const PATIENCE: Duration = Duration::from_millis(60);

/// Measures f32 operations per second on all threads of `cpu`; a multiply-add counts as two.
pub fn f32_flops(cpu: &Cpu) -> f64 {
    flops(cpu, lanes(cpu.isa), || dispatch(cpu.isa, MultiplyAdds))
}

/// Measures operations per second of bf16 pair dot products that accumulate in f32. `None` without AVX512_BF16.
pub fn bf16_flops(cpu: &Cpu) -> Option<f64> {
    if cpu.isa.level() != Level::Avx512Bf16 {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: an `Isa` of this level exists only where `detect` found AVX-512 and its BF16 part.
        Some(flops(cpu, 2 * 16, || unsafe { bf16_dots() }))
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// The best rate of `piece`, which does `CHAINS * STEPS` multiply-adds of `lanes` numbers, on all threads.
fn flops(cpu: &Cpu, lanes: usize, piece: impl Fn() + Sync) -> f64 {
    let pieces = 4 * cpu.threads.count();
    let operations = (2 * pieces * CHAINS * STEPS * lanes) as f64;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::cpu;

    #[test]
    fn every_level_has_a_rate() {
        for isa in Isa::all() {
            let cpu = cpu(isa, 1);
            let rate = f32_flops(&cpu);
            assert!(rate.is_finite() && rate > 0.0, "{rate}");
            assert_eq!(bf16_flops(&cpu).is_some(), isa.level() == Level::Avx512Bf16);
        }
    }
}
