//! BatchNorm on channels-last data, with the residual addition and the ReLU that follow it fused in.
//!
//! x is (rows, C), rows = N H W. Training: y = relu(gamma (x - mean) / sqrt(var + eps) + beta + residual), where
//! mean and (biased) variance are over rows (Ioffe and Szegedy, arXiv:1502.03167, algorithm 1). The caller turns
//! sums into statistics, since the sums may span several workers. Values may be f32 or bf16; arithmetic is in f32.

mod backward;
mod coefficients;
mod forward;

use crate::pieces::{repeats, rows_per_piece, sum_pieces};
use crate::{Cpu, Element, scratch};

pub use backward::{Gate, batch_norm_backward_input, batch_norm_backward_sums};
pub use coefficients::{
    Averages, Coefficients, NormConstants, backward_coefficients, batch_coefficients, frozen_coefficients,
    parameter_gradients,
};
pub use forward::batch_norm_forward;
pub(crate) use forward::{InPlace, in_place};

/// Rows summed in f32 before their sum is added to an f64 sum: few enough to lose nothing that matters.
const F32_ROWS: usize = 128;

/// Sums of each channel and of its square over rows: `sums` = [sum of x; C values, sum of x^2; C values].
pub fn channel_sums<E: Element>(cpu: &Cpu, x: &[E], channels: usize, sums: &mut [f64]) {
    assert_eq!(sums.len(), 2 * channels);
    assert_eq!(x.len() % channels, 0);
    let piece_len = rows_per_piece(channels) * channels;
    let wide = repeats(channels) * channels;
    sum_pieces(cpu, x.len().div_ceil(piece_len), sums, |i, acc| {
        let x = &x[i * piece_len..x.len().min((i + 1) * piece_len)];
        let mut partial = scratch::take::<f32>(2 * wide);
        partial.fill(0.0);
        let (sum, square) = partial.split_at_mut(wide);
        for block in x.chunks(F32_ROWS * wide) {
            cpu.isa.vectorize(
                #[inline(always)]
                || {
                    for row in block.chunks(wide) {
                        for ((s, q), v) in sum.iter_mut().zip(square.iter_mut()).zip(row) {
                            let v = v.widen();
                            *s += v;
                            *q += v * v;
                        }
                    }
                },
            );
            fold(sum, &mut acc[..channels]);
            fold(square, &mut acc[channels..]);
        }
    });
}

/// Adds a repeated row of sums to `acc` (one value per channel) and clears the row.
#[inline(always)]
fn fold(wide: &mut [f32], acc: &mut [f64]) {
    for row in wide.chunks_mut(acc.len()) {
        for (a, v) in acc.iter_mut().zip(row) {
            *a += f64::from(*v);
            *v = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::cpu;
    use half::bf16;

    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.4
            })
            .collect()
    }

    #[test]
    fn sums_are_those_of_the_definition() {
        for (rows, channels) in [(1, 1), (7, 3), (1000, 5), (700, 16), (130, 64), (33, 300)] {
            let x = noise(rows * channels, channels as u32);
            let mut expected = vec![0f64; 2 * channels];
            for (i, &v) in x.iter().enumerate() {
                expected[i % channels] += f64::from(v);
                expected[channels + i % channels] += f64::from(v) * f64::from(v);
            }
            for isa in Isa::all() {
                let mut sums = vec![1.0; 2 * channels];
                channel_sums(&cpu(isa, 2), &x, channels, &mut sums);
                for (got, want) in sums.iter().zip(&expected) {
                    assert!(
                        (got - want).abs() <= 1e-5 * (1.0 + want.abs()),
                        "{rows}x{channels} {got} {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_threads_or_instruction_set() {
        bits_of::<f32>();
        bits_of::<bf16>();
    }

    fn bits_of<E: Element>() {
        let (rows, channels) = (5000, 24);
        let narrow = |values: Vec<f32>| values.into_iter().map(E::narrow).collect::<Vec<_>>();
        let x = narrow(noise(rows * channels, 1));
        let y = narrow(noise(rows * channels, 2));
        let mean = noise(channels, 3);
        let run = |cpu: Cpu| {
            let mut sums = vec![0.0; 2 * channels];
            channel_sums(&cpu, &x, channels, &mut sums);
            let mut backward = vec![0.0; 2 * channels];
            let (mut dy, mut dx) = (y.clone(), x.clone());
            batch_norm_backward_sums(&cpu, &mut dy, Gate::Output(&x), &x, &mean, true, &mut backward);
            batch_norm_backward_input(&cpu, &dy, Gate::Open, &mut dx, [&mean; 3]);
            let mut out = vec![E::default(); x.len()];
            batch_norm_forward(&cpu, &x, &mean, &mean, Some(&y), true, &mut out);
            (sums, backward, dy, dx, out)
        };
        let expected = run(cpu(Isa::PORTABLE, 1));
        for isa in Isa::all() {
            for threads in [1, 2, 4] {
                assert!(run(cpu(isa, threads)) == expected);
            }
        }
    }

    /// Large outputs, written past the caches, equal those of their parts, which are not.
    #[test]
    fn large_results_are_those_of_their_parts() {
        let (rows, channels) = (1 << 18, 16);
        let x = noise(rows * channels, 1);
        let [scale, shift] = [2, 3].map(|seed| noise(channels, seed));
        let mut y = crate::scratch::take::<f32>(x.len());
        assert!(size_of_val(&*y) >= forward::STREAM_BYTES);
        for isa in Isa::all() {
            let cpu = cpu(isa, 2);
            for residual in [None, Some(&x[..])] {
                batch_norm_forward(&cpu, &x, &scale, &shift, residual, true, &mut y);
                for (part, y) in y.chunks(x.len() / 8).enumerate() {
                    let range = part * y.len()..(part + 1) * y.len();
                    let (x, residual) = (&x[range.clone()], residual.map(|r| &r[range]));
                    let mut expected = vec![f32::NAN; y.len()];
                    batch_norm_forward(&cpu, x, &scale, &shift, residual, true, &mut expected);
                    assert!(y == expected, "{isa:?}, part {part}");
                }
            }
        }
    }

    /// Each bf16 result is the f32 result of the same inputs, rounded once.
    #[test]
    fn bf16_rounds_results_alone() {
        let (rows, channels) = (77, 40);
        let cpu = cpu(Isa::detect(), 2);
        let narrow = |values: &[f32]| values.iter().map(|v| bf16::narrow(*v)).collect::<Vec<_>>();
        let widen = |values: &[bf16]| values.iter().map(|v| v.widen()).collect::<Vec<_>>();
        let [x, r, g] = [1, 2, 3].map(|seed| narrow(&noise(rows * channels, seed)));
        let [wide_x, wide_r, wide_g] = [&x, &r, &g].map(|v| widen(v));
        let [a, b, c] = [4, 5, 6].map(|seed| noise(channels, seed));

        let (mut y, mut wide_y) = (x.clone(), wide_x.clone());
        batch_norm_forward(&cpu, &x, &a, &b, Some(&r), true, &mut y);
        batch_norm_forward(&cpu, &wide_x, &a, &b, Some(&wide_r), true, &mut wide_y);
        assert_eq!(y, narrow(&wide_y));

        let (mut sums, mut wide_sums) = (vec![0.0; 2 * channels], vec![0.0; 2 * channels]);
        let (mut dy, mut wide_dy) = (g.clone(), wide_g.clone());
        batch_norm_backward_sums(&cpu, &mut dy, Gate::Output(&r), &x, &a, true, &mut sums);
        let gate = Gate::Output(&wide_r[..]);
        batch_norm_backward_sums(&cpu, &mut wide_dy, gate, &wide_x, &a, true, &mut wide_sums);
        assert_eq!((sums.clone(), &dy), (wide_sums.clone(), &narrow(&wide_dy)));
        channel_sums(&cpu, &x, channels, &mut sums);
        channel_sums(&cpu, &wide_x, channels, &mut wide_sums);
        assert_eq!(sums, wide_sums);

        let (mut dx, mut wide_dx) = (x.clone(), wide_x.clone());
        batch_norm_backward_input(&cpu, &g, Gate::Output(&r), &mut dx, [&a, &b, &c]);
        batch_norm_backward_input(&cpu, &wide_g, Gate::Output(&wide_r), &mut wide_dx, [&a, &b, &c]);
        assert_eq!(dx, narrow(&wide_dx));
    }

    #[test]
    fn the_mask_stops_gradients() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let mask = [1.0, 0.0, -1.0, 2.0];
        let mut dy = [10.0, 20.0, 30.0, 40.0];
        let mut sums = [0.0; 4];
        let cpu = cpu(Isa::detect(), 1);
        batch_norm_backward_sums(&cpu, &mut dy, Gate::Output(&mask), &x, &[1.0, 1.0], false, &mut sums);
        assert_eq!(dy, [10.0, 20.0, 30.0, 40.0]);
        assert_eq!(sums, [10.0, 40.0, 0.0, 120.0]);
        let mut dx = x;
        let coefficients = [&[1.0, 1.0][..], &[0.5, 0.5], &[0.0, 1.0]];
        batch_norm_backward_input(&cpu, &dy, Gate::Output(&mask), &mut dx, coefficients);
        assert_eq!(dx, [10.5, 2.0, 1.5, 43.0]);
        batch_norm_backward_sums(&cpu, &mut dy, Gate::Output(&mask), &x, &[1.0, 1.0], true, &mut sums);
        assert_eq!((dy, sums), ([10.0, 0.0, 0.0, 40.0], [10.0, 40.0, 0.0, 120.0]));
    }

    /// The gate of a ReLU without residual is the same whether read from its output or recomputed from its input,
    /// whether or not g is kept; for numbers of channels around every vector width.
    #[test]
    fn a_gate_found_again_is_the_gate() {
        for (rows, channels) in [(1, 1), (300, 3), (70, 17), (41, 64), (33, 300), (23, 600)] {
            let x = noise(rows * channels, 1);
            let g = noise(rows * channels, 2);
            let [scale, shift, mean, b, c] = [3, 4, 5, 6, 7].map(|seed| noise(channels, seed));
            for isa in Isa::all() {
                let cpu = cpu(isa, 2);
                let mut y = vec![0.0; x.len()];
                batch_norm_forward(&cpu, &x, &scale, &shift, None, true, &mut y);
                assert!(x.len() < 50 || y.contains(&0.0) && y.iter().any(|&y| y > 0.0));
                let run = |gate: Gate<f32>, keep: bool| {
                    let mut sums = vec![0.0; 2 * channels];
                    let (mut dy, mut dx) = (g.clone(), x.clone());
                    batch_norm_backward_sums(&cpu, &mut dy, gate, &x, &mean, keep, &mut sums);
                    let gate = if keep { Gate::Open } else { gate };
                    batch_norm_backward_input(&cpu, &dy, gate, &mut dx, [&scale, &b, &c]);
                    (sums, dx, dy)
                };
                let (sums, dx, kept) = run(Gate::Output(&y), true);
                let (again, dx_again, dy) = run(Gate::Affine { scale: &scale, shift: &shift }, false);
                assert!(sums == again && dx == dx_again && dy == g, "{rows} x {channels} on {isa:?}");
                assert!(kept.iter().zip(&g).zip(&y).all(|((k, g), y)| *k == if *y > 0.0 { *g } else { 0.0 }));
                let mut expected = vec![0.0f64; 2 * channels];
                for (i, (&g, &x)) in kept.iter().zip(&x).enumerate() {
                    expected[i % channels] += f64::from(g);
                    expected[channels + i % channels] += f64::from(g) * f64::from(x - mean[i % channels]);
                }
                let close = |(got, want): (&f64, &f64)| (got - want).abs() <= 1e-5 * (1.0 + want.abs());
                assert!(sums.iter().zip(&expected).all(close), "{rows} x {channels}: {sums:?} {expected:?}");
            }
        }
    }
}
