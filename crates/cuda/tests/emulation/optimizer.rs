use simclr_cuda::ops::optimizer::{self, AdamW, Guard, Momentum, TensorList};
use simclr_kernels::optimizer::{self as cpu, AdamWStep, MomentumStep};

use crate::support::*;
use simclr_stand_in::{Emulator, Values, compiler, in_every_order};

/// Lengths around that of a chunk, and more tensors than one launch takes.
fn lengths() -> Vec<usize> {
    let mut lengths = vec![1, 8192, 8193, 32_768, 70_000, 0];
    lengths.extend((0..100).map(|i| 3 + 7 * i));
    lengths
}

struct Problem {
    weights: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    state: Vec<Vec<f32>>,
}

impl Problem {
    fn new(times: usize) -> Problem {
        let of = |seed: u32, times: usize| {
            lengths()
                .iter()
                .enumerate()
                .map(|(i, &len)| noise(times * len, seed + i as u32))
                .collect::<Vec<_>>()
        };
        let mut state = of(2000, times);
        // Second moments are positive.
        state.iter_mut().flatten().for_each(|v| *v = v.abs() + 0.01);
        let mut gradients = of(1000, 1);
        // The trust ratio is 1 where a norm is 0.
        gradients[7].fill(0.0);
        let mut weights = of(0, 1);
        weights[7].fill(0.0);
        Problem { weights, gradients, state }
    }

    /// Runs `update` on all tensors, every second one adapted; returns weights and state.
    fn run(
        &self,
        gpu: &Emulator,
        finite: f64,
        update: impl Fn(&mut TensorList, Guard),
    ) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let values = |all: &[Vec<f32>]| all.iter().map(|v| Values::of(v)).collect::<Vec<_>>();
        let (mut weights, gradients, mut state) =
            (values(&self.weights), values(&self.gradients), values(&self.state));
        let (unscale, finite) = (Values::of(&[0.5f32]), Values::of(&[finite]));
        let mut list = TensorList::new();
        for (i, ((w, g), s)) in weights.iter_mut().zip(&gradients).zip(&mut state).enumerate() {
            list.push(w.write(), g.read(), Some(s.write()), i % 2 == 1).unwrap();
        }
        update(&mut list, Guard { unscale: unscale.read(), finite: finite.read() });
        drop(list);
        let _ = gpu;
        let get = |all: &[Values<f32>]| all.iter().map(Values::get).collect();
        (get(&weights), get(&state))
    }
}

#[test]
fn momentum_and_lars_are_the_portable_forms() {
    if compiler().is_none() {
        return;
    }
    let problem = Problem::new(1);
    for (trust_coefficient, nesterov) in [(Some(0.001), false), (None, false), (None, true)] {
        let settings = Momentum { momentum: 0.9, decay: 1e-2, nesterov, trust_coefficient };
        let run = |finite: f64| {
            in_every_order(|gpu| {
                problem.run(gpu, finite, |list, guard| {
                    let rate = Values::of(&[0.3f32]);
                    optimizer::momentum_update(gpu, list, settings, rate.read(), guard).unwrap();
                })
            })
        };
        let (weights, state) = run(1.0);
        for (i, ((w, g), v)) in problem.weights.iter().zip(&problem.gradients).zip(&problem.state).enumerate()
        {
            let adapted = i % 2 == 1;
            let (mut w, mut v) = (w.clone(), v.clone());
            let g: Vec<f32> = g.iter().map(|g| g * 0.5).collect();
            let decay = if adapted { 1e-2 } else { 0.0 };
            let mut rate = 0.3;
            if let Some(coefficient) = trust_coefficient.filter(|_| adapted) {
                let (weight, decayed) = cpu::lars_norms(&portable(), &w, &g, decay);
                if weight > 0.0 && decayed > 0.0 {
                    rate = (0.3 * f64::from(coefficient) * weight.sqrt() / decayed.sqrt()) as f32;
                }
            }
            let step = MomentumStep { rate, momentum: 0.9, decay, nesterov };
            cpu::momentum_update(&portable(), step, &g, &mut w, &mut v);
            assert_close(&format!("weights of {i}"), &weights[i], &w, 1e-6);
            assert_close(&format!("momentum of {i}"), &state[i], &v, 1e-6);
        }
        assert!(
            run(0.0) == (problem.weights.clone(), problem.state.clone()),
            "an unsound step changes nothing"
        );
    }
}

#[test]
fn adamw_is_the_portable_form() {
    if compiler().is_none() {
        return;
    }
    let problem = Problem::new(2);
    let settings = AdamW { betas: [0.9, 0.95], epsilon: 1e-8, decay: 0.1 };
    let correction = |beta: f32| (1.0 - f64::from(beta).powi(3)) as f32;
    let hyper = [1e-2, correction(0.9), correction(0.95)];
    let run = |finite: f64| {
        in_every_order(|gpu| {
            problem.run(gpu, finite, |list, guard| {
                let hyper = Values::of(&hyper);
                optimizer::adamw_update(gpu, list, settings, hyper.read(), guard).unwrap();
            })
        })
    };
    let (weights, state) = run(1.0);
    for (i, ((w, g), m)) in problem.weights.iter().zip(&problem.gradients).zip(&problem.state).enumerate() {
        let (mut w, mut m) = (w.clone(), m.clone());
        let g: Vec<f32> = g.iter().map(|g| g * 0.5).collect();
        let decay = if i % 2 == 1 { 0.1 } else { 0.0 };
        let betas = [0.9, 0.95];
        let corrections = cpu::bias_corrections(betas, 3);
        let step = AdamWStep { rate: 1e-2, betas, epsilon: 1e-8, decay, corrections };
        cpu::adamw_update(&portable(), step, &g, &mut w, &mut m);
        assert_close(&format!("weights of {i}"), &weights[i], &w, 1e-6);
        assert_close(&format!("moments of {i}"), &state[i], &m, 1e-6);
    }
    assert!(run(0.0) == (problem.weights.clone(), problem.state.clone()), "an unsound step changes nothing");
}

#[test]
fn squares_of_all_gradients_and_replacement() {
    if compiler().is_none() {
        return;
    }
    let problem = Problem::new(1);
    let got = in_every_order(|gpu| {
        let sum = std::cell::RefCell::new(Values::<f64>::fresh(1));
        problem.run(gpu, 1.0, |list, _| {
            optimizer::gradient_squares(gpu, list, sum.borrow_mut().write()).unwrap();
        });
        sum.into_inner().get()[0]
    });
    let want: f64 = problem.gradients.iter().flatten().map(|&g| f64::from(g) * f64::from(g)).sum();
    assert!((got - want).abs() <= 1e-9 * want, "{got} {want}");
    for finite in [0.0, 1.0] {
        let (weights, _) = in_every_order(|gpu| {
            problem.run(gpu, finite, |list, guard| optimizer::replace(gpu, list, guard.finite).unwrap())
        });
        assert!(weights == if finite == 1.0 { problem.gradients.clone() } else { problem.weights.clone() });
    }
}

#[test]
fn state_that_is_too_small_is_refused() {
    if compiler().is_none() {
        return;
    }
    in_every_order(|gpu| {
        let problem = Problem::new(1);
        problem.run(gpu, 1.0, |list, guard| {
            let hyper = Values::of(&[0.1f32; 3]);
            let settings = AdamW { betas: [0.9, 0.95], epsilon: 1e-8, decay: 0.1 };
            let error = optimizer::adamw_update(gpu, list, settings, hyper.read(), guard).unwrap_err();
            assert!(error.to_string().contains("2 are needed"), "{error}");
        });
    });
}
