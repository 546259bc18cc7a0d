//! BatchNorm on channels-last data, with the residual addition and the ReLU that follow it fused in.
//!
//! x is (rows, C), rows = N H W. Training: y = relu(gamma (x - mean) / sqrt(var + eps) + beta + residual), where
//! mean and (biased) variance are over rows (Ioffe and Szegedy, arXiv:1502.03167, algorithm 1). The caller turns
//! sums into statistics, since sums may come from several workers. Values may be f32 or bf16; arithmetic is in f32.

mod backward;

use crate::pieces::{repeated, repeats, rows_per_piece, sum_pieces};
use crate::{Cpu, Element, scratch};

pub use backward::{Gate, batch_norm_backward_input, batch_norm_backward_sums};

/// Rows summed in f32 before their sum joins an f64 one: few enough to lose nothing that matters.
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

/// Adds a repeated row of sums into `acc` (one value a channel) and clears it.
#[inline(always)]
fn fold(wide: &mut [f32], acc: &mut [f64]) {
    for row in wide.chunks_mut(acc.len()) {
        for (a, v) in acc.iter_mut().zip(row) {
            *a += f64::from(*v);
            *v = 0.0;
        }
    }
}

/// y = act(x scale + shift + residual), with scale and shift one value a channel and act ReLU or nothing. A NaN stays one.
pub fn batch_norm_forward<E: Element>(
    cpu: &Cpu,
    x: &[E],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[E]>,
    relu: bool,
    y: &mut [E],
) {
    let channels = scale.len();
    assert_eq!(shift.len(), channels);
    assert_eq!(x.len(), y.len());
    assert!(residual.is_none_or(|r| r.len() == x.len()));
    let times = repeats(channels);
    let (scale, shift) = (&*repeated(scale, times), &*repeated(shift, times));
    let piece_len = rows_per_piece(channels) * channels;
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    cpu.threads.run_chunks(y, piece_len, |i, y| {
        let range = i * piece_len..i * piece_len + y.len();
        let x = &x[range.clone()];
        cpu.isa.vectorize(
            #[inline(always)]
            || match residual {
                None => {
                    for (y, x) in y.chunks_mut(scale.len()).zip(x.chunks(scale.len())) {
                        for (((y, x), a), b) in y.iter_mut().zip(x).zip(scale).zip(shift) {
                            *y = E::narrow(at_least(floor, x.widen() * a + b));
                        }
                    }
                }
                Some(residual) => {
                    let rows = y.chunks_mut(scale.len()).zip(x.chunks(scale.len()));
                    for ((y, x), r) in rows.zip(residual[range].chunks(scale.len())) {
                        for ((((y, x), r), a), b) in y.iter_mut().zip(x).zip(r).zip(scale).zip(shift) {
                            *y = E::narrow(at_least(floor, x.widen() * a + b + r.widen()));
                        }
                    }
                }
            },
        );
    });
}

/// The greater of both. Unlike `f32::max` it keeps a NaN, which must reach the loss to be noticed.
#[inline(always)]
fn at_least(floor: f32, value: f32) -> f32 {
    if floor > value { floor } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, Threads};
    use half::bf16;

    fn cpu(isa: Isa, threads: usize) -> Cpu {
        Cpu { threads: Threads::new(threads).unwrap(), isa }
    }

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
            batch_norm_backward_sums(&cpu, &y, Gate::Output(&x), &x, &mean, &mut backward);
            let mut dy = y.clone();
            let mut dx = x.clone();
            batch_norm_backward_input(&cpu, &mut dy, Gate::Output(&x), &mut dx, [&mean; 3], true);
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

    /// In bf16 each result is the f32 result of the same numbers, rounded once.
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
        batch_norm_backward_sums(&cpu, &g, Gate::Output(&r), &x, &a, &mut sums);
        batch_norm_backward_sums(&cpu, &wide_g, Gate::Output(&wide_r), &wide_x, &a, &mut wide_sums);
        assert_eq!(sums, wide_sums);
        channel_sums(&cpu, &x, channels, &mut sums);
        channel_sums(&cpu, &wide_x, channels, &mut wide_sums);
        assert_eq!(sums, wide_sums);

        let (mut dy, mut dx) = (g.clone(), x.clone());
        let (mut wide_dy, mut wide_dx) = (wide_g.clone(), wide_x.clone());
        batch_norm_backward_input(&cpu, &mut dy, Gate::Output(&r), &mut dx, [&a, &b, &c], true);
        let gate = Gate::Output(&wide_r);
        batch_norm_backward_input(&cpu, &mut wide_dy, gate, &mut wide_dx, [&a, &b, &c], true);
        assert_eq!((dy, dx), (narrow(&wide_dy), narrow(&wide_dx)));
    }

    #[test]
    fn the_mask_stops_gradients() {
        let x = [1.0, 2.0, 3.0, 4.0];
        let mask = [1.0, 0.0, -1.0, 2.0];
        let mut dy = [10.0, 20.0, 30.0, 40.0];
        let mut sums = [0.0; 4];
        let cpu = cpu(Isa::detect(), 1);
        batch_norm_backward_sums(&cpu, &dy, Gate::Output(&mask), &x, &[1.0, 1.0], &mut sums);
        assert_eq!(sums, [10.0, 40.0, 0.0, 120.0]);
        let mut dx = x;
        let coefficients = [&[1.0, 1.0][..], &[0.5, 0.5], &[0.0, 1.0]];
        let gate = Gate::Output(&mask);
        batch_norm_backward_input(&cpu, &mut dy, gate, &mut dx, coefficients, true);
        assert_eq!(dy, [10.0, 0.0, 0.0, 40.0]);
        assert_eq!(dx, [10.5, 2.0, 1.5, 43.0]);
    }

    /// The gate of a ReLU without residual is the same whether read from its output or found again from its input, and g
    /// need not be kept; on channels around every vector width.
    #[test]
    fn a_gate_found_again_is_the_gate() {
        for (rows, channels) in [(1, 1), (300, 3), (70, 17), (41, 64), (33, 300)] {
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
                    batch_norm_backward_sums(&cpu, &g, gate, &x, &mean, &mut sums);
                    let (mut dy, mut dx) = (g.clone(), x.clone());
                    batch_norm_backward_input(&cpu, &mut dy, gate, &mut dx, [&scale, &b, &c], keep);
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
