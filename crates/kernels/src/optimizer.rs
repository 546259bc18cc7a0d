//! Parameter updates, one pass over each tensor.

use crate::Cpu;
use crate::pieces::{PIECE, sum_pieces};

/// |w|^2 and |g + decay w|^2, for LARS's trust ratio.
pub fn lars_norms(cpu: &Cpu, w: &[f32], g: &[f32], decay: f32) -> (f64, f64) {
    assert_eq!(w.len(), g.len());
    let mut sums = [0.0; 2];
    sum_pieces(cpu, w.len().div_ceil(PIECE), &mut sums, |i, acc| {
        let range = i * PIECE..w.len().min((i + 1) * PIECE);
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                let mut decayed = [0f32; 512];
                for (w, g) in w[range.clone()].chunks(512).zip(g[range].chunks(512)) {
                    let decayed = &mut decayed[..w.len()];
                    decayed.iter_mut().zip(w.iter().zip(g)).for_each(|(d, (w, g))| *d = g + decay * w);
                    acc[0] += crate::math::dot(w, w);
                    acc[1] += crate::math::dot(decayed, decayed);
                }
            },
        );
    });
    (sums[0], sums[1])
}

/// The factor of a layer's learning rate: coefficient |w| / |g + decay w|, or 1 where either norm is 0 (You et al.,
/// arXiv:1708.03888, as SimCLR uses it).
///
/// `decayed` is the norm of the SUM g + decay w. Ports that add the norms |g| + decay |w| instead underestimate the
/// ratio wherever gradient and weights oppose each other. The ratio also adapts at a decay of 0.
fn trust_ratio(weight: f64, decayed: f64, coefficient: f64) -> f64 {
    if weight > 0.0 && decayed > 0.0 { coefficient * weight / decayed } else { 1.0 }
}

/// One step of LARS: layer-wise adaptive rate scaling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LarsStep {
    /// The learning rate, before the trust ratio.
    pub rate: f64,
    /// The trust ratio's coefficient: 0.001.
    pub trust_coefficient: f64,
    /// Usually 0.9.
    pub momentum: f32,
    /// L2 weight decay.
    pub decay: f32,
}

/// Applies [`LarsStep`] to w and v: [`MomentumStep`] at the adapted rate.
pub fn lars_update(cpu: &Cpu, step: LarsStep, g: &[f32], w: &mut [f32], v: &mut [f32]) {
    let LarsStep { rate, trust_coefficient, momentum, decay } = step;
    let (weight, decayed) = lars_norms(cpu, w, g, decay);
    let trust = trust_ratio(weight.sqrt(), decayed.sqrt(), trust_coefficient);
    let step = MomentumStep { rate: (rate * trust) as f32, momentum, decay, nesterov: false };
    momentum_update(cpu, step, g, w, v);
}

/// Momentum in its classic form, in which the rate enters the buffer (as in SimCLR's LARS and SGD):
/// v = momentum v + rate (g + decay w); w -= v, or with Nesterov w -= momentum v + rate (g + decay w).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MomentumStep {
    /// The learning rate, trust ratio included.
    pub rate: f32,
    /// Usually 0.9.
    pub momentum: f32,
    /// L2 weight decay.
    pub decay: f32,
    /// Whether to look ahead by one step of momentum.
    pub nesterov: bool,
}

/// Applies [`MomentumStep`] to w and v.
pub fn momentum_update(cpu: &Cpu, step: MomentumStep, g: &[f32], w: &mut [f32], v: &mut [f32]) {
    assert_eq!(w.len(), g.len());
    let MomentumStep { rate, momentum, decay, nesterov } = step;
    cpu.threads.run_chunk_pairs(w, v, PIECE, |i, w, v| {
        let g = &g[i * PIECE..i * PIECE + w.len()];
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for ((w, v), g) in w.iter_mut().zip(v).zip(g) {
                    let push = rate * (g + decay * *w);
                    *v = momentum * *v + push;
                    *w -= if nesterov { momentum * *v + push } else { *v };
                }
            },
        );
    });
}

/// One AdamW step (Loshchilov and Hutter, arXiv:1711.05101): decay is decoupled from the gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// The learning rate.
    pub rate: f32,
    /// Decay rates of the first and the second moment.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Weight decay, multiplied by the rate.
    pub decay: f32,
    /// [`bias_corrections`] of this step.
    pub corrections: [f32; 2],
}

/// 1 - beta^step of both moments, by which they are divided since they start at 0; the first `step` is 1.
pub fn bias_corrections(betas: [f32; 2], step: u64) -> [f32; 2] {
    let power = step.min(i32::MAX as u64) as i32;
    betas.map(|beta| (1.0 - f64::from(beta).powi(power)) as f32)
}

/// Applies [`AdamWStep`]; `moments` holds the first moment, then the second (2 w.len() values).
pub fn adamw_update(cpu: &Cpu, step: AdamWStep, g: &[f32], w: &mut [f32], moments: &mut [f32]) {
    assert!(g.len() == w.len() && moments.len() == 2 * w.len());
    let AdamWStep { rate, betas: [b1, b2], epsilon, decay, corrections: [c1, c2] } = step;
    let (first, second) = moments.split_at_mut(w.len());
    cpu.threads.run_chunks_alike([first, second, w], PIECE, |i, [m, v, w]| {
        let g = &g[i * PIECE..i * PIECE + w.len()];
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for (((m, v), w), g) in m.iter_mut().zip(v).zip(w).zip(g) {
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *w -= rate * (*m / c1 / ((*v / c2).sqrt() + epsilon) + decay * *w);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::cpu;

    #[test]
    fn the_trust_ratio_takes_the_norm_of_the_sum() {
        // g opposes w: |g + decay w| = 0.5, while |g| + decay |w| would be 1.5.
        let cpu = cpu(Isa::PORTABLE, 1);
        let (weight, decayed) = lars_norms(&cpu, &[1.0], &[-1.0], 0.5);
        assert_eq!(trust_ratio(weight.sqrt(), decayed.sqrt(), 0.001), 0.002);
        assert_eq!(trust_ratio(0.0, 1.0, 0.001), 1.0);
        assert_eq!(trust_ratio(1.0, 0.0, 0.001), 1.0);
    }

    #[test]
    fn momentum_is_its_equation() {
        let cpu = cpu(Isa::detect(), 1);
        // v = 0.5 * 4 + 0.25 * (2 + 0.125 * 16) = 3, w = 16 - 3; Nesterov looks ahead by 0.5 * 3 + 1.
        for (nesterov, w_after) in [(false, 13.0), (true, 13.5)] {
            let step = MomentumStep { rate: 0.25, momentum: 0.5, decay: 0.125, nesterov };
            let (mut w, mut v) = ([16.0], [4.0]);
            momentum_update(&cpu, step, &[2.0], &mut w, &mut v);
            assert_eq!((w, v), ([w_after], [3.0]));
        }
        // LARS at a trust ratio of 0.5 * 16 / (2 + 0.125 * 16) = 2.
        let step = LarsStep { rate: 0.125, trust_coefficient: 0.5, momentum: 0.5, decay: 0.125 };
        let (mut w, mut v) = ([16.0], [4.0]);
        lars_update(&cpu, step, &[2.0], &mut w, &mut v);
        assert_eq!((w, v), ([13.0], [3.0]));
    }

    #[test]
    fn adamw_gives_the_same_bits_on_any_number_of_threads() {
        let betas = [0.9, 0.999];
        let corrections = bias_corrections(betas, 3);
        let step = AdamWStep { rate: 0.1, betas, epsilon: 1e-8, decay: 0.01, corrections };
        // The second moments do not start at the boundary of a piece.
        let len = 2 * PIECE + 17;
        let values = |factor: f32| (0..len).map(move |i| (i % 1009) as f32 * factor);
        let updated = |threads: usize| {
            let cpu = cpu(Isa::detect(), threads);
            let g: Vec<f32> = values(0.01).collect();
            let mut w: Vec<f32> = values(-0.02).collect();
            let mut moments: Vec<f32> = values(0.03).chain(values(0.04)).collect();
            adamw_update(&cpu, step, &g, &mut w, &mut moments);
            (w, moments)
        };
        let (w, moments) = updated(1);
        // The equation, for the last value.
        let [g, before, m, v] = [0.01, -0.02, 0.03, 0.04].map(|factor| ((len - 1) % 1009) as f32 * factor);
        let (m, v) = (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g);
        let (first, second) = (m / (1.0 - 0.9f32.powi(3)), v / (1.0 - 0.999f32.powi(3)));
        let expected = before - 0.1 * (first / (second.sqrt() + 1e-8) + 0.01 * before);
        assert!((moments[len - 1] - m).abs() < 1e-4 * m && (moments[2 * len - 1] - v).abs() < 1e-4 * v);
        assert!((w[len - 1] - expected).abs() < 1e-4 * expected.abs(), "{} for {expected}", w[len - 1]);
        for threads in [2, 4] {
            assert!(updated(threads) == (w.clone(), moments.clone()), "{threads} threads");
        }
    }
}
