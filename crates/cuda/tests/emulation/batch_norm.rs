use simclr_cuda::ElementType;
use simclr_cuda::ops::{batch_norm, reductions, sums};
use simclr_kernels::batch_norm as cpu;

use crate::support::*;
use simclr_stand_in::{Values, compiler, in_every_order};

/// Rows and channels: one of each, channels that do not make whole packs, many columns, many pieces.
const SHAPES: [(usize, usize); 10] =
    [(1, 1), (7, 3), (1000, 5), (700, 16), (130, 64), (33, 300), (9, 2048), (4100, 24), (2, 520), (9000, 8)];

#[test]
fn channel_sums_are_those_of_the_definition() {
    for_each_type!(channel_sums);
}

fn channel_sums<E: Stored>() {
    for (rows, channels) in SHAPES {
        let x = narrowed::<E>(&noise(rows * channels, channels as u32));
        let got = in_every_order(|gpu| {
            let (x, mut out) = (Values::of(&x), Values::<f64>::fresh(2 * channels));
            sums::channel_sums(gpu, x.read(), channels, out.write()).unwrap();
            let mut columns = Values::<f32>::fresh(channels);
            sums::column_sums(gpu, x.read(), columns.write()).unwrap();
            (out.get(), columns.get())
        });
        let mut want = vec![0f64; 2 * channels];
        for (i, v) in widened(&x).into_iter().enumerate() {
            want[i % channels] += f64::from(v);
            want[channels + i % channels] += f64::from(v) * f64::from(v);
        }
        assert_close(&format!("{rows} x {channels}"), &got.0, &want, 1e-6);
        let columns: Vec<f32> = want[..channels].iter().map(|v| *v as f32).collect();
        assert_close(&format!("columns {rows} x {channels}"), &got.1, &columns, 1e-5);
    }
}

#[test]
fn a_step_of_batch_norm_is_that_of_the_portable_forms() {
    for_each_type!(step);
}

/// Forward and backward with every kind of gate, with and without a residual, compared with the CPU.
fn step<E: Stored>() {
    let portable = portable();
    for (rows, channels) in SHAPES {
        let len = rows * channels;
        let [x, residual, dy] = [1, 2, 3].map(|seed| narrowed::<E>(&noise(len, seed)));
        let [scale, shift, mean, inv_std] = [4, 5, 6, 7].map(|seed| noise(channels, seed));
        let coefficients = [&scale[..], &shift, &mean, &inv_std].concat();
        let [a, b, c] = [8, 9, 10].map(|seed| noise(channels, seed));
        let abc = [&a[..], &b, &c].concat();
        let [wide_x, wide_residual, wide_dy] = [&x, &residual, &dy].map(|v| widened(v));
        for (relu, with_residual) in [(false, false), (false, true), (true, false), (true, true)] {
            let what = format!("{rows} x {channels}, relu {relu}, residual {with_residual}");
            let got = in_every_order(|gpu| {
                let (x, residual, mut dy) = (Values::of(&x), Values::of(&residual), Values::of(&dy));
                let (coefficients, abc) = (Values::of(&coefficients), Values::of(&abc));
                let mut y = Values::<E>::fresh(len);
                let residual = with_residual.then(|| residual.read());
                batch_norm::forward(gpu, x.read(), coefficients.read(), residual, relu, y.write(), None)
                    .unwrap();
                let gate = match (relu, with_residual) {
                    (false, _) => batch_norm::Gate::Open,
                    (true, true) => batch_norm::Gate::Output(y.read()),
                    (true, false) => batch_norm::Gate::Affine,
                };
                let mut sums = Values::<f64>::fresh(2 * channels);
                let (coefficients, abc) = (coefficients.read(), abc.read());
                let before = dy.get();
                let sums_of = |dy: &mut Values<E>, keep: bool, sums: &mut Values<f64>| {
                    let (dy, sums) = (dy.write(), sums.write());
                    batch_norm::backward_sums(gpu, dy, gate, x.read(), coefficients, keep, sums).unwrap();
                };
                sums_of(&mut dy, false, &mut sums);
                assert!(dy.get() == before, "without `keep` dy stays: {what}");
                let mut dx = Values::of(&x.get());
                batch_norm::backward_input(gpu, dy.read(), gate, dx.write(), coefficients, abc).unwrap();
                // With `keep`, the next pass needs no gate.
                let mut again = Values::<f64>::fresh(2 * channels);
                sums_of(&mut dy, true, &mut again);
                assert!(again.get() == sums.get(), "{what}");
                let (mut same, open) = (Values::of(&x.get()), batch_norm::Gate::Open);
                batch_norm::backward_input(gpu, dy.read(), open, same.write(), coefficients, abc).unwrap();
                assert!(same.get() == dx.get(), "{what}");
                (y.get(), sums.get(), dx.get(), dy.get())
            });
            let mut y = vec![0.0; len];
            let residual = with_residual.then_some(&wide_residual[..]);
            cpu::batch_norm_forward(&portable, &wide_x, &scale, &shift, residual, relu, &mut y);
            assert_close(&format!("y {what}"), &widened(&got.0), &y, tolerance::<E>());
            // The gate is the kernel's own output, which rounding may give other signs than the CPU's.
            let own = widened(&got.0);
            let gate = if relu { cpu::Gate::Output(&own[..]) } else { cpu::Gate::Open };
            let mut sums = vec![0.0; 2 * channels];
            let mut g = wide_dy.clone();
            cpu::batch_norm_backward_sums(&portable, &mut g, gate, &wide_x, &mean, true, &mut sums);
            assert_close(&format!("sums {what}"), &got.1, &sums, 1e-5);
            let mut dx = wide_x.clone();
            cpu::batch_norm_backward_input(&portable, &g, cpu::Gate::Open, &mut dx, [&a, &b, &c]);
            assert_close(&format!("dx {what}"), &widened(&got.2), &dx, tolerance::<E>());
            assert_eq!(widened(&got.3), g, "{what}");
        }
    }
}

#[test]
fn masks_tell_what_outputs_tell() {
    for_each_type!(masks);
}

/// y with and without a mask, and backward with the mask and with y, must have the same bits. Some values of y round to
/// 0, some are NaN, some -0.
fn masks<E: Stored>() {
    for (rows, channels) in SHAPES {
        let len = rows * channels;
        let [mut x, mut residual, dy] = [1, 2, 3].map(|seed| noise(len, seed));
        for (i, tiny) in [1e-45, -0.0, f32::NAN, 2e-8, 4e-8, -1e-45, 0.0].into_iter().enumerate() {
            let at = (i * 1237 + i) % len;
            (x[at], residual[at]) = (tiny, 0.0);
        }
        // The least positive value of each type: half of it rounds to 0, three quarters of it do not.
        let least = match E::TYPE {
            ElementType::F32 => f32::from_bits(1),
            ElementType::Bf16 => 2f32.powi(-133),
            ElementType::F16 => 2f32.powi(-24),
        };
        for at in (0..len).step_by(5) {
            (x[at], residual[at]) = (least, 0.0);
        }
        let [x, residual, dy] = [&x, &residual, &dy].map(|values| narrowed::<E>(values));
        let mut coefficients = [4, 5, 6, 7].map(|seed| noise(channels, seed)).concat();
        // In every second channel, y is x, or a fraction of it, plus the residual.
        for c in (0..channels).step_by(2) {
            (coefficients[c], coefficients[channels + c]) = ([1.0, 0.5, 0.75][c / 2 % 3], -0.0);
        }
        let abc = noise(3 * channels, 8);
        for with_residual in [true, false] {
            let what = format!("{rows} x {channels}, residual {with_residual}");
            let (y, mask) = in_every_order(|gpu| {
                let (x, residual) = (Values::of(&x), Values::of(&residual));
                let (coefficients, abc) = (Values::of(&coefficients), Values::of(&abc));
                let [mut y, mut plain] = [0; 2].map(|_| Values::<E>::fresh(len));
                let mut mask = Values::<u8>::fresh(batch_norm::mask_len::<E>(len, channels));
                let (coefficients, residual) = (coefficients.read(), with_residual.then(|| residual.read()));
                let forward = |y: &mut Values<E>, mask| {
                    batch_norm::forward(gpu, x.read(), coefficients, residual, true, y.write(), mask)
                        .unwrap();
                };
                forward(&mut y, Some(mask.write()));
                forward(&mut plain, None);
                assert!(bits(&y.get()) == bits(&plain.get()), "{what}");
                let gates = [batch_norm::Gate::Output(y.read()), batch_norm::Gate::Mask(mask.read())];
                for keep in [false, true] {
                    let [by_output, by_mask] = gates.map(|gate| {
                        let (mut dy, mut dx) = (Values::of(&dy), Values::of(&x.get()));
                        let mut sums = Values::<f64>::fresh(2 * channels);
                        let (g, to) = (dy.write(), sums.write());
                        batch_norm::backward_sums(gpu, g, gate, x.read(), coefficients, keep, to).unwrap();
                        let (g, abc) = (dy.read(), abc.read());
                        batch_norm::backward_input(gpu, g, gate, dx.write(), coefficients, abc).unwrap();
                        let sums: Vec<_> = sums.get().into_iter().map(f64::to_bits).collect();
                        (sums, bits(&dy.get()), bits(&dx.get()))
                    });
                    assert!(by_output == by_mask, "{what}, keep {keep}");
                }
                (bits(&y.get()), mask.get())
            });
            let width = len / mask.len();
            for (i, y) in y.into_iter().enumerate() {
                let open = mask[i / width] >> (i % width) & 1 == 1;
                assert_eq!(open, f32::from_bits(y) > 0.0, "{what}: value {i}");
            }
        }
    }
}

/// The bits of the widened values, so that NaN can be compared as well.
fn bits<E: Stored>(values: &[E]) -> Vec<u32> {
    widened(values).into_iter().map(f32::to_bits).collect()
}

/// The results of backward's sums of many pieces have the same bits whether they are computed fused or in separate
/// passes. Outputs that are not requested are left out.
#[test]
fn what_follows_from_backward_sums_is_the_same_at_once() {
    if compiler().is_none() {
        return;
    }
    for (pieces, channels) in [(1, 1), (3, 4), (9, 70), (1500, 5), (129, 64)] {
        let partials: Vec<f64> = noise(pieces * 2 * channels, 1).into_iter().map(f64::from).collect();
        let coefficients = noise(4 * channels, 2);
        in_every_order(|gpu| {
            let (partials, coefficients) = (Values::of(&partials), Values::of(&coefficients));
            let [mut sums, mut known, mut plain] = [0; 3].map(|_| Values::<f64>::fresh(2 * channels));
            let [mut dgamma, mut dbeta] = [0; 2].map(|_| Values::<f32>::fresh(channels));
            let [mut abc, mut apart] = [0; 2].map(|_| Values::<f32>::fresh(3 * channels));
            let (p, c) = (partials.read(), coefficients.read());
            reductions::sum_pieces(gpu, p, pieces, known.write()).unwrap();
            batch_norm::backward_totals(gpu, p, pieces, 1, c, plain.write().into()).unwrap();
            let to = batch_norm::BackwardSums {
                sums: sums.write(),
                gradients: Some([dgamma.write(), dbeta.write()]),
                coefficients: Some((Some(640.0), abc.write())),
            };
            batch_norm::backward_totals(gpu, p, pieces, 1, c, to).unwrap();
            batch_norm::backward_coefficients(gpu, known.read(), Some(640.0), c, apart.write()).unwrap();
            let what = format!("{pieces} x {channels}");
            let known = known.get();
            assert!(sums.get() == known && plain.get() == known && abc.get() == apart.get(), "{what}");
            let inv_std = &coefficients.get()[3 * channels..];
            for i in 0..channels {
                let gradient = (known[channels + i] * f64::from(inv_std[i])) as f32;
                assert_eq!((dgamma.get()[i], dbeta.get()[i]), (gradient, known[i] as f32), "{what}");
            }
        });
    }
}

#[test]
fn coefficients_are_those_of_the_engine() {
    if compiler().is_none() {
        return;
    }
    for channels in [1, 3, 256, 257, 700] {
        let count = 640.0;
        let [gamma, beta, old_mean] = [1, 2, 3].map(|seed| noise(channels, seed));
        let old_var: Vec<f32> = noise(channels, 4).iter().map(|v| v + 1.0).collect();
        let means: Vec<f64> = noise(channels, 5).into_iter().map(f64::from).collect();
        let variances: Vec<f64> = noise(channels, 6).into_iter().map(|v| f64::from(v) + 0.6).collect();
        let sums: Vec<f64> = means
            .iter()
            .map(|m| m * count)
            .chain(means.iter().zip(&variances).map(|(m, v)| (v + m * m) * count))
            .collect();
        let (eps, keep) = (1e-5, 0.9);
        let got = in_every_order(|gpu| {
            let (sums, gamma, beta) = (Values::of(&sums), Values::of(&gamma), Values::of(&beta));
            let (old_mean, old_var) = (Values::of(&old_mean), Values::of(&old_var));
            let (mut mean, mut var) = (Values::<f32>::fresh(channels), Values::<f32>::fresh(channels));
            let mut out = Values::<f32>::fresh(4 * channels);
            let averages = batch_norm::Averages {
                keep,
                running: [old_mean.read(), old_var.read()],
                moved: [mean.write(), var.write()],
            };
            let (s, g, b) = (sums.read(), gamma.read(), Some(beta.read()));
            batch_norm::coefficients(gpu, s, count, g, b, eps, Some(averages), out.write()).unwrap();
            let mut bare = Values::<f32>::fresh(4 * channels);
            batch_norm::coefficients(gpu, s, count, g, None, eps, None, bare.write()).unwrap();
            let mut frozen = Values::<f32>::fresh(4 * channels);
            let running = [old_mean.read(), old_var.read()];
            batch_norm::frozen_coefficients(gpu, running, g, b, eps as f32, frozen.write()).unwrap();
            let (mut dgamma, mut dbeta) = (Values::<f32>::fresh(channels), Values::<f32>::fresh(channels));
            let (mut abc, mut constant) =
                (Values::<f32>::fresh(3 * channels), Values::<f32>::fresh(3 * channels));
            batch_norm::backward_coefficients(gpu, s, Some(count), out.read(), abc.write()).unwrap();
            batch_norm::backward_coefficients(gpu, s, None, out.read(), constant.write()).unwrap();
            // The same, fused, from sums in one piece.
            for (count, apart) in [(Some(count), &abc), (None, &constant)] {
                let (mut total, mut once) =
                    (Values::<f64>::fresh(2 * channels), Values::<f32>::fresh(3 * channels));
                let to = batch_norm::BackwardSums {
                    sums: total.write(),
                    gradients: Some([dgamma.write(), dbeta.write()]),
                    coefficients: Some((count, once.write())),
                };
                batch_norm::backward_totals(gpu, s, 1, 1, out.read(), to).unwrap();
                assert!(total.get() == sums.get() && once.get() == apart.get(), "{channels}, {count:?}");
            }
            let outs = [out.get(), bare.get(), frozen.get(), abc.get(), constant.get()];
            (outs, mean.get(), var.get(), dgamma.get(), dbeta.get())
        });
        let ([out, bare, frozen, abc, constant], mean, var, dgamma, dbeta) = got;
        let near = |what: &str, got: f32, want: f64| {
            assert!((f64::from(got) - want).abs() <= 2e-6 * (1.0 + want.abs()), "{what}: {got} {want}");
        };
        for c in 0..channels {
            let (m, v) = (means[c], variances[c]);
            let s = 1.0 / (v + eps).sqrt();
            let (g, b) = (f64::from(gamma[c]), f64::from(beta[c]));
            near("scale", out[c], g * s);
            near("shift", out[channels + c], b - g * s * m);
            near("mean", out[2 * channels + c], m);
            near("inv_std", out[3 * channels + c], s);
            near("shift without beta", bare[channels + c], -g * s * m);
            near("moved mean", mean[c], keep * f64::from(old_mean[c]) + (1.0 - keep) * m);
            let unbiased = v * count / (count - 1.0);
            near("moved variance", var[c], keep * f64::from(old_var[c]) + (1.0 - keep) * unbiased);
            let s_old = 1.0 / (f64::from(old_var[c]) + eps).sqrt();
            near("frozen scale", frozen[c], g * s_old);
            near("frozen shift", frozen[channels + c], b - g * s_old * f64::from(old_mean[c]));
            near("dgamma", dgamma[c] / 640.0, sums[channels + c] * s / 640.0);
            near("dbeta", dbeta[c] / 640.0, sums[c] / 640.0);
            let slope = -g * s * s * s * sums[channels + c] / count;
            near("a", abc[c], g * s);
            near("b", abc[channels + c], slope);
            near("c", abc[2 * channels + c], -g * s * sums[c] / count - slope * m);
            near("constant b", constant[channels + c], 0.0);
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    if compiler().is_none() {
        return;
    }
    in_every_order(|gpu| {
        let (x, coefficients) = (Values::of(&[1f32; 12]), Values::of(&[1f32; 12]));
        let mut y = Values::<f32>::fresh(11);
        let result = batch_norm::forward(gpu, x.read(), coefficients.read(), None, false, y.write(), None);
        let message = result.unwrap_err().to_string();
        assert_eq!(message, "batch_norm_forward: y has 11 values, 12 are needed");
        // Rows of 3 are read value by value: the mask has a byte per value.
        let (mut y, mut mask) = (Values::<f32>::fresh(12), Values::<u8>::fresh(3));
        let (x, coefficients, to) = (x.read(), coefficients.read(), Some(mask.write()));
        let result = batch_norm::forward(gpu, x, coefficients, None, true, y.write(), to);
        let message = result.unwrap_err().to_string();
        assert_eq!(message, "batch_norm_forward: the mask has 3 values, 12 are needed");
        let gate = batch_norm::Gate::Mask(mask.read());
        let mut sums = Values::<f64>::fresh(6);
        let (mut dy, to) = (Values::of(&[1f32; 12]), sums.write());
        let result = batch_norm::backward_sums(gpu, dy.write(), gate, x, coefficients, true, to);
        let message = result.unwrap_err().to_string();
        assert_eq!(message, "batch_norm_backward_sums: the mask has 3 values, 12 are needed");
        let mut sums = Values::<f64>::fresh(10);
        let result = sums::channel_sums(gpu, x, 5, sums.write());
        assert_eq!(result.unwrap_err().to_string(), "channel_sums: 12 values are not whole rows of 5");
    });
}
