//! Forward and backward of every operator against PyTorch. `tools/golden/engine.py` made the values.

mod common;

use std::collections::HashMap;

use common::values::uniform;
use common::{device, tensor};
use serde_json::Value;
use simclr_engine::ops::{self, BatchNorm, Conv2d};
use simclr_engine::{
    Device, Mode, ParameterId, ParameterKind, Parameters, Result, SingleProcess, Tape, Tensor, Var,
};

/// The allowed error of a value, relative to the root mean square of its tensor, and of the digest, relative to the
/// norm. PyTorch computed in f64, so the error is our own rounding.
fn tolerance(op: &str) -> f64 {
    match op {
        // The transforms of Winograd's algorithm cost a digit.
        "conv2d" => 1e-5,
        _ => 2e-6,
    }
}

struct Case<'g> {
    name: &'g str,
    op: &'g str,
    settings: &'g Value,
    results: &'g Value,
    parameters: Parameters,
    inputs: HashMap<&'g str, ParameterId>,
}

impl<'g> Case<'g> {
    fn new(device: &Device, case: &'g Value) -> Case<'g> {
        let (name, op) = (case["name"].as_str().unwrap(), case["op"].as_str().unwrap());
        let settings = &case["settings"];
        let mut parameters = Parameters::new();
        let mut inputs = HashMap::new();
        for (key, shape) in case["inputs"].as_object().unwrap() {
            let shape: Vec<usize> = numbers(shape).iter().map(|&n| n as usize).collect();
            let uniform = tensor(device, &format!("{name}.{key}"), &shape).to_vec().unwrap();
            let values = match (op, key.as_str()) {
                ("batch_norm", "gamma") => uniform.iter().map(|u| 1.0 + 0.5 * u).collect(),
                ("batch_norm", "var") => uniform.iter().map(|u| 1.5 + u).collect(),
                ("softmax_cross_entropy", _) | ("select", "logits") => {
                    uniform.iter().map(|u| 4.0 * u).collect()
                }
                ("max_pool", _) if settings["levels"] != 0 => {
                    let levels = settings["levels"].as_f64().unwrap() as f32;
                    uniform.iter().map(|u| (u * levels).floor() / levels).collect()
                }
                _ => uniform,
            };
            let kind = match (op, key.as_str()) {
                ("batch_norm", "mean" | "var") => ParameterKind::Buffer,
                _ => ParameterKind::Weight,
            };
            let value = Tensor::from_vec(device, &shape, values).unwrap();
            inputs.insert(key.as_str(), parameters.add(key, kind, value).unwrap());
        }
        Case { name, op, settings, results: &case["results"], parameters, inputs }
    }

    fn setting(&self, key: &str) -> f64 {
        self.settings[key].as_f64().unwrap_or_else(|| panic!("{}: {key}", self.name))
    }

    fn size(&self, key: &str) -> usize {
        self.setting(key) as usize
    }

    fn flag(&self, key: &str) -> bool {
        self.settings[key].as_bool().unwrap()
    }

    fn mode(&self) -> Mode {
        match self.settings["mode"].as_str() {
            Some("frozen") => Mode::TrainFrozenNorm,
            _ => Mode::Train,
        }
    }

    /// Runs the operator. Adds the figures that only some operators have to `extra`.
    fn forward(&self, tape: &mut Tape, extra: &mut Vec<(&'static str, f64)>) -> Result<Var> {
        let input = |tape: &mut Tape, key: &str| tape.parameter(self.inputs[key]);
        let optional = |tape: &mut Tape, key: &str| self.inputs.contains_key(key).then(|| input(tape, key));
        match self.op {
            "conv2d" => {
                let (x, w) = (input(tape, "x"), input(tape, "w"));
                let conv = Conv2d {
                    stride: self.size("stride"),
                    padding: self.size("padding"),
                    channel_sums: false,
                };
                ops::conv2d(tape, &x, &w, conv)
            }
            "batch_norm" => {
                let (x, residual) = (input(tape, "x"), optional(tape, "residual"));
                let norm = BatchNorm {
                    gamma: self.inputs["gamma"],
                    beta: self.inputs.get("beta").copied(),
                    running_mean: self.inputs["mean"],
                    running_var: self.inputs["var"],
                    epsilon: 1e-5,
                    decay: 0.9,
                };
                let relu = self.flag("relu");
                ops::batch_norm(tape, &x, &norm, residual.as_ref(), relu)
            }
            "max_pool" => {
                let x = input(tape, "x");
                let (side, stride, padding) = (self.size("side"), self.size("stride"), self.size("padding"));
                ops::max_pool(tape, &x, side, stride, [padding; 2])
            }
            "avg_pool" => {
                let x = input(tape, "x");
                ops::avg_pool(tape, &x, self.size("stride"), self.flag("zeros"))
            }
            "global_avg_pool" => {
                let x = input(tape, "x");
                ops::global_avg_pool(tape, &x)
            }
            "fuse" => {
                let x = input(tape, "x");
                ops::fuse(tape, &x)
            }
            "select" => {
                let (x, logits) = (input(tape, "x"), input(tape, "logits"));
                ops::select(tape, &x, &logits)
            }
            "linear" => {
                let (x, w, bias) = (input(tape, "x"), input(tape, "w"), optional(tape, "bias"));
                ops::linear(tape, &x, &w, bias.as_ref())
            }
            "relu" => {
                let x = input(tape, "x");
                ops::relu(tape, &x)
            }
            "add" => {
                let (a, b) = (input(tape, "a"), input(tape, "b"));
                ops::add(tape, &a, &b)
            }
            "l2_normalize" => {
                let x = input(tape, "x");
                ops::l2_normalize(tape, &x)
            }
            "nt_xent" => {
                let mut z = input(tape, "z");
                if self.flag("normalize") {
                    z = ops::l2_normalize(tape, &z)?;
                }
                let (loss, sums) = ops::nt_xent(tape, &z, self.setting("temperature") as f32)?;
                let figures = sums.figures()?;
                extra.push(("y", figures.loss));
                extra.push(("entropy", figures.entropy));
                extra.push(("accuracy", figures.contrastive_accuracy));
                Ok(loss)
            }
            "nt_logistic" | "margin_triplet" => {
                let mut z = input(tape, "z");
                if self.flag("normalize") {
                    z = ops::l2_normalize(tape, &z)?;
                }
                let [temperature, margin] = ["temperature", "margin"].map(|key| self.setting(key) as f32);
                let semi_hard = self.flag("semi_hard");
                let (loss, sums) = match self.op {
                    "nt_logistic" => ops::nt_logistic(tape, &z, temperature, semi_hard)?,
                    _ => ops::margin_triplet(tape, &z, temperature, margin, semi_hard)?,
                };
                let figures = sums.figures()?;
                extra.push(("y", figures.loss));
                extra.push(("entropy", figures.entropy));
                extra.push(("accuracy", figures.contrastive_accuracy));
                Ok(loss)
            }
            "softmax_cross_entropy" => {
                let logits = input(tape, "logits");
                let labels: Vec<u32> = numbers(&self.settings["labels"]).iter().map(|&l| l as u32).collect();
                ops::softmax_cross_entropy(tape, &logits, &labels)
            }
            op => panic!("no operator {op}"),
        }
    }

    /// Compares a result with the stored part of PyTorch's and returns its error.
    fn compare(&self, result: &str, got: &[f32]) -> f64 {
        let want = &self.results[result];
        assert!(!want.is_null(), "{}: nothing was kept of {result}", self.name);
        assert_eq!(want["len"].as_f64(), Some(got.len() as f64), "{}: length of {result}", self.name);
        let norm = want["norm"].as_f64().unwrap().max(1e-3);
        let typical = norm / (got.len() as f64).sqrt();
        let digest: f64 =
            got.iter().zip(uniform("digest", got.len())).map(|(v, u)| f64::from(*v) * f64::from(u)).sum();
        let mut worst = (digest - want["digest"].as_f64().unwrap()).abs() / norm;
        let kept = got.iter().step_by(want["step"].as_u64().unwrap() as usize);
        for (got, want) in kept.zip(numbers(&want["values"])) {
            worst = worst.max((f64::from(*got) - want).abs() / typical.max(want.abs()));
        }
        // In this form, so that a NaN fails.
        let close = worst <= tolerance(self.op);
        assert!(close, "{}: {result} is off by {worst:.1e}", self.name);
        worst
    }

    fn check(&self, device: &Device) {
        let mut worst = Vec::new();
        let mut tape = Tape::new(&self.parameters, self.mode(), &SingleProcess);
        let mut extra = Vec::new();
        let y = self.forward(&mut tape, &mut extra).unwrap();
        worst.push(("y".to_owned(), self.compare("y", y.tensor().as_slice().unwrap())));
        for (name, value) in extra {
            worst.push((name.to_owned(), self.compare(name, &[value as f32])));
        }
        let dy = tensor(device, &format!("{}.dy", self.name), y.tensor().shape());
        let gradients = tape.backward(&y, dy).unwrap();
        for (key, id) in &self.inputs {
            if self.parameters.kind(*id).is_trained() {
                let gradient = gradients.get(*id).unwrap_or_else(|| panic!("{}: no d{key}", self.name));
                assert_eq!(gradient.shape(), self.parameters.get(*id).shape());
                let result = format!("d{key}");
                let off = self.compare(&result, gradient.as_slice().unwrap());
                worst.push((result, off));
            }
        }
        if self.op == "batch_norm" {
            let mut after = self.parameters.clone();
            for (id, value) in tape.into_buffer_updates().drain() {
                after.set(id, value).unwrap();
            }
            for (key, result) in [("mean", "running_mean"), ("var", "running_var")] {
                let average = after.get(self.inputs[key]).as_slice().unwrap();
                worst.push((result.into(), self.compare(result, average)));
            }
        }
        if self.mode() == Mode::TrainFrozenNorm {
            let mut tape = Tape::new(&self.parameters, Mode::Eval, &SingleProcess);
            let evaluated = self.forward(&mut tape, &mut Vec::new()).unwrap();
            assert_eq!(common::bits(evaluated.tensor()), common::bits(y.tensor()));
        }
        let worst: Vec<String> = worst.iter().map(|(name, off)| format!("{name} {off:.0e}")).collect();
        println!("{}: {}", self.name, worst.join(", "));
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn every_operator_agrees_with_pytorch() {
    let golden: Value = serde_json::from_str(include_str!("golden/operators.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let device = device();
    let mut seen = std::collections::BTreeSet::new();
    for case in cases {
        let case = Case::new(&device, case);
        seen.insert(case.op);
        case.check(&device);
    }
    assert_eq!(seen.len(), 15, "operators: {seen:?}");
}

/// The worked example of the loss: plain products, tau = 0.1, two views of each of four images.
#[test]
fn the_worked_example_of_nt_xent() {
    let device = device();
    let (first, second) = (
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]],
        [[0.9, 0.4, 0.0], [0.1, 0.9, 0.0], [0.0, 0.1, 0.9], [-0.9, -0.4, 0.0]],
    );
    let z: Vec<f32> = first.into_iter().chain(second).flatten().collect();
    let parameters = Parameters::new();
    let mut tape = Tape::new(&parameters, Mode::Eval, &SingleProcess);
    let all = tape.input(Tensor::from_vec(&device, &[8, 3], z.clone()).unwrap());
    let figures = ops::nt_xent(&mut tape, &all, 0.1).unwrap().1.figures().unwrap();
    // Each l(i,j), and l(1,2) in particular, by the definition in f64.
    let s = |i: usize, k: usize| -> f64 {
        let row = |i: usize| &z[3 * i..3 * i + 3];
        let product = row(i).iter().zip(row(k)).map(|(a, b)| f64::from(*a) * f64::from(*b));
        product.sum::<f64>() / f64::from(0.1f32)
    };
    let l = |i: usize, s_ij: f64| -> f64 {
        let j = (i + 4) % 8;
        let others: f64 = (0..8).filter(|&k| k != i && k != j).map(|k| s(i, k).exp()).sum();
        -(s_ij.exp() / (s_ij.exp() + others)).ln()
    };
    assert!((l(0, s(0, 4)) - 0.00071).abs() < 5e-6);
    let mean = (0..8).map(|i| l(i, s(i, (i + 4) % 8))).sum::<f64>() / 8.0;
    assert!((figures.loss - mean).abs() < 1e-6, "{} {mean}", figures.loss);

    // The same with s(1,2) lowered to 0.1, by setting z2's first value to 0.1. This also changes the losses of other
    // anchors, so l(1,2) is found by subtracting all of those from the sum.
    assert!((l(0, 1.0) - 1.13).abs() < 5e-3);
    let mut lowered = z.clone();
    lowered[12] = 0.1;
    let s = |i: usize, k: usize| -> f64 {
        let row = |i: usize| &lowered[3 * i..3 * i + 3];
        let product = row(i).iter().zip(row(k)).map(|(a, b)| f64::from(*a) * f64::from(*b));
        product.sum::<f64>() / f64::from(0.1f32)
    };
    let l = |i: usize| -> f64 {
        let sum: f64 = (0..8).filter(|&k| k != i).map(|k| s(i, k).exp()).sum();
        sum.ln() - s(i, (i + 4) % 8)
    };
    let all = tape.input(Tensor::from_vec(&device, &[8, 3], lowered.clone()).unwrap());
    let figures = ops::nt_xent(&mut tape, &all, 0.1).unwrap().1.figures().unwrap();
    let others: f64 = (1..8).map(l).sum();
    let first = 8.0 * figures.loss - others;
    assert!((first - 1.13).abs() < 5e-3, "l(1,2) = {first}");
}
