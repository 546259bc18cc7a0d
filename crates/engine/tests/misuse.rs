//! Wrong input is reported by an error that names it, and NaN stays visible.

mod common;

use common::network::{CHANNELS, Network, SIZE};
use common::{device, parameter, tensor};
use simclr_engine::ops::{self, BatchNorm, Conv2d};
use simclr_engine::{Device, Mode, ParameterKind, Parameters, Result, SingleProcess, Tape, Tensor, Var};

const CONV: Conv2d = Conv2d { stride: 1, padding: 1, channel_sums: false };

/// The message of the error that `run` must return.
fn message<T>(run: impl FnOnce(&mut Tape, &Device) -> Result<T>) -> String {
    let device = device();
    let parameters = Parameters::new();
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    match run(&mut tape, &device) {
        Ok(_) => panic!("that must not succeed"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn wrong_shapes_name_operator_expected_and_got() {
    /// Input shapes, an operator, and the parts of its error's message.
    type Case<'a> = (&'a [&'a [usize]], fn(&mut Tape, &[Var]) -> Result<Var>, &'a [&'a str]);
    let cases: [Case; 17] = [
        (
            &[&[2, 7, 7, 3], &[8, 3, 3, 4]],
            |tape, v| ops::conv2d(tape, &v[0], &v[1], CONV),
            &["conv2d", "(out, h, w, 3)", "[2, 7, 7, 3]", "[8, 3, 3, 4]"],
        ),
        (
            &[&[2, 147], &[8, 3, 3, 3]],
            |tape, v| ops::conv2d(tape, &v[0], &v[1], CONV),
            &["conv2d", "(N, H, W, C)", "[2, 147]"],
        ),
        (
            &[&[2, 4, 4, 3], &[8, 7, 7, 3]],
            |tape, v| ops::conv2d(tape, &v[0], &v[1], CONV),
            &["conv2d", "kernel"],
        ),
        (
            &[&[2, 4, 4, 3], &[8, 3, 3, 3]],
            |tape, v| ops::conv2d(tape, &v[0], &v[1], Conv2d { stride: 0, ..CONV }),
            &["conv2d", "stride: 0"],
        ),
        (&[&[0, 4, 4, 3], &[8, 3, 3, 3]], |tape, v| ops::conv2d(tape, &v[0], &v[1], CONV), &["conv2d", "0"]),
        (&[&[2, 5], &[4, 6]], |tape, v| ops::linear(tape, &v[0], &v[1], None), &["linear", "6", "[2, 5]"]),
        (
            &[&[2, 5], &[4, 5], &[5]],
            |tape, v| ops::linear(tape, &v[0], &v[1], Some(&v[2])),
            &["linear", "a bias [4]", "[5]"],
        ),
        (&[&[2, 0], &[4, 0]], |tape, v| ops::linear(tape, &v[0], &v[1], None), &["linear", "[2, 0]"]),
        (&[&[2, 5], &[5, 2]], |tape, v| ops::add(tape, &v[0], &v[1]), &["add", "[2, 5]", "[5, 2]"]),
        (
            &[&[2, 5, 5]],
            |tape, v| ops::global_avg_pool(tape, &v[0]),
            &["global_avg_pool", "(N, H, W, C)", "[2, 5, 5]"],
        ),
        (&[&[2, 0, 5, 3]], |tape, v| ops::global_avg_pool(tape, &v[0]), &["global_avg_pool", "[2, 0, 5, 3]"]),
        (&[&[2, 1, 1, 3]], |tape, v| ops::max_pool(tape, &v[0], 3, 2, [0, 0]), &["max_pool", "window"]),
        (
            &[&[2, 4, 4, 3]],
            |tape, v| ops::max_pool(tape, &v[0], 2, 2, [2, 2]),
            &["max_pool", "window", "padding: [2, 2]"],
        ),
        (
            &[&[2, 4, 4, 3]],
            |tape, v| ops::avg_pool(tape, &v[0], 3, false),
            &["avg_pool", "windows of 2 x 2", "stride: 3"],
        ),
        (&[&[2, 4, 4, 3]], |tape, v| ops::fuse(tape, &v[0]), &["fuse", "(N, H, W, 2 C)", "[2, 4, 4, 3]"]),
        (
            &[&[2, 4, 4, 6], &[2, 3]],
            |tape, v| ops::select(tape, &v[0], &v[1]),
            &["select", "[2, 6]", "[2, 3]"],
        ),
        (&[&[12]], |tape, v| ops::l2_normalize(tape, &v[0]), &["l2_normalize", "(N, C)", "[12]"]),
    ];
    for (shapes, operator, parts) in cases {
        let said = message(|tape, device| {
            let values: Vec<Var> =
                shapes.iter().map(|shape| tape.input(tensor(device, "x", shape))).collect();
            operator(tape, &values)
        });
        assert_says(&said, parts);
    }
}

#[test]
fn losses_refuse_what_they_are_not_defined_for() {
    for (shape, temperature, parts) in [
        ([5, 4], 0.5, ["nt_xent", "two views", "[5, 4]"]),
        ([2, 4], 0.5, ["nt_xent", "at least two images", "[2, 4]"]),
        ([8, 4], 0.0, ["nt_xent", "temperature", "0"]),
        ([8, 4], -1.0, ["nt_xent", "temperature", "-1"]),
        ([8, 4], f32::NAN, ["nt_xent", "temperature", "NaN"]),
    ] {
        let said = message(|tape, device| {
            let z = tape.input(tensor(device, "z", &shape));
            ops::nt_xent(tape, &z, temperature)
        });
        assert_says(&said, &parts);
        let said = message(|tape, device| {
            let z = tape.input(tensor(device, "z", &shape));
            ops::nt_logistic(tape, &z, temperature, true)
        });
        assert_says(&said, &["nt_logistic", parts[1], parts[2]]);
    }
    for margin in [-0.5, f32::NAN, f32::INFINITY] {
        let said = message(|tape, device| {
            let z = tape.input(tensor(device, "z", &[8, 4]));
            ops::margin_triplet(tape, &z, 0.5, margin, false)
        });
        assert_says(&said, &["margin_triplet", "margin", "0 or more", &margin.to_string()]);
    }
    let said = message(|tape, device| {
        let logits = tape.input(tensor(device, "logits", &[3, 4]));
        ops::softmax_cross_entropy(tape, &logits, &[0, 4, 1])
    });
    assert_says(&said, &["softmax_cross_entropy", "label 4", "4 classes"]);
    let said = message(|tape, device| {
        let logits = tape.input(tensor(device, "logits", &[3, 4]));
        ops::softmax_cross_entropy(tape, &logits, &[0, 1])
    });
    assert_says(&said, &["softmax_cross_entropy", "3 labels", "2"]);
}

/// A BatchNorm over `sizes` = [gamma, beta, mean, var] channels.
fn norm(parameters: &mut Parameters, device: &Device, sizes: [usize; 4]) -> BatchNorm {
    let [gamma, beta, mean, var] = sizes;
    let mut add = |name: &str, kind, size, value| {
        let value = Tensor::full(device, &[size], value).unwrap();
        parameters.add(name, kind, value).unwrap()
    };
    BatchNorm {
        gamma: add("gamma", ParameterKind::Norm, gamma, 1.0),
        beta: Some(add("beta", ParameterKind::Norm, beta, 0.0)),
        running_mean: add("mean", ParameterKind::Buffer, mean, 0.0),
        running_var: add("var", ParameterKind::Buffer, var, 1.0),
        epsilon: 1e-5,
        decay: 0.9,
    }
}

#[test]
fn batch_norm_refuses_parameters_and_residuals_of_other_sizes() {
    let device = device();
    for mode in [Mode::Train, Mode::Eval] {
        for sizes in [[4, 3, 3, 3], [3, 4, 3, 3], [3, 3, 2, 3], [3, 3, 3, 1]] {
            let mut parameters = Parameters::new();
            let norm = norm(&mut parameters, &device, sizes);
            let mut tape = Tape::new(&parameters, mode, &SingleProcess);
            let x = tape.input(tensor(&device, "x", &[2, 5, 5, 3]));
            let said = ops::batch_norm(&mut tape, &x, &norm, None, false).unwrap_err();
            assert_says(&said.to_string(), &["batch_norm", "3"]);
        }
    }
    let mut parameters = Parameters::new();
    let norm = norm(&mut parameters, &device, [3; 4]);
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    let x = tape.input(tensor(&device, "x", &[2, 5, 5, 3]));
    let residual = tape.input(tensor(&device, "r", &[2, 3, 3, 3]));
    let said = ops::batch_norm(&mut tape, &x, &norm, Some(&residual), false).unwrap_err();
    assert_says(&said.to_string(), &["batch_norm", "[2, 5, 5, 3]", "[2, 3, 3, 3]"]);
    let shortcut = ops::norm_shortcut(&mut tape, residual, &norm).unwrap();
    let said = ops::norm_pair(&mut tape, x, &norm, shortcut).unwrap_err();
    assert_says(&said.to_string(), &["batch_norm", "[2, 5, 5, 3]", "[2, 3, 3, 3]"]);
    let nothing = tape.input(tensor(&device, "x", &[0, 5, 5, 3]));
    let said = ops::batch_norm(&mut tape, &nothing, &norm, None, false).unwrap_err();
    assert_says(&said.to_string(), &["batch_norm", "[0, 5, 5, 3]"]);
}

#[test]
fn backward_refuses_values_without_a_past_and_gradients_of_another_shape() {
    let said = message(|tape, device| {
        let x = tape.input(tensor(device, "x", &[2, 5]));
        let y = ops::relu(tape, &x)?;
        tape.backward(&y, tensor(device, "dy", &[2, 5]))
    });
    assert_says(&said, &["backward", "no parameter"]);
    let device = device();
    let mut parameters = Parameters::new();
    let id = parameter(&mut parameters, &device, "x", &[2, 5]);
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    let x = tape.parameter(id);
    let y = ops::relu(&mut tape, &x).unwrap();
    let said = tape.backward(&y, tensor(&device, "dy", &[5, 2])).unwrap_err();
    assert_says(&said.to_string(), &["backward", "[2, 5]", "[5, 2]"]);
}

#[test]
fn evaluation_records_nothing_and_changes_nothing() {
    let device = device();
    let (parameters, network) = Network::new(&device);
    let mut tape = Tape::new(&parameters, Mode::Eval, &SingleProcess);
    let views = tensor(&device, "views", &[4, SIZE, SIZE, CHANNELS]);
    let before = device.memory().live;
    for checkpoint in [false, true] {
        let (loss, figures) = network.loss(&mut tape, views.clone(), checkpoint).unwrap();
        assert!(figures.loss.is_finite() && !loss.needs_gradient());
        assert!(tape.backward(&loss, Tensor::full(&device, &[1], 1.0).unwrap()).is_err());
    }
    assert_eq!(format!("{tape:?}"), "Tape(Eval, 0 nodes)");
    assert_eq!(device.memory().live, before, "nothing is kept");
    assert!(tape.into_buffer_updates().iter().next().is_none());
}

/// Any NaN or infinity must make the loss NaN, where training looks for it: no maximum may swallow it.
#[test]
fn not_a_number_reaches_the_loss_from_everywhere() {
    let device = device();
    let (sound, network) = Network::new(&device);
    let views = || tensor(&device, "views", &[6, SIZE, SIZE, CHANNELS]);
    let loss = |parameters: &Parameters, views, mode| {
        let mut tape = Tape::new(parameters, mode, &SingleProcess);
        let (loss, figures) = network.loss(&mut tape, views, false).unwrap();
        assert_eq!(loss.tensor().as_slice().unwrap()[0].is_nan(), figures.loss.is_nan());
        figures.loss
    };
    for mode in [Mode::Train, Mode::TrainFrozenNorm, Mode::Eval] {
        assert!(loss(&sound, views(), mode).is_finite());
        for bad in [f32::NAN, f32::INFINITY] {
            let mut broken = views();
            broken.as_mut_slice().unwrap()[1000] = bad;
            assert!(loss(&sound, broken, mode).is_nan(), "{bad} in a view, {mode:?}");
        }
        for id in sound.ids() {
            let averages_matter = mode != Mode::Train;
            if sound.kind(id) == ParameterKind::Buffer && !averages_matter {
                continue;
            }
            let mut parameters = sound.clone();
            parameters.get_mut(id).as_mut_slice().unwrap()[0] = f32::NAN;
            let loss = loss(&parameters, views(), mode);
            assert!(loss.is_nan(), "NaN in {}, {mode:?}: loss {loss}", sound.name(id));
        }
    }
}

#[test]
fn each_operator_passes_nan_on() {
    let device = device();
    let parameters = Parameters::new();
    let mut tape = Tape::new(&parameters, Mode::Eval, &SingleProcess);
    let mut broken = tensor(&device, "x", &[2, 5, 5, 20]);
    broken.as_mut_slice().unwrap()[777] = f32::NAN;
    let nan_at = |y: &Tensor| -> Vec<usize> {
        let y = y.as_slice().unwrap();
        (0..y.len()).filter(|&i| y[i].is_nan()).collect()
    };
    let x = tape.input(broken.clone());
    let y = ops::relu(&mut tape, &x).unwrap();
    assert_eq!(nan_at(y.tensor()), [777]);
    let y = ops::max_pool(&mut tape, &x, 5, 1, [0, 0]).unwrap();
    assert_eq!(nan_at(y.tensor()), [20 + 777 % 20]);
    let y = ops::global_avg_pool(&mut tape, &x).unwrap();
    assert_eq!(nan_at(y.tensor()), [20 + 777 % 20]);
    let rows = tape.input(Tensor::from_vec(&device, &[50, 20], broken.to_vec().unwrap()).unwrap());
    let y = ops::l2_normalize(&mut tape, &rows).unwrap();
    let row = 777 / 20 * 20;
    assert_eq!(nan_at(y.tensor()), (row..row + 20).collect::<Vec<_>>());
    let labels = [0; 50];
    let loss = ops::softmax_cross_entropy(&mut tape, &rows, &labels).unwrap();
    assert!(loss.tensor().as_slice().unwrap()[0].is_nan());
    for anchor in [0, 7] {
        let mut z = tensor(&device, "z", &[8, 3]);
        z.as_mut_slice().unwrap()[3 * anchor + 1] = f32::NAN;
        let z = tape.input(z);
        let mut losses = vec![ops::nt_xent(&mut tape, &z, 0.5).unwrap()];
        for semi_hard in [false, true] {
            losses.push(ops::nt_logistic(&mut tape, &z, 0.5, semi_hard).unwrap());
            losses.push(ops::margin_triplet(&mut tape, &z, 0.5, 0.4, semi_hard).unwrap());
        }
        assert!(losses.iter().all(|(_, sums)| sums.figures().unwrap().loss.is_nan()));
    }
}

/// Backward frees what operators kept, even if no gradient reached them.
#[test]
fn backward_goes_by_once() {
    let device = device();
    let mut parameters = Parameters::new();
    let id = parameter(&mut parameters, &device, "w", &[4, 5]);
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    let x = tape.input(tensor(&device, "x", &[2, 5]));
    let w = tape.parameter(id);
    let [early, late] = [0, 1].map(|_| ops::linear(&mut tape, &x, &w, None).unwrap());
    let dy = || tensor(&device, "dy", &[2, 4]);
    let gradients = tape.backward(&late, dy()).unwrap();
    assert!(gradients.get(id).is_some());
    for output in [&late, &early] {
        let said = tape.backward(output, dy()).unwrap_err().to_string();
        assert_says(&said, &["backward", "record it again"]);
    }
}
