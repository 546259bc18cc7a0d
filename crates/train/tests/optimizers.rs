//! Optimisers against their formulas, written naively in f64 over several steps.

use simclr_engine::{Device, Gradients, Mode, ParameterKind, Parameters, SingleProcess, Tape, Tensor, ops};
use simclr_train::config::{OptimConfig, OptimizerName};
use simclr_train::optim::Optimizer;

/// A weight (3, 2), a bias and the beta of a BatchNorm, with the gradients of dy . (x w^T + bias + beta).
struct Bench {
    device: Device,
    parameters: Parameters,
}

const START: [f32; 6] = [0.5, -1.0, 2.0, 0.25, -0.75, 1.5];

impl Bench {
    fn new() -> Bench {
        let device = Device::cpu(1).unwrap();
        let mut parameters = Parameters::new();
        for (name, kind, shape, values) in [
            ("weight", ParameterKind::Weight, &[3, 2][..], &START[..]),
            ("bias", ParameterKind::Bias, &[3], &START[..3]),
            ("beta", ParameterKind::Norm, &[3], &START[..3]),
        ] {
            let value = Tensor::from_slice(&device, shape, values).unwrap();
            parameters.add(name, kind, value).unwrap();
        }
        Bench { device, parameters }
    }

    /// The gradients for one row x: dw = dy^T x, and dy for both bias and beta.
    fn gradients(&self, step: usize) -> (Gradients, Vec<f64>, Vec<f64>) {
        let x = [1.0 + step as f32, -0.5];
        let dy = [0.3, -0.2 * (step as f32 + 1.0), 0.7];
        let mut tape = Tape::new(&self.parameters, Mode::Train, &SingleProcess);
        let rows = tape.input(Tensor::from_slice(&self.device, &[1, 2], &x).unwrap());
        let w = tape.parameter(self.parameters.find("weight").unwrap());
        let b = tape.parameter(self.parameters.find("bias").unwrap());
        let y = ops::linear(&mut tape, &rows, &w, Some(&b)).unwrap();
        // A real BatchNorm would affect dw: only its shift is needed.
        let nothing = tape.input(Tensor::zeros(&self.device, &[3, 2]).unwrap());
        let beta = tape.parameter(self.parameters.find("beta").unwrap());
        let shift = ops::linear(&mut tape, &rows, &nothing, Some(&beta)).unwrap();
        let y = ops::add(&mut tape, &y, &shift).unwrap();
        let gradients = tape.backward(&y, Tensor::from_slice(&self.device, &[1, 3], &dy).unwrap()).unwrap();
        let dw = dy.iter().flat_map(|d| x.iter().map(move |x| f64::from(*d) * f64::from(*x))).collect();
        (gradients, dw, dy.iter().map(|&d| f64::from(d)).collect())
    }

    fn value(&self, name: &str) -> Vec<f32> {
        self.parameters.get(self.parameters.find(name).unwrap()).to_vec().unwrap()
    }
}

/// Every number differs from its default.
fn config(name: OptimizerName, weight_decay: f64) -> OptimConfig {
    OptimConfig {
        name,
        weight_decay,
        momentum: 0.8,
        trust_coefficient: 0.01,
        beta2: 0.9,
        epsilon: 1e-2,
        ..OptimConfig::default()
    }
}

/// Runs six steps of `config` and of `naive`, which updates (w, state) with (g, rate, step, is a weight).
fn compare(config: &OptimConfig, naive: impl Fn(&mut [f64], &mut [[f64; 2]], &[f64], f64, usize, bool)) {
    let mut bench = Bench::new();
    let mut optimizer = Optimizer::new(config, &bench.parameters).unwrap();
    let mut w: Vec<f64> = START.iter().map(|&v| f64::from(v)).collect();
    let mut b = w[..3].to_vec();
    let (mut w_state, mut b_state) = ([[0.0; 2]; 6], [[0.0; 2]; 3]);
    for step in 0..6 {
        let rate = 0.1 * (step as f64 + 1.0);
        let (gradients, dw, db) = bench.gradients(step);
        optimizer.step(rate, &mut bench.parameters, &gradients).unwrap();
        naive(&mut w, &mut w_state, &dw, rate, step + 1, true);
        naive(&mut b, &mut b_state, &db, rate, step + 1, false);
        for (name, want) in [("weight", &w), ("bias", &b), ("beta", &b)] {
            for (got, want) in bench.value(name).iter().zip(want) {
                assert!(
                    (f64::from(*got) - want).abs() < 2e-6 * (1.0 + want.abs()),
                    "{name} {step}: {got} {want}"
                );
            }
        }
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn lars_is_v_momentum_plus_rate_trust_decayed_gradient() {
    // Also without decay: a port that tests the decay instead of the norms would not adapt then.
    for decay in [0.0, 1e-4, 0.1] {
        let config = config(OptimizerName::Lars, decay);
        compare(&config, |w, state, g, rate, _, is_weight| {
            let (decay, trust) = if is_weight {
                let decayed = norm(w.iter().zip(g).map(|(w, g)| g + decay * w));
                (decay, config.trust_coefficient * norm(w.iter().copied()) / decayed)
            } else {
                (0.0, 1.0)
            };
            for ((w, v), g) in w.iter_mut().zip(state).zip(g) {
                v[0] = config.momentum * v[0] + rate * trust * (g + decay * *w);
                *w -= v[0];
            }
        });
    }
}

#[test]
fn sgd_with_and_without_nesterov() {
    for nesterov in [false, true] {
        let config = OptimConfig { nesterov, ..config(OptimizerName::Sgd, 0.01) };
        compare(&config, |w, state, g, rate, _, is_weight| {
            let decay = if is_weight { config.weight_decay } else { 0.0 };
            for ((w, v), g) in w.iter_mut().zip(state).zip(g) {
                let push = rate * (g + decay * *w);
                v[0] = config.momentum * v[0] + push;
                *w -= if nesterov { config.momentum * v[0] + push } else { v[0] };
            }
        });
    }
}

#[test]
fn adamw_keeps_decay_apart() {
    let config = config(OptimizerName::Adamw, 0.01);
    let betas = [config.momentum, config.beta2];
    compare(&config, |w, state, g, rate, step, is_weight| {
        let decay = if is_weight { config.weight_decay } else { 0.0 };
        for ((w, [m, v]), g) in w.iter_mut().zip(state).zip(g) {
            *m = betas[0] * *m + (1.0 - betas[0]) * g;
            *v = betas[1] * *v + (1.0 - betas[1]) * g * g;
            let [m, v] = [(*m, betas[0]), (*v, betas[1])].map(|(x, beta)| x / (1.0 - beta.powi(step as i32)));
            *w -= rate * (m / (v.sqrt() + config.epsilon) + decay * *w);
        }
    });
}
