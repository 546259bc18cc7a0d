//! Every operator's gradients against finite differences, including awkward shapes.

mod common;

use common::gradient_check::{Check, check_gradients};
use common::values::uniform;
use common::{device, parameter, parameter_of, tensor};
use simclr_engine::ops::{self, BatchNorm, Conv2d};
use simclr_engine::{Mode, ParameterKind, Parameters, Result, SingleProcess, Tape, Tensor, Var};

#[test]
fn conv2d() {
    // batch, height, width, channels in, channels out, kernel, stride, padding
    let shapes = [
        (1, 7, 7, 1, 1, 3, 1, 1),
        (3, 7, 7, 5, 3, 3, 2, 1),
        (2, 8, 5, 3, 16, 7, 2, 3),
        (3, 9, 7, 16, 8, 5, 3, 2),
        (5, 6, 6, 4, 33, 1, 2, 0),
        (1, 4, 4, 17, 16, 1, 1, 0),
        (2, 5, 5, 2, 3, 3, 3, 0),
        (1, 3, 3, 2, 2, 3, 1, 2),
        (2, 1, 1, 3, 5, 1, 1, 0),
    ];
    for shape @ (n, h, w, c, k, side, stride, padding) in shapes {
        for channel_sums in [false, true] {
            let device = device();
            let mut parameters = Parameters::new();
            let x = parameter(&mut parameters, &device, "x", &[n, h, w, c]);
            let weights = parameter(&mut parameters, &device, "w", &[k, side, side, c]);
            check_gradients(&format!("conv2d {shape:?}"), &parameters, Check::LINEAR, |tape| {
                let (x, w) = (tape.parameter(x), tape.parameter(weights));
                let conv = Conv2d { stride, padding, channel_sums };
                ops::conv2d(tape, &x, &w, conv)
            });
        }
    }
}

#[test]
fn batch_norm_in_every_form() {
    let shapes: [&[usize]; 5] = [&[1, 7, 7, 1], &[3, 7, 7, 5], &[2, 3, 3, 16], &[9, 6], &[2, 2, 1, 300]];
    for shape in shapes {
        for mode in [Mode::Train, Mode::TrainFrozenNorm] {
            for form in 0..8 {
                let (with_beta, with_residual, relu) = (form & 1 > 0, form & 2 > 0, form & 4 > 0);
                let device = device();
                let mut parameters = Parameters::new();
                let channels = [shape[shape.len() - 1]];
                let x = parameter(&mut parameters, &device, "x", shape);
                let gammas = uniform("gamma", channels[0]).iter().map(|u| 1.0 + 0.5 * u).collect();
                let gamma = parameter_of(&mut parameters, &device, "gamma", &channels, gammas);
                let beta = with_beta.then(|| parameter(&mut parameters, &device, "beta", &channels));
                let residual = with_residual.then(|| parameter(&mut parameters, &device, "residual", shape));
                let mut average = |name: &str, value| {
                    parameters.add(name, ParameterKind::Buffer, value).expect("a new name")
                };
                let running_mean = average("mean", tensor(&device, "mean", &channels));
                let variances = uniform("var", channels[0]).iter().map(|u| 1.5 + u).collect();
                let variances = simclr_engine::Tensor::from_vec(&device, &channels, variances).unwrap();
                let running_var = average("var", variances);
                let norm = BatchNorm { gamma, beta, running_mean, running_var, epsilon: 1e-5, decay: 0.9 };
                // If not normalised by its own batch, an average of many ReLUs has many kinks nearby.
                let step = if relu { 1e-3 } else { Check::CURVED.step };
                let check = Check { mode, step, ..Check::CURVED };
                let what = format!(
                    "batch_norm {shape:?} {mode:?} beta {with_beta} residual {with_residual} relu {relu}"
                );
                check_gradients(&what, &parameters, check, |tape| {
                    let x = tape.parameter(x);
                    let residual = residual.map(|id| tape.parameter(id));
                    ops::batch_norm(tape, &x, &norm, residual.as_ref(), relu)
                });
            }
        }
    }
}

#[test]
fn max_pool() {
    for (shape, side, stride, padding) in [
        ([2, 7, 7, 3], 3, 2, [1, 1]),
        ([1, 8, 8, 1], 2, 2, [0, 0]),
        ([2, 8, 6, 3], 3, 2, [0, 1]),
        ([3, 5, 6, 4], 3, 1, [1, 1]),
        ([2, 7, 4, 17], 5, 3, [2, 2]),
        ([1, 3, 3, 2], 1, 1, [0, 0]),
    ] {
        let device = device();
        let mut parameters = Parameters::new();
        let len: usize = shape.iter().product();
        // All values differ by at least 0.02, so that a small step changes no window's maximum.
        let mut order: Vec<usize> = (0..len).collect();
        let keys = uniform("order", len);
        order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
        let mut values = vec![0.0; len];
        for (rank, &place) in order.iter().enumerate() {
            values[place] = 0.02 * (rank as f32 - len as f32 / 2.0) + 0.01;
        }
        let x = parameter_of(&mut parameters, &device, "x", &shape, values);
        let check = Check { step: 0.005, tolerance: 1e-3, ..Check::LINEAR };
        check_gradients(&format!("max_pool {shape:?}"), &parameters, check, |tape| {
            let x = tape.parameter(x);
            ops::max_pool(tape, &x, side, stride, padding)
        });
    }
}

#[test]
fn avg_pool() {
    for shape in [[2, 6, 4, 3], [3, 5, 7, 4], [1, 1, 1, 2], [2, 3, 1, 17]] {
        for (stride, zeros) in [(1, false), (1, true), (2, false), (2, true)] {
            let device = device();
            let mut parameters = Parameters::new();
            let x = parameter(&mut parameters, &device, "x", &shape);
            let what = format!("avg_pool {shape:?} / {stride}, zeros {zeros}");
            // With a second user of x, so that one gradient is added to the other.
            check_gradients(&what, &parameters, Check::LINEAR, |tape| {
                let x = tape.parameter(x);
                let pooled = ops::avg_pool(tape, &x, stride, zeros)?;
                let pooled = ops::global_avg_pool(tape, &pooled)?;
                let mean = ops::global_avg_pool(tape, &x)?;
                ops::add(tape, &pooled, &mean)
            });
        }
    }
}

#[test]
fn global_avg_pool() {
    for shape in [[1, 7, 7, 1], [3, 4, 4, 20], [2, 1, 1, 33], [5, 2, 3, 7]] {
        let device = device();
        let mut parameters = Parameters::new();
        let x = parameter(&mut parameters, &device, "x", &shape);
        let what = format!("global_avg_pool {shape:?}");
        check_gradients(&what, &parameters, Check::LINEAR, |tape| {
            let x = tape.parameter(x);
            ops::global_avg_pool(tape, &x)
        });
    }
}

#[test]
fn fuse_and_select() {
    for [n, h, w, c] in [[1, 1, 1, 1], [3, 4, 3, 5], [2, 5, 5, 16], [5, 2, 1, 33]] {
        let device = device();
        let mut parameters = Parameters::new();
        let x = parameter(&mut parameters, &device, "x", &[n, h, w, 2 * c]);
        let logits = parameter(&mut parameters, &device, "logits", &[n, 2 * c]);
        let what = format!("fuse {n} x {h} x {w} x {c}");
        check_gradients(&what, &parameters, Check::CURVED, |tape| {
            let (x, logits) = (tape.parameter(x), tape.parameter(logits));
            // With a second user of x, so that one gradient is added to the other.
            let selected = ops::select(tape, &x, &logits)?;
            let (selected, fused) = (ops::global_avg_pool(tape, &selected)?, ops::fuse(tape, &x)?);
            ops::add(tape, &fused, &selected)
        });
        let what = format!("select {n} x {h} x {w} x {c}");
        check_gradients(&what, &parameters, Check::CURVED, |tape| {
            let (x, logits) = (tape.parameter(x), tape.parameter(logits));
            ops::select(tape, &x, &logits)
        });
    }
}

#[test]
fn linear() {
    for (rows, into, out) in [(1, 1, 1), (7, 5, 3), (33, 17, 40), (2, 128, 10)] {
        for with_bias in [false, true] {
            let device = device();
            let mut parameters = Parameters::new();
            let x = parameter(&mut parameters, &device, "x", &[rows, into]);
            let w = parameter(&mut parameters, &device, "w", &[out, into]);
            let bias = with_bias.then(|| parameter(&mut parameters, &device, "bias", &[out]));
            let what = format!("linear {rows} x {into} -> {out}, bias {with_bias}");
            check_gradients(&what, &parameters, Check::LINEAR, |tape| {
                let (x, w) = (tape.parameter(x), tape.parameter(w));
                let bias = bias.map(|id| tape.parameter(id));
                ops::linear(tape, &x, &w, bias.as_ref())
            });
        }
    }
}

#[test]
fn relu_and_add() {
    let device = device();
    let mut parameters = Parameters::new();
    let shape = [3, 7, 5];
    // All values are further from the kink than the step.
    let values = uniform("x", 105).iter().map(|u| u + 0.2f32.copysign(*u)).collect();
    let a = parameter_of(&mut parameters, &device, "x", &shape, values);
    let b = parameter(&mut parameters, &device, "b", &shape);
    let check = Check { step: 0.1, ..Check::LINEAR };
    check_gradients("relu(a) + b + relu(a)", &parameters, check, |tape| {
        let (a, b) = (tape.parameter(a), tape.parameter(b));
        let r = ops::relu(tape, &a)?;
        let sum = ops::add(tape, &r, &b)?;
        ops::add(tape, &sum, &r)
    });
}

#[test]
fn l2_normalize() {
    for shape in [[1, 2], [7, 5], [33, 128], [3, 1]] {
        let device = device();
        let mut parameters = Parameters::new();
        let x = parameter(&mut parameters, &device, "x", &shape);
        let what = format!("l2_normalize {shape:?}");
        check_gradients(&what, &parameters, Check::CURVED, |tape| {
            let x = tape.parameter(x);
            ops::l2_normalize(tape, &x)
        });
    }
}

#[test]
fn nt_xent() {
    for (anchors, dim, temperature) in [(4, 1, 1.0), (6, 3, 0.5), (14, 7, 0.5), (258, 5, 1.0), (10, 16, 0.1)]
    {
        for normalize in [false, true] {
            let device = device();
            let mut parameters = Parameters::new();
            let z = parameter(&mut parameters, &device, "z", &[anchors, dim]);
            // The lower the temperature, the more the loss curves.
            let step = 1e-2 * temperature;
            let check = Check { step, tolerance: 4e-3, ..Check::CURVED };
            let what = format!("nt_xent {anchors} x {dim}, tau {temperature}, normalize {normalize}");
            check_gradients(&what, &parameters, check, |tape| {
                let mut z = tape.parameter(z);
                if normalize {
                    z = ops::l2_normalize(tape, &z)?;
                }
                Ok(ops::nt_xent(tape, &z, temperature)?.0)
            });
        }
    }
}

/// One of four losses of z, by `form`: NT-Logistic and margin triplet, each with all negatives or mined ones.
fn pair_loss(tape: &mut Tape, z: &Var, temperature: f32, form: usize) -> Result<Var> {
    let semi_hard = form % 2 == 1;
    let (loss, _) = match form / 2 {
        0 => ops::nt_logistic(tape, z, temperature, semi_hard)?,
        _ => ops::margin_triplet(tape, z, temperature, 0.7, semi_hard)?,
    };
    Ok(loss)
}

#[test]
fn pair_losses() {
    for (anchors, dim, temperature) in [(4, 1, 1.0), (6, 7, 0.5), (14, 3, 1.0), (30, 5, 1.0)] {
        for (form, normalize) in (0..4).flat_map(|form| [(form, false), (form, true)]) {
            // Normalising rows of one value would leave only their signs.
            if normalize && dim == 1 {
                continue;
            }
            let device = device();
            let mut parameters = Parameters::new();
            let z = parameter(&mut parameters, &device, "z", &[anchors, dim]);
            // The step is so small that no triplet becomes active within it, and no other negative is mined.
            let check = Check { step: 1e-3, tolerance: 4e-3, ..Check::CURVED };
            let what =
                format!("pair loss {form}, {anchors} x {dim}, tau {temperature}, normalize {normalize}");
            check_gradients(&what, &parameters, check, |tape| {
                let mut z = tape.parameter(z);
                if normalize {
                    z = ops::l2_normalize(tape, &z)?;
                }
                pair_loss(tape, &z, temperature, form)
            });
        }
    }
}

#[test]
fn softmax_cross_entropy() {
    for (rows, classes) in [(1, 2), (7, 10), (3, 33), (4, 1)] {
        let device = device();
        let mut parameters = Parameters::new();
        let logits = parameter(&mut parameters, &device, "logits", &[rows, classes]);
        let labels: Vec<u32> = (0..rows).map(|i| ((7 * i + 3) % classes) as u32).collect();
        let check = Check { step: 2e-2, ..Check::CURVED };
        check_gradients("softmax_cross_entropy", &parameters, check, |tape| {
            let logits = tape.parameter(logits);
            ops::softmax_cross_entropy(tape, &logits, &labels)
        });
    }
}

#[test]
fn softmax_regression_is_a_dense_layer_and_its_loss() {
    for (rows, inputs, classes) in [(1, 1, 2), (9, 5, 3), (40, 17, 33)] {
        let device = device();
        let mut parameters = Parameters::new();
        let x = tensor(&device, "x", &[rows, inputs]);
        let w = parameter(&mut parameters, &device, "w", &[classes, inputs]);
        let bias = parameter(&mut parameters, &device, "bias", &[classes]);
        let labels: Vec<u32> = (0..rows).map(|i| ((7 * i + 3) % classes) as u32).collect();
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let (given, by_tape) = (tape.input(x.clone()), [w, bias].map(|id| tape.parameter(id)));
        let scores = ops::linear(&mut tape, &given, &by_tape[0], Some(&by_tape[1])).unwrap();
        let loss = ops::softmax_cross_entropy(&mut tape, &scores, &labels).unwrap();
        let gradients = tape.backward(&loss, Tensor::full(&device, &[1], 1.0).unwrap()).unwrap();

        let [w, bias] = [w, bias].map(|id| (id, parameters.get(id).clone()));
        let mut dw = Tensor::full(&device, &[classes, inputs], 7.0).unwrap();
        let mut dbias = Tensor::full(&device, &[classes], 7.0).unwrap();
        let mut run = |w: &Tensor, bias: &Tensor| {
            ops::softmax_regression(&x, w, bias, &labels, &mut dw, &mut dbias).unwrap()
        };
        // The loss has digits that f32 does not hold: tiny steps show its slope.
        let base = w.1.to_vec().unwrap();
        let at = |moved: f32| {
            let mut values = base.clone();
            values[0] += moved;
            Tensor::from_vec(&device, &[classes, inputs], values).unwrap()
        };
        let slope = (run(&at(1e-2), &bias.1) - run(&at(-1e-2), &bias.1)) / 2e-2;
        let exact = run(&w.1, &bias.1);
        assert_eq!([exact as f32], loss.tensor().as_slice().unwrap());
        assert!((slope - f64::from(dw.as_slice().unwrap()[0])).abs() < 1e-5, "{slope} {dw:?}");
        for (id, gradient) in [(w.0, &dw), (bias.0, &dbias)] {
            assert_eq!(gradients.get(id).unwrap().as_slice().unwrap(), gradient.as_slice().unwrap());
        }
    }
}
