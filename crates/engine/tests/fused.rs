//! Operators against their definitions: compositions of smaller operators, and loops written as in the papers.

mod common;

use common::values::uniform;
use common::{batch_norm, bits, deviation, device, parameter, tensor};
use simclr_engine::ops::{self, BatchNorm, Conv2d};
use simclr_engine::{Device, Mode, ParameterKind, Parameters, Result, SingleProcess, Tape, Tensor, Var};

/// The output and all gradients of `forward`, for a dy named "dy".
fn outcome(parameters: &Parameters, mode: Mode, forward: impl Fn(&mut Tape) -> Result<Var>) -> Vec<Tensor> {
    let mut tape = Tape::new(parameters, mode, &SingleProcess);
    let y = forward(&mut tape).unwrap();
    let dy = tensor(y.tensor().device(), "dy", y.tensor().shape());
    let gradients = tape.backward(&y, dy).unwrap();
    let mut averages = tape.into_buffer_updates();
    std::iter::once(y.tensor().clone())
        .chain(gradients.iter().map(|(_, g)| g.clone()))
        .chain(averages.drain().map(|(_, value)| value))
        .collect()
}

fn assert_close(got: &[Tensor], want: &[Tensor], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = deviation(got.as_slice().unwrap(), want.as_slice().unwrap());
        assert!(off <= tolerance, "result {i} is off by {off:.1e}");
    }
}

/// A BatchNorm with its running averages and its inputs: x and a residual.
fn norm(parameters: &mut Parameters, device: &Device, shape: &[usize]) -> BatchNorm {
    parameter(parameters, device, "x", shape);
    parameter(parameters, device, "residual", shape);
    batch_norm(parameters, device, shape[shape.len() - 1])
}

#[test]
fn batch_norm_with_residual_and_relu_is_the_three_in_a_row() {
    let device = device();
    for shape in [[3, 7, 7, 5], [2, 4, 4, 16], [1, 9, 1, 1], [4, 16, 16, 64]] {
        for mode in [Mode::Train, Mode::TrainFrozenNorm] {
            for (with_residual, relu) in [(true, true), (true, false), (false, true)] {
                let mut parameters = Parameters::new();
                let norm = norm(&mut parameters, &device, &shape);
                let [x, residual] = ["x", "residual"].map(|name| parameters.find(name).unwrap());
                let fused = outcome(&parameters, mode, |tape| {
                    let x = tape.parameter(x);
                    let residual = with_residual.then(|| tape.parameter(residual));
                    ops::batch_norm(tape, &x, &norm, residual.as_ref(), relu)
                });
                let composed = outcome(&parameters, mode, |tape| {
                    let x = tape.parameter(x);
                    let mut y = ops::batch_norm(tape, &x, &norm, None, false)?;
                    if with_residual {
                        let residual = tape.parameter(residual);
                        y = ops::add(tape, &y, &residual)?;
                    }
                    if relu { ops::relu(tape, &y) } else { Ok(y) }
                });
                assert_close(&fused, &composed, 1e-6);
            }
        }
    }
}

#[test]
fn a_convolution_behind_a_batch_norm_is_both_in_a_row() {
    let device = device();
    for mode in [Mode::Train, Mode::TrainFrozenNorm] {
        let mut parameters = Parameters::new();
        let norm = norm(&mut parameters, &device, &[3, 7, 7, 8]);
        let w = parameter(&mut parameters, &device, "w", &[16, 3, 3, 8]);
        let x = parameters.find("x").unwrap();
        let conv = Conv2d { stride: 2, padding: 1, channel_sums: true };
        let fused = outcome(&parameters, mode, |tape| {
            let x = tape.parameter(x);
            ops::norm_conv2d(tape, x, &norm, w, conv)
        });
        let composed = outcome(&parameters, mode, |tape| {
            let x = tape.parameter(x);
            let y = ops::batch_norm(tape, &x, &norm, None, true)?;
            let w = tape.parameter(w);
            ops::conv2d(tape, &y, &w, conv)
        });
        assert!(fused.iter().map(bits).eq(composed.iter().map(bits)), "{mode:?}");
    }
}

#[test]
fn a_pair_of_batch_norms_is_both_their_sum_and_a_relu() {
    let device = device();
    for mode in [Mode::Train, Mode::TrainFrozenNorm] {
        let mut parameters = Parameters::new();
        let norm = norm(&mut parameters, &device, &[3, 7, 7, 8]);
        let mut add = |name: &str, kind, centre: f32| {
            let values = uniform(name, 8).iter().map(|u| centre + 0.5 * u).collect();
            parameters.add(name, kind, Tensor::from_vec(&device, &[8], values).unwrap()).unwrap()
        };
        let other = BatchNorm {
            gamma: add("another gamma", ParameterKind::Norm, 1.0),
            beta: None,
            running_mean: add("another mean", ParameterKind::Buffer, 0.0),
            running_var: add("another var", ParameterKind::Buffer, 1.0),
            ..norm
        };
        let [x, residual] = ["x", "residual"].map(|name| parameters.find(name).unwrap());
        let fused = outcome(&parameters, mode, |tape| {
            let (x, residual) = (tape.parameter(x), tape.parameter(residual));
            let shortcut = ops::norm_shortcut(tape, residual, &other)?;
            ops::norm_pair(tape, x, &norm, shortcut)
        });
        let composed = outcome(&parameters, mode, |tape| {
            let (x, residual) = (tape.parameter(x), tape.parameter(residual));
            let residual = ops::batch_norm(tape, &residual, &other, None, false)?;
            let x = ops::batch_norm(tape, &x, &norm, None, false)?;
            let sum = ops::add(tape, &x, &residual)?;
            ops::relu(tape, &sum)
        });
        assert_close(&fused, &composed, 1e-6);
    }
}

/// The CPU has no fused kernels for it.
#[test]
fn a_first_layer_is_the_three_in_a_row() {
    let device = device();
    for mode in [Mode::Train, Mode::TrainFrozenNorm] {
        let mut parameters = Parameters::new();
        let norm = norm(&mut parameters, &device, &[3, 7, 7, 8]);
        let w = parameter(&mut parameters, &device, "w", &[8, 3, 3, 3]);
        let images = tensor(&device, "images", &[3, 7, 7, 3]);
        let conv = Conv2d { stride: 1, padding: 1, channel_sums: true };
        let fused = outcome(&parameters, mode, |tape| {
            let images = tape.input(images.clone());
            ops::first_layer(tape, images, w, conv, &norm)
        });
        let composed = outcome(&parameters, mode, |tape| {
            let (images, w) = (tape.input(images.clone()), tape.parameter(w));
            let y = ops::conv2d(tape, &images, &w, conv)?;
            ops::batch_norm(tape, &y, &norm, None, true)
        });
        assert!(fused.iter().map(bits).eq(composed.iter().map(bits)), "{mode:?}");
    }
}

/// Algorithm 1 of arXiv:1502.03167, and that paper's form of the chain rule, in f64 loops.
#[test]
fn batch_norm_is_the_papers() {
    let device = device();
    for shape in [[3, 7, 7, 5], [2, 2, 1, 40], [8, 32, 32, 3]] {
        let mut parameters = Parameters::new();
        let norm = norm(&mut parameters, &device, &shape);
        let x_id = parameters.find("x").unwrap();
        let got = outcome(&parameters, Mode::Train, |tape| {
            let x = tape.parameter(x_id);
            ops::batch_norm(tape, &x, &norm, None, false)
        });
        let value = |id| parameters.get(id).to_vec().unwrap();
        let (x, gamma, beta) = (value(x_id), value(norm.gamma), value(norm.beta.unwrap()));
        let (mean_before, var_before) = (value(norm.running_mean), value(norm.running_var));
        let dy = uniform("dy", x.len());
        let channels = gamma.len();
        let rows = x.len() / channels;
        let mut want = [x.len(), x.len(), channels, channels, channels, channels].map(|len| vec![0f32; len]);
        for c in 0..channels {
            let column = |values: &[f32]| -> Vec<f64> {
                values.iter().skip(c).step_by(channels).map(|v| f64::from(*v)).collect()
            };
            let (x, dy, m) = (column(&x), column(&dy), rows as f64);
            let (gamma, beta) = (f64::from(gamma[c]), f64::from(beta[c]));
            let mean = x.iter().sum::<f64>() / m;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / m;
            let deviation = (variance + 1e-5).sqrt();
            let x_hat: Vec<f64> = x.iter().map(|x| (x - mean) / deviation).collect();
            let d_x_hat: Vec<f64> = dy.iter().map(|dy| dy * gamma).collect();
            let d_variance: f64 =
                (0..rows).map(|i| d_x_hat[i] * (x[i] - mean) * -0.5 * deviation.powi(-3)).sum();
            let d_mean = -d_x_hat.iter().sum::<f64>() / deviation
                - d_variance * 2.0 * x.iter().map(|x| x - mean).sum::<f64>() / m;
            for i in 0..rows {
                let at = i * channels + c;
                want[0][at] = (gamma * x_hat[i] + beta) as f32;
                want[1][at] =
                    (d_x_hat[i] / deviation + d_variance * 2.0 * (x[i] - mean) / m + d_mean / m) as f32;
            }
            want[2][c] = dy.iter().zip(&x_hat).map(|(dy, x)| dy * x).sum::<f64>() as f32;
            want[3][c] = dy.iter().sum::<f64>() as f32;
            want[4][c] = (0.9 * f64::from(mean_before[c]) + 0.1 * mean) as f32;
            want[5][c] = (0.9 * f64::from(var_before[c]) + 0.1 * variance * m / (m - 1.0)) as f32;
        }
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let off = deviation(got.as_slice().unwrap(), want);
            println!("batch_norm {shape:?}: result {i} off by {off:.1e}");
            assert!(off < 3e-6, "{shape:?}: result {i} is off by {off:.1e}");
        }
    }
}

/// A mean far from zero costs the variance some digits, but must not cost all of them.
#[test]
fn batch_norm_stands_a_mean_of_thirty_deviations() {
    let device = device();
    let mut parameters = Parameters::new();
    let norm = norm(&mut parameters, &device, &[16, 16, 16, 8]);
    let x_id = parameters.find("x").unwrap();
    let flat = |tape: &mut Tape| {
        let x = tape.parameter(x_id);
        ops::batch_norm(tape, &x, &norm, None, false)
    };
    let want = outcome(&parameters, Mode::Train, flat);
    let x = parameters.get_mut(x_id).as_mut_slice().unwrap();
    x.iter_mut().for_each(|x| *x += 17.3);
    let got = outcome(&parameters, Mode::Train, flat);
    // The shift changes neither y, nor any gradient, nor the running variance; it changes only the running mean.
    for i in [0, 1, 2, 3, 5] {
        let off = deviation(got[i].as_slice().unwrap(), want[i].as_slice().unwrap());
        println!("result {i} off by {off:.1e}");
        assert!(off < 2e-4, "result {i} is off by {off:.1e}");
    }
}

#[test]
fn channel_sums_of_a_convolution_are_those_that_batch_norm_takes() {
    let device = device();
    for (shape, out, stride) in [([3, 7, 7, 5], 6, 2), ([4, 8, 8, 16], 32, 1), ([2, 16, 16, 64], 64, 1)] {
        let mut parameters = Parameters::new();
        let norm = norm(&mut parameters, &device, &[1, 1, 1, out]);
        let image = parameter(&mut parameters, &device, "image", &shape);
        let w = parameter(&mut parameters, &device, "w", &[out, 3, 3, shape[3]]);
        let run = |channel_sums| {
            outcome(&parameters, Mode::Train, |tape| {
                let (x, w) = (tape.parameter(image), tape.parameter(w));
                let conv = Conv2d { stride, padding: 1, channel_sums };
                let y = ops::conv2d(tape, &x, &w, conv)?;
                assert_eq!(y.channel_sums().is_some(), channel_sums);
                ops::batch_norm(tape, &y, &norm, None, true)
            })
        };
        assert_close(&run(true), &run(false), 5e-6);
    }
}

/// c (m, n) = a (m, k) b (k, n), by the definition; a or b may be given transposed.
fn product(
    m: usize,
    n: usize,
    k: usize,
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f32> {
    let sum = |i, j| (0..k).map(|l| f64::from(a(i, l)) * f64::from(b(l, j))).sum::<f64>();
    (0..m * n).map(|at| sum(at / n, at % n) as f32).collect()
}

/// With equal logits, selecting is a convolution that takes half of each stream; fusing is a product of the mean with
/// two ones.
#[test]
fn streams_are_fused_and_selected_as_products_do_it() {
    let device = device();
    for [n, h, w, c] in [[1, 1, 1, 1], [3, 5, 4, 7], [2, 8, 8, 32]] {
        let mut parameters = Parameters::new();
        let x = parameter(&mut parameters, &device, "x", &[n, h, w, 2 * c]);
        let halves = |each: f32, shape: &[usize]| {
            let weight = (0..2 * c * c).map(|i| if i / (2 * c) == i % c { each } else { 0.0 });
            Tensor::from_vec(&device, shape, weight.collect()).unwrap()
        };
        let selected = outcome(&parameters, Mode::Train, |tape| {
            let (x, logits) = (tape.parameter(x), Tensor::full(&device, &[n, 2 * c], 3.0)?);
            let logits = tape.input(logits);
            ops::select(tape, &x, &logits)
        });
        let convolved = outcome(&parameters, Mode::Train, |tape| {
            let (x, weight) = (tape.parameter(x), tape.input(halves(0.5, &[c, 1, 1, 2 * c])));
            ops::conv2d(tape, &x, &weight, Conv2d { stride: 1, padding: 0, channel_sums: false })
        });
        assert_close(&selected, &convolved, 1e-6);
        let fused = outcome(&parameters, Mode::Train, |tape| {
            let x = tape.parameter(x);
            ops::fuse(tape, &x)
        });
        let product = outcome(&parameters, Mode::Train, |tape| {
            let (x, weight) = (tape.parameter(x), tape.input(halves(1.0, &[c, 2 * c])));
            let mean = ops::global_avg_pool(tape, &x)?;
            ops::linear(tape, &mean, &weight, None)
        });
        assert_close(&fused, &product, 2e-6);
    }
}

#[test]
fn a_dense_layer_is_three_products() {
    let device = device();
    for (rows, inputs, outputs) in [(30, 24, 17), (1, 1, 1), (7, 130, 64), (64, 3, 200)] {
        let mut parameters = Parameters::new();
        let x = parameter(&mut parameters, &device, "x", &[rows, inputs]);
        let w = parameter(&mut parameters, &device, "w", &[outputs, inputs]);
        let bias = parameter(&mut parameters, &device, "bias", &[outputs]);
        let got = outcome(&parameters, Mode::Train, |tape| {
            let (x, w, bias) = (tape.parameter(x), tape.parameter(w), tape.parameter(bias));
            ops::linear(tape, &x, &w, Some(&bias))
        });
        let [x, w, bias] = [x, w, bias].map(|id| parameters.get(id).as_slice().unwrap());
        let dy = tensor(&device, "dy", &[rows, outputs]);
        let dy = dy.as_slice().unwrap();
        let mut y = product(rows, outputs, inputs, |i, l| x[i * inputs + l], |l, j| w[j * inputs + l]);
        y.chunks_mut(outputs).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        let dx = product(rows, inputs, outputs, |i, l| dy[i * outputs + l], |l, j| w[l * inputs + j]);
        let dw = product(outputs, inputs, rows, |i, l| dy[l * outputs + i], |l, j| x[l * inputs + j]);
        let dbias = product(1, outputs, rows, |_, _| 1.0, |l, j| dy[l * outputs + j]);
        let want: Vec<Tensor> =
            [(y, [rows, outputs]), (dx, [rows, inputs]), (dw, [outputs, inputs]), (dbias, [1, outputs])]
                .map(|(values, shape)| Tensor::from_vec(&device, &shape, values).unwrap())
                .into();
        assert_close(&got, &want, 2e-6);
    }
}

/// Algorithm 1 of arXiv:2002.05709 on plain vectors: normalisation, all pairs, l(i,j).
fn algorithm_1(z: &[f64], dim: usize, temperature: f64) -> f64 {
    let count = z.len() / dim;
    let mut s = vec![0.0; count * count];
    let norm = |i: usize| z[i * dim..(i + 1) * dim].iter().map(|v| v * v).sum::<f64>().sqrt();
    for i in 0..count {
        for j in 0..count {
            let product: f64 = (0..dim).map(|c| z[i * dim + c] * z[j * dim + c]).sum();
            s[i * count + j] = product / (norm(i) * norm(j));
        }
    }
    let l = |i: usize, j: usize| -> f64 {
        let mut denominator = 0.0;
        for k in 0..count {
            if k != i {
                denominator += (s[i * count + k] / temperature).exp();
            }
        }
        -((s[i * count + j] / temperature).exp() / denominator).ln()
    };
    let images = count / 2;
    let mut total = 0.0;
    for k in 0..images {
        total += l(k, k + images) + l(k + images, k);
    }
    total / (2 * images) as f64
}

#[test]
fn nt_xent_is_algorithm_1_and_its_gradient() {
    let device = device();
    for (count, dim, temperature) in [(4, 2, 0.5), (10, 3, 0.1), (62, 7, 0.5), (34, 16, 1.0)] {
        let mut parameters = Parameters::new();
        let id = parameter(&mut parameters, &device, "z", &[count, dim]);
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let z = tape.parameter(id);
        let z = ops::l2_normalize(&mut tape, &z).unwrap();
        let (loss, sums) = ops::nt_xent(&mut tape, &z, temperature).unwrap();
        let figures = sums.figures().unwrap();
        let one = Tensor::full(&device, &[1], 1.0).unwrap();
        let gradients = tape.backward(&loss, one).unwrap();
        let got = gradients.get(id).unwrap().as_slice().unwrap();

        let z: Vec<f64> = uniform("z", count * dim).into_iter().map(f64::from).collect();
        let temperature = f64::from(temperature);
        let want = algorithm_1(&z, dim, temperature);
        assert!((figures.loss - want).abs() < 1e-6 * want.max(1.0), "{} {want}", figures.loss);
        assert!((f64::from(loss.tensor().as_slice().unwrap()[0]) - want).abs() < 1e-6 * want.max(1.0));
        // In f64, finite differences are good to nine digits.
        let want: Vec<f32> = (0..z.len())
            .map(|i| {
                let at = |value| {
                    let mut z = z.clone();
                    z[i] = value;
                    algorithm_1(&z, dim, temperature)
                };
                ((at(z[i] + 1e-5) - at(z[i] - 1e-5)) / 2e-5) as f32
            })
            .collect();
        let off = deviation(got, &want);
        println!("nt_xent {count} x {dim}: gradient off by {off:.1e}");
        assert!(off < 5e-6, "{count} x {dim}: {off:.1e}");
    }
}

/// Entropy and accuracy are those of each anchor's softmax over all other views.
#[test]
fn figures_of_nt_xent_are_those_of_the_softmax() {
    let device = device();
    let (count, dim, temperature) = (300, 6, 0.2f32);
    let z = uniform("z", count * dim);
    let parameters = Parameters::new();
    let mut tape = Tape::new(&parameters, Mode::Eval, &SingleProcess);
    let var = tape.input(Tensor::from_slice(&device, &[count, dim], &z).unwrap());
    let (_, sums) = ops::nt_xent(&mut tape, &var, temperature).unwrap();
    let figures = sums.figures().unwrap();
    let (mut entropy, mut first) = (0.0, 0);
    for i in 0..count {
        let s: Vec<f64> = (0..count)
            .map(|k| {
                let product = (0..dim).map(|c| f64::from(z[i * dim + c]) * f64::from(z[k * dim + c]));
                product.sum::<f64>() / f64::from(temperature)
            })
            .collect();
        let others = || (0..count).filter(|&k| k != i);
        let total: f64 = others().map(|k| s[k].exp()).sum();
        entropy -= others().map(|k| s[k].exp() / total * (s[k].exp() / total).ln()).sum::<f64>();
        let positive = (i + count / 2) % count;
        first += usize::from(others().all(|k| k == positive || s[k] < s[positive]));
    }
    assert!((figures.entropy - entropy / count as f64).abs() < 1e-5);
    assert_eq!(figures.contrastive_accuracy, first as f64 / count as f64);
}

#[test]
fn l2_normalize_is_the_projection_onto_the_sphere() {
    let device = device();
    let mut parameters = Parameters::new();
    let id = parameter(&mut parameters, &device, "x", &[9, 37]);
    // A row of zeros has no direction: its output must be zeros, not NaN.
    parameters.get_mut(id).as_mut_slice().unwrap()[37..74].fill(0.0);
    let got = outcome(&parameters, Mode::Train, |tape| {
        let x = tape.parameter(id);
        ops::l2_normalize(tape, &x)
    });
    let (x, dy) = (parameters.get(id).to_vec().unwrap(), uniform("dy", 9 * 37));
    let (y, dx) = (got[0].as_slice().unwrap(), got[1].as_slice().unwrap());
    assert!(y[37..74].iter().all(|v| *v == 0.0) && dx[37..74].iter().all(|v| v.is_finite()));
    for row in (0..9).filter(|&row| row != 1) {
        let range = row * 37..(row + 1) * 37;
        let (x, dy) = (&x[range.clone()], &dy[range.clone()]);
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let norm = dot(x, x).sqrt();
        let want: Vec<f32> = x.iter().map(|x| (f64::from(*x) / norm) as f32).collect();
        assert!(deviation(&y[range.clone()], &want) < 1e-6);
        let along = dot(x, dy) / (norm * norm);
        let want: Vec<f32> = x
            .iter()
            .zip(dy)
            .map(|(x, dy)| ((f64::from(*dy) - f64::from(*x) * along) / norm) as f32)
            .collect();
        assert!(deviation(&dx[range], &want) < 1e-6);
    }
}

/// The loss of large logits is finite, and its gradient is that of the softmax.
#[test]
fn softmax_cross_entropy_survives_large_logits() {
    let device = device();
    let mut parameters = Parameters::new();
    let logits = vec![1000.0, 0.0, -1000.0, -3000.0, -3001.0, -3000.5];
    let value = Tensor::from_vec(&device, &[2, 3], logits).unwrap();
    let id = parameters.add("logits", ParameterKind::Weight, value).unwrap();
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    let var = tape.parameter(id);
    let loss = ops::softmax_cross_entropy(&mut tape, &var, &[1, 0]).unwrap();
    let rest = (1.0 + (-1.0f64).exp() + (-0.5f64).exp()).ln();
    assert!((f64::from(loss.tensor().as_slice().unwrap()[0]) - (1000.0 + rest) / 2.0).abs() < 1e-4);
    let gradients = tape.backward(&loss, Tensor::full(&device, &[1], 2.0).unwrap()).unwrap();
    let gradient = gradients.get(id).unwrap().as_slice().unwrap();
    let p = [0.0, -1.0, -0.5].map(|s: f64| (s - rest).exp() as f32);
    assert!(deviation(gradient, &[1.0, -1.0, 0.0, p[0] - 1.0, p[1], p[2]]) < 1e-6);
}

/// Working in place, backward must not change values that others use.
#[test]
fn gradients_of_several_users_do_not_write_over_each_other() {
    let device = device();
    let mut parameters = Parameters::new();
    let id = parameter(&mut parameters, &device, "x", &[4, 6]);
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    let x = tape.parameter(id);
    let r = ops::relu(&mut tape, &x).unwrap();
    let sum = ops::add(&mut tape, &r, &x).unwrap();
    let sum = ops::add(&mut tape, &sum, &sum).unwrap();
    let dy = tensor(&device, "dy", &[4, 6]);
    let before = bits(&dy);
    let gradients = tape.backward(&sum, dy.clone()).unwrap();
    assert_eq!(bits(&dy), before);
    let got = gradients.get(id).unwrap().as_slice().unwrap();
    let want = |i: usize| {
        let positive = parameters.get(id).as_slice().unwrap()[i] > 0.0;
        2.0 * dy.as_slice().unwrap()[i] * if positive { 2.0 } else { 1.0 }
    };
    assert!((0..24).all(|i| got[i] == want(i)));
}
