//! A GPU against the CPU: every operator's forward and backward, the optimisers, and ten steps of a network. On a
//! machine without a GPU, a stand-in computes with the same kernels.

#![cfg(feature = "cuda")]

#[path = "../common/mod.rs"]
mod common;
mod first_layer;
mod norm_conv2d;
mod norm_pair;

use common::network::{CHANNELS, Network, SIZE};
use common::{gpu, tensor, values};
use simclr_engine::ops::{self, BatchNorm, Conv2d};
use simclr_engine::{
    Arithmetic, DType, Deferred, Device, LossScale, LossScaleFigures, Mode, ParameterId, ParameterKind,
    ParameterUpdate, Parameters, Result, Rule, SingleProcess, StepInputs, Tape, Tensor, Var, Verdict,
};

const TYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

/// A tensor rounded to a GPU's `dtype`, in the type that its device computes with: rounded f16 values are f32 on the
/// CPU, which has no f16 kernels.
fn rounded(x: &Tensor, dtype: DType) -> Tensor {
    let x = x.cast(dtype).unwrap();
    x.cast(if x.device().is_gpu() { dtype } else { reference(dtype) }).unwrap()
}

/// The type in which the CPU computes where a GPU uses `dtype`.
fn reference(dtype: DType) -> DType {
    if dtype == DType::F16 { DType::F32 } else { dtype }
}

/// Names and shapes of parameters: activations get a type `dtype`, the others f32; averages are not trained.
struct Setting<'s> {
    activations: &'s [(&'s str, &'s [usize])],
    parameters: &'s [(&'s str, &'s [usize])],
    averages: &'s [(&'s str, &'s [usize])],
}

impl Setting<'_> {
    fn on(&self, device: &Device, dtype: DType) -> Parameters {
        let mut parameters = Parameters::new();
        let mut add = |list: &[(&str, &[usize])], kind, dtype| {
            for (name, shape) in list {
                let value = if kind == ParameterKind::Buffer {
                    let positive =
                        values::uniform(name, shape.iter().product()).iter().map(|u| 1.5 + u).collect();
                    Tensor::from_vec(device, shape, positive).unwrap()
                } else {
                    tensor(device, name, shape)
                };
                parameters.add(*name, kind, rounded(&value, dtype)).unwrap();
            }
        };
        add(self.activations, ParameterKind::Weight, dtype);
        add(self.parameters, ParameterKind::Weight, DType::F32);
        add(self.averages, ParameterKind::Buffer, DType::F32);
        parameters
    }
}

/// Output, gradients and new averages.
fn outcome(
    parameters: &Parameters,
    mode: Mode,
    dtype: DType,
    forward: impl Fn(&mut Tape) -> Result<Var>,
) -> Vec<Vec<f32>> {
    let mut tape = Tape::new(parameters, mode, &SingleProcess);
    let y = forward(&mut tape).unwrap();
    outcome_of(tape, y, dtype)
}

/// [`outcome`] of a tape that has recorded y.
fn outcome_of(mut tape: Tape, y: Var, dtype: DType) -> Vec<Vec<f32>> {
    let dy = rounded(&tensor(y.tensor().device(), "dy", y.tensor().shape()), dtype);
    let dy = dy.cast(y.tensor().dtype()).unwrap();
    let gradients = tape.backward(&y, dy).unwrap();
    let mut averages = tape.into_buffer_updates();
    let gradients = gradients.iter().map(|(_, gradient)| gradient.to_vec().unwrap());
    let averages = averages.drain().map(|(_, value)| value.to_vec().unwrap());
    [y.tensor().to_vec().unwrap()].into_iter().chain(gradients).chain(averages).collect()
}

fn relative_rms(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |v: f32| f64::from(v) * f64::from(v);
    let error: f64 = got.iter().zip(want).map(|(a, b)| square(a - b)).sum();
    let size: f64 = want.iter().map(|v| square(*v)).sum();
    (error / size.max(1e-12)).sqrt()
}

/// Panics if results are further off than `dtype` allows, as a NaN always is.
fn assert_close(what: &str, dtype: DType, got: &[Vec<f32>], want: &[Vec<f32>]) {
    let tolerance = match dtype {
        DType::F32 => 1e-5,
        DType::F16 => 2e-3,
        _ => 1e-2,
    };
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = relative_rms(got, want);
        assert!(off <= tolerance, "{what} in {dtype:?}: result {i} is off by {off:.1e}");
    }
}

/// Compares the outcomes on both devices.
fn compare(
    what: &str,
    gpu: &Device,
    setting: &Setting,
    mode: Mode,
    types: &[DType],
    forward: impl Fn(&mut Tape, &Parameters) -> Result<Var>,
) {
    let cpu = common::device();
    for &dtype in types {
        let [got, want] = [gpu, &cpu].map(|device| {
            let parameters = setting.on(device, dtype);
            outcome(&parameters, mode, dtype, |tape| forward(tape, &parameters))
        });
        assert_close(what, dtype, &got, &want);
    }
}

fn find(parameters: &Parameters, name: &str) -> ParameterId {
    parameters.find(name).unwrap()
}

fn norm(parameters: &Parameters) -> BatchNorm {
    BatchNorm {
        gamma: find(parameters, "gamma"),
        beta: parameters.find("beta"),
        running_mean: find(parameters, "mean"),
        running_var: find(parameters, "var"),
        epsilon: 1e-5,
        decay: 0.9,
    }
}

#[test]
fn convolutions() {
    let Some((gpu, _alone)) = gpu() else { return };
    // batch, height, width, channels in, channels out, kernel, stride, padding
    let shapes = [
        (1, 7, 7, 1, 1, 3, 1, 1),
        (3, 7, 7, 5, 3, 3, 2, 1),
        (2, 8, 5, 3, 16, 7, 2, 3),
        (5, 6, 6, 4, 33, 1, 2, 0),
        (2, 1, 1, 3, 5, 1, 1, 0),
        // First layers of networks, whose few channels are packed in 16 bits.
        (3, 9, 9, 3, 8, 3, 1, 1),
        (2, 15, 13, 3, 8, 7, 2, 3),
    ];
    for shape @ (n, h, w, c, k, side, stride, padding) in shapes {
        let setting = Setting {
            activations: &[("x", &[n, h, w, c])],
            parameters: &[("w", &[k, side, side, c])],
            averages: &[],
        };
        // x has two users, so that the second gradient is added to the first.
        compare(&format!("conv2d {shape:?}"), &gpu, &setting, Mode::Train, &TYPES, |tape, parameters| {
            let (x, w) = (tape.parameter(find(parameters, "x")), tape.parameter(find(parameters, "w")));
            let conv = Conv2d { stride, padding, channel_sums: true };
            let (a, b) = (ops::conv2d(tape, &x, &w, conv)?, ops::conv2d(tape, &x, &w, conv)?);
            ops::add(tape, &a, &b)
        });
    }
}

#[test]
fn normalized_images() {
    let Some((gpu, _alone)) = gpu() else { return };
    for dtype in TYPES {
        let [got, want] = [&gpu, &common::device()].map(|device| {
            let kept = if device.is_gpu() { dtype } else { DType::F32 };
            let x = rounded(&tensor(device, "x", &[3, 9, 7, 3]), dtype).cast(kept).unwrap();
            let by = ops::Normalization::new(device, &[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]).unwrap();
            let parameters = Parameters::new();
            let mut tape = Tape::new(&parameters, Mode::Eval, &SingleProcess);
            let x = tape.input(x);
            ops::normalize(&mut tape, &x, &by).unwrap().tensor().to_vec().unwrap()
        });
        assert_close("normalize", dtype, &[got], &[want]);
    }
}

#[test]
fn batch_norm_in_every_form() {
    let Some((gpu, _alone)) = gpu() else { return };
    let shapes: [&[usize]; 3] = [&[3, 7, 7, 5], &[2, 3, 3, 16], &[9, 6]];
    for shape in shapes {
        let channels = &shape[shape.len() - 1..];
        for mode in [Mode::Train, Mode::TrainFrozenNorm] {
            for form in 0..16 {
                let (with_beta, with_residual, relu) = (form & 1 > 0, form & 2 > 0, form & 4 > 0);
                // Whether the residual is a constant, which needs no gradient.
                let constant = form & 8 > 0;
                if constant && !with_residual {
                    continue;
                }
                let parameters: &[(&str, &[usize])] = &[("gamma", channels), ("beta", channels)];
                let activations: &[(&str, &[usize])] = &[("x", shape), ("residual", shape)];
                let setting = Setting {
                    activations: &activations[..1 + usize::from(with_residual)],
                    parameters: &parameters[..1 + usize::from(with_beta)],
                    averages: &[("mean", channels), ("var", channels)],
                };
                let what = format!("batch_norm {shape:?}, {mode:?}, form {form}");
                compare(&what, &gpu, &setting, mode, &TYPES, |tape, parameters| {
                    let x = tape.parameter(find(parameters, "x"));
                    let residual = parameters.find("residual").map(|id| match constant {
                        true => tape.input(parameters.get(id).clone()),
                        false => tape.parameter(id),
                    });
                    ops::batch_norm(tape, &x, &norm(parameters), residual.as_ref(), relu)
                });
            }
        }
    }
}

#[test]
fn pooling_and_relu() {
    let Some((gpu, _alone)) = gpu() else { return };
    for shape in [[2, 7, 7, 5], [1, 8, 5, 16], [3, 4, 4, 1]] {
        let setting = Setting { activations: &[("x", &shape)], parameters: &[], averages: &[] };
        compare(&format!("pooling {shape:?}"), &gpu, &setting, Mode::Train, &TYPES, |tape, parameters| {
            let x = tape.parameter(find(parameters, "x"));
            let y = ops::relu(tape, &x)?;
            let y = ops::max_pool(tape, &y, 3, 2, [1, 1])?;
            ops::global_avg_pool(tape, &y)
        });
    }
}

#[test]
fn averages_of_windows() {
    let Some((gpu, _alone)) = gpu() else { return };
    for shape in [[2, 7, 6, 5], [1, 8, 5, 16]] {
        let setting = Setting { activations: &[("x", &shape)], parameters: &[], averages: &[] };
        for (stride, zeros) in [(1, false), (2, true), (2, false)] {
            let what = format!("avg_pool {shape:?} / {stride}");
            compare(&what, &gpu, &setting, Mode::Train, &TYPES, |tape, parameters| {
                let x = tape.parameter(find(parameters, "x"));
                let y = ops::avg_pool(tape, &x, stride, zeros)?;
                let (y, x) = (ops::global_avg_pool(tape, &y)?, ops::global_avg_pool(tape, &x)?);
                ops::add(tape, &y, &x)
            });
        }
    }
}

#[test]
fn selective_kernels() {
    let Some((gpu, _alone)) = gpu() else { return };
    for [n, h, w, c] in [[2, 7, 7, 5], [3, 4, 4, 32]] {
        let (x, weight) = ([n, h, w, 2 * c], [2 * c, c]);
        let setting = Setting { activations: &[("x", &x)], parameters: &[("w", &weight)], averages: &[] };
        let what = format!("selective kernels {x:?}");
        compare(&what, &gpu, &setting, Mode::Train, &TYPES, |tape, parameters| {
            let x = tape.parameter(find(parameters, "x"));
            let w = tape.parameter(find(parameters, "w"));
            let fused = ops::fuse(tape, &x)?;
            let logits = ops::linear(tape, &fused, &w, None)?;
            ops::select(tape, &x, &logits)
        });
    }
}

#[test]
fn dense_layers_and_losses() {
    let Some((gpu, _alone)) = gpu() else { return };
    let setting = Setting {
        activations: &[],
        parameters: &[("x", &[10, 7]), ("w", &[5, 7]), ("b", &[5])],
        averages: &[],
    };
    let layer = |tape: &mut Tape, parameters: &Parameters, with_bias: bool| {
        let [x, w, b] = ["x", "w", "b"].map(|name| find(parameters, name));
        let (x, w) = (tape.parameter(x), tape.parameter(w));
        let b = with_bias.then(|| tape.parameter(b));
        ops::linear(tape, &x, &w, b.as_ref())
    };
    let f32 = &[DType::F32];
    for with_bias in [true, false] {
        compare("linear", &gpu, &setting, Mode::Train, f32, |tape, p| layer(tape, p, with_bias));
    }
    compare("nt_xent", &gpu, &setting, Mode::Train, f32, |tape, parameters| {
        let z = layer(tape, parameters, true)?;
        let z = ops::l2_normalize(tape, &z)?;
        Ok(ops::nt_xent(tape, &z, 0.5)?.0)
    });
    for semi_hard in [false, true] {
        compare("nt_logistic", &gpu, &setting, Mode::Train, f32, |tape, parameters| {
            let z = layer(tape, parameters, true)?;
            let z = ops::l2_normalize(tape, &z)?;
            Ok(ops::nt_logistic(tape, &z, 0.5, semi_hard)?.0)
        });
        compare("margin_triplet", &gpu, &setting, Mode::Train, f32, |tape, parameters| {
            let z = layer(tape, parameters, true)?;
            let z = ops::l2_normalize(tape, &z)?;
            Ok(ops::margin_triplet(tape, &z, 0.5, 0.8, semi_hard)?.0)
        });
    }
    compare("softmax_cross_entropy", &gpu, &setting, Mode::Train, f32, |tape, parameters| {
        let logits = layer(tape, parameters, true)?;
        ops::softmax_cross_entropy(tape, &logits, &[0, 1, 2, 3, 4, 4, 3, 2, 1, 0])
    });
}

#[test]
fn softmax_regression() {
    let Some((gpu, _alone)) = gpu() else { return };
    let labels: Vec<u32> = (0..300).map(|i| (i * i % 7) as u32).collect();
    let on = |device: &Device| {
        let [x, w, b] = [("x", &[300, 19][..]), ("w", &[7, 19]), ("b", &[7])]
            .map(|(name, shape)| tensor(device, name, shape));
        let (mut dw, mut db) = (Tensor::empty(device, w.shape()), Tensor::empty(device, b.shape()));
        let loss = ops::softmax_regression(&x, &w, &b, &labels, &mut dw, &mut db).unwrap();
        (loss, dw.to_vec().unwrap(), db.to_vec().unwrap())
    };
    let (here, there) = (on(&common::device()), on(&gpu));
    assert!((here.0 - there.0).abs() < 1e-6 * here.0, "{} {}", here.0, there.0);
    assert!(common::deviation(&there.1, &here.1) < 1e-5);
    assert!(common::deviation(&there.2, &here.2) < 1e-5);
}

#[test]
fn another_arithmetic_lasts_as_long_as_its_work() {
    let Some((gpu, _alone)) = gpu() else { return };
    let (exact, fast) = (Arithmetic::default(), Arithmetic { deterministic: false, tf32: true });
    gpu.set_arithmetic(fast);
    assert_eq!(gpu.with_arithmetic(exact, || gpu.set_arithmetic(exact)), exact);
    assert_eq!(gpu.set_arithmetic(fast), fast);
    let panics = || gpu.with_arithmetic(exact, || panic!("the work"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    assert_eq!(gpu.set_arithmetic(exact), fast);
}

#[test]
fn optimizers_and_sums() {
    let Some((gpu, _alone)) = gpu() else { return };
    let cpu = common::device();
    let rules = [
        Rule::Lars { trust_coefficient: 0.01, momentum: 0.9, decay: 1e-2 },
        Rule::Momentum { momentum: 0.9, decay: 1e-2, nesterov: true },
        Rule::AdamW { betas: [0.9, 0.99], epsilon: 1e-8, decay: 0.1 },
    ];
    let updated = |device: &Device| {
        let g = [tensor(device, "g", &[3, 50]), tensor(device, "h", &[7])];
        let mut all = Vec::new();
        for rule in &rules {
            let mut w = [tensor(device, "v", &[3, 50]), tensor(device, "w", &[7])];
            let mut v = [150, 7].map(|len| Tensor::zeros(device, &[rule.state_per_value() * len]).unwrap());
            let mut hyper = Tensor::zeros(device, &[3]).unwrap();
            let mut verdict = Verdict::new(device).unwrap();
            for step in 1..=4 {
                let mut list: Vec<ParameterUpdate> = w
                    .iter_mut()
                    .zip(&mut v)
                    .zip(&g)
                    .enumerate()
                    .map(|(i, ((value, state), gradient))| ParameterUpdate {
                        gradient,
                        value,
                        state,
                        adapted: i == 0,
                    })
                    .collect();
                hyper.write(&rule.hyper(0.3, step)).unwrap();
                // The last step is unsound, and changes nothing.
                let mut sums = Tensor::empty_of(device, &[3], DType::F64);
                sums.write(&[if step == 4 { f64::NAN } else { 5.0 }, 1.0, 2.0]).unwrap();
                verdict.judge(&sums, &device.sum_of_squares_on_device(&g).unwrap(), 2, None).unwrap();
                let deferred = Deferred { hyper: &hyper, verdict: &verdict, scale: None };
                let inputs = match step {
                    1 => StepInputs::Now { rate: 0.3, step },
                    _ => StepInputs::Deferred(deferred),
                };
                device.update(rule, inputs, &mut list).unwrap();
            }
            let figures = verdict.figures().unwrap();
            assert_eq!((figures.sound, figures.steps, figures.loss_sum), (false, 3, 7.5));
            let mut averages = [Tensor::zeros(device, &[7]).unwrap(), Tensor::zeros(device, &[7]).unwrap()];
            device.replace(&verdict, &mut [(&mut averages[0], &g[1])]).unwrap();
            device.replace(&Verdict::new(device).unwrap(), &mut [(&mut averages[1], &g[1])]).unwrap();
            all.extend(w.iter().chain(&v).chain(&averages).map(|x| x.to_vec().unwrap()));
        }
        all.push(vec![device.sum_of_squares(&g).unwrap() as f32]);
        all
    };
    assert_close("optimizers", DType::F32, &updated(&gpu), &updated(&cpu));
}

/// Five steps from a scale, with non-finite gradients where `overflows` says so: the updated values and |g|, the scale
/// after each step, and [sound, steps, skipped].
fn scaled_steps(device: &Device, scale: f32, overflows: [bool; 5]) -> (Vec<Vec<f32>>, Vec<f32>, [u64; 3]) {
    let rule = Rule::Momentum { momentum: 0.9, decay: 1e-2, nesterov: false };
    let (mut w, mut v) = (tensor(device, "w", &[9]), Tensor::zeros(device, &[9]).unwrap());
    let mut hyper = Tensor::zeros(device, &[3]).unwrap();
    let (mut verdict, mut loss_scale) = (Verdict::new(device).unwrap(), LossScale::new(device).unwrap());
    loss_scale.set(LossScaleFigures { scale, steps: LossScale::INTERVAL - 2 }).unwrap();
    let (mut average, mut scales) = (Tensor::zeros(device, &[9]).unwrap(), Vec::new());
    let mut results = Vec::new();
    for (step, overflow) in (1..).zip(overflows) {
        let mut g = tensor(device, &format!("g {step}"), &[9]);
        let factor = loss_scale.gradient().to_vec().unwrap()[0];
        let mut values: Vec<f32> = g.to_vec().unwrap().iter().map(|value| value * factor).collect();
        if overflow {
            values[3] = f32::INFINITY;
        }
        g.write(&values).unwrap();
        hyper.write(&rule.hyper(0.1, step)).unwrap();
        let mut sums = Tensor::empty_of(device, &[3], DType::F64);
        sums.write(&[step as f64, 1.0, 2.0]).unwrap();
        verdict.judge(&sums, &device.sum_of_squares_on_device([&g]).unwrap(), 2, Some(&loss_scale)).unwrap();
        device.replace(&verdict, &mut [(&mut average, &g)]).unwrap();
        let deferred = Deferred { hyper: &hyper, verdict: &verdict, scale: Some(&loss_scale) };
        let mut list = [ParameterUpdate { gradient: &g, value: &mut w, state: &mut v, adapted: true }];
        device.update(&rule, StepInputs::Deferred(deferred), &mut list).unwrap();
        loss_scale.update(&verdict).unwrap();
        scales.push(loss_scale.figures().unwrap().scale);
        let norm = verdict.figures().unwrap().gradient_norm;
        // A difference of infinities would be NaN.
        results.push(vec![if norm.is_finite() { norm as f32 } else { -1.0 }]);
    }
    let figures = verdict.figures().unwrap();
    results.extend([&w, &v, &average].map(|x| x.to_vec().unwrap()));
    (results, scales, [u64::from(figures.sound), figures.steps, figures.skipped])
}

#[test]
fn scaled_gradients_are_taken_or_skipped() {
    let Some((gpu, _alone)) = gpu() else { return };
    let both = |scale, overflows| {
        let (want, scales, figures) = scaled_steps(&common::device(), scale, overflows);
        let (got, on_gpu, figures_on_gpu) = scaled_steps(&gpu, scale, overflows);
        assert_close("scaled steps", DType::F32, &got, &want);
        assert_eq!((&on_gpu, figures_on_gpu), (&scales, figures));
        (got, scales, figures)
    };
    let (sound, overflow) = (false, true);
    // Each step that overflows halves the scale and restarts the count towards doubling.
    let steps = [sound, sound, overflow, overflow, sound];
    let (skipping, scales, figures) = both(8.0, steps);
    assert_eq!((scales, figures), (vec![8.0, 16.0, 8.0, 4.0, 4.0], [1, 5, 2]));
    assert_eq!(skipping[3], skipping[1], "|g| of a skipped step is that of the one before");
    // The scale changes nothing else: powers of two are exact.
    assert_eq!(both(64.0, [sound; 5]).0[..7], both(1.0, [sound; 5]).0[..7]);
    // At a scale of 1, which cannot be lowered, an overflow ends training.
    let (_, scales, figures) = both(2.0, [overflow, overflow, sound, sound, sound]);
    assert_eq!((&scales[..2], figures), (&[1.0, 1.0][..], [0, 1, 1]));
    assert!(LossScale::new(&gpu).unwrap().set(LossScaleFigures { scale: 0.0, steps: 0 }).is_err());
}

#[test]
fn values_come_and_go() {
    let Some((gpu, _alone)) = gpu() else { return };
    let a = Tensor::from_slice(&gpu, &[3], &[1.0, 2.0, 3.1]).unwrap();
    let mut b = a.clone();
    b.add_assign(&a).unwrap();
    assert_eq!((a.to_vec().unwrap(), b.to_vec().unwrap()), (vec![1.0, 2.0, 3.1], vec![2.0, 4.0, 6.2]));
    let here = Tensor::from_slice(&common::device(), &[3], &[1.0, 2.0, 3.1]).unwrap();
    for dtype in [DType::Bf16, DType::F16, DType::F64] {
        assert_eq!(a.cast(dtype).unwrap().to_vec().unwrap(), here.cast(dtype).unwrap().to_vec().unwrap());
    }
    assert_eq!(Tensor::full(&gpu, &[2], 0.5).unwrap().to_vec().unwrap(), [0.5, 0.5]);
    let bytes = Tensor::from_bytes(&gpu, &[3], &[0, 51, 255], DType::F32).unwrap();
    assert_eq!(bytes.to_vec().unwrap(), [0.0, 0.2, 1.0]);
    let refused = a.as_slice().unwrap_err().to_string();
    assert!(refused.contains("host memory") && refused.contains("GPU"), "{refused}");
    assert!(here.clone().add_assign(&b).is_err());
    drop((a, b, bytes));
}

/// Losses of ten steps of the network.
fn ten_steps(device: &Device, dtype: DType) -> Vec<f32> {
    let (mut parameters, network) = Network::new(device);
    let mut state: Vec<Tensor> =
        parameters.iter().map(|(_, _, w)| Tensor::zeros(device, &[w.len()]).unwrap()).collect();
    let step = |step: usize| {
        let views = rounded(&tensor(device, &format!("views {step}"), &[8, SIZE, SIZE, CHANNELS]), dtype);
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let (loss, figures) = network.loss(&mut tape, views, step % 2 == 1).unwrap();
        let gradients = tape.backward(&loss, Tensor::full(device, &[1], 1.0).unwrap()).unwrap();
        let mut averages = tape.into_buffer_updates();
        for (id, average) in averages.drain() {
            parameters.set(id, average).unwrap();
        }
        for id in parameters.ids() {
            let Some(gradient) = gradients.get(id) else { continue };
            let rule = Rule::Momentum { momentum: 0.9, decay: 0.0, nesterov: false };
            let (value, state) = (parameters.get_mut(id), &mut state[id.index()]);
            let inputs = StepInputs::Now { rate: 0.05, step: 1 };
            device
                .update(&rule, inputs, &mut [ParameterUpdate { gradient, value, state, adapted: true }])
                .unwrap();
        }
        figures.loss as f32
    };
    (0..10).map(step).collect()
}

#[test]
fn ten_steps_follow_the_cpu() {
    let Some((gpu, _alone)) = gpu() else { return };
    let cpu = common::device();
    for (dtype, tolerance) in [(DType::F32, 1e-3), (DType::Bf16, 2e-2), (DType::F16, 1e-2)] {
        let (got, want) = (ten_steps(&gpu, dtype), ten_steps(&cpu, dtype));
        for (step, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!((got - want).abs() <= tolerance * want, "{dtype:?}, step {step}: {got} for {want}");
        }
    }
    for dtype in [DType::Bf16, DType::F16] {
        assert_eq!(ten_steps(&gpu, dtype), ten_steps(&gpu, dtype), "the same bits each time");
    }
}

/// Repeats the gradients of one step. A failure names the parameters whose gradients differ, which tells the kernel
/// that is to blame.
#[test]
fn a_step_has_the_same_bits_each_time() {
    let Some((gpu, _alone)) = gpu() else { return };
    let (parameters, network) = Network::new(&gpu);
    // The stand-in for a GPU is deterministic by nature.
    let times = if Device::cuda(0, 1).is_ok() { 60 } else { 2 };
    for dtype in TYPES {
        let views = tensor(&gpu, "views", &[32, SIZE, SIZE, CHANNELS]).cast(dtype).unwrap();
        let step = || {
            let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
            let (loss, figures) = network.loss(&mut tape, views.clone(), false).unwrap();
            let gradients = tape.backward(&loss, Tensor::full(&gpu, &[1], 1.0).unwrap()).unwrap();
            let bits = |x: &Tensor| x.to_vec().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let gradients = gradients.iter().map(|(id, x)| (id, bits(x))).collect::<Vec<_>>();
            let averages = tape.into_buffer_updates().drain().map(|(_, x)| bits(&x)).collect::<Vec<_>>();
            (figures, averages, gradients)
        };
        let first = step();
        for time in 1..times {
            let (figures, averages, gradients) = step();
            let differing = gradients.iter().zip(&first.2).filter(|(a, b)| a != b);
            let names: Vec<_> = differing.map(|((id, _), _)| parameters.name(*id)).collect();
            let forward = figures == first.0 && averages == first.1;
            assert!(
                forward && names.is_empty(),
                "{dtype:?}, time {time}: forward equal: {forward}, gradients differ: {names:?}"
            );
        }
    }
}
