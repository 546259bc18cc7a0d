//! Fused pairs of BatchNorms, their sum and a ReLU.

use simclr_engine::ops::{self, BatchNorm};
use simclr_engine::{
    DType, Device, Mode, ParameterKind, Parameters, Result, SingleProcess, Tape, Tensor, Var,
};

use crate::common::{self, gpu, tensor, values};
use crate::{TYPES, assert_close, find, outcome, outcome_of, rounded};

const MODES: [Mode; 2] = [Mode::Train, Mode::TrainFrozenNorm];

/// Two inputs, with the same values on all devices, and a BatchNorm for each, the second without beta. The CPU keeps
/// them in f32, because a fused pair does not round in between.
fn parameters(device: &Device, shape: &[usize], dtype: DType) -> Parameters {
    let mut parameters = Parameters::new();
    let kept = if device.is_gpu() { dtype } else { DType::F32 };
    let channels = &shape[shape.len() - 1..];
    for branch in ["a", "b"] {
        let mut add = |part: &str, kind, value| {
            parameters.add(format!("{branch}.{part}"), kind, value).unwrap();
        };
        let named = |part: &str, shape| tensor(device, &format!("{branch}.{part}"), shape);
        add("x", ParameterKind::Weight, rounded(&named("x", shape), dtype).cast(kept).unwrap());
        add("gamma", ParameterKind::Norm, named("gamma", channels));
        if branch == "a" {
            add("beta", ParameterKind::Norm, named("beta", channels));
        }
        for average in ["mean", "var"] {
            let positive = values::uniform(average, channels[0]).iter().map(|u| 1.5 + u).collect();
            let value = Tensor::from_vec(device, channels, positive).unwrap();
            add(average, ParameterKind::Buffer, value);
        }
    }
    parameters
}

fn norm(parameters: &Parameters, branch: &str) -> BatchNorm {
    let of = |part: &str| parameters.find(&format!("{branch}.{part}"));
    BatchNorm {
        gamma: of("gamma").unwrap(),
        beta: of("beta"),
        running_mean: of("mean").unwrap(),
        running_var: of("var").unwrap(),
        epsilon: 1e-5,
        decay: 0.9,
    }
}

fn pair(tape: &mut Tape, parameters: &Parameters) -> Result<Var> {
    let [a, b] = ["a.x", "b.x"].map(|name| tape.parameter(find(parameters, name)));
    let norms = ["a", "b"].map(|branch| norm(parameters, branch));
    let shortcut = ops::norm_shortcut(tape, b, &norms[1])?;
    ops::norm_pair(tape, a, &norms[0], shortcut)
}

#[test]
fn pairs_of_batch_norms() {
    let Some((gpu, _alone)) = gpu() else { return };
    for shape in [&[3, 7, 7, 5][..], &[2, 3, 3, 16], &[9, 6], &[4, 9, 9, 64]] {
        for (dtype, mode) in TYPES.iter().flat_map(|&dtype| MODES.map(|mode| (dtype, mode))) {
            let [got, want] = [&gpu, &common::device()].map(|device| {
                let parameters = parameters(device, shape, dtype);
                outcome(&parameters, mode, dtype, |tape| pair(tape, &parameters))
            });
            assert_close(&format!("norm_pair {shape:?}, {mode:?}"), dtype, &got, &want);
        }
    }
}

#[test]
fn a_constant_shortcut_leaves_the_others_gradients_as_they_are() {
    let Some((gpu, _alone)) = gpu() else { return };
    let parameters = parameters(&gpu, &[3, 5, 5, 8], DType::F32);
    let all = outcome(&parameters, Mode::Train, DType::F32, |tape| pair(tape, &parameters));
    let some = outcome(&parameters, Mode::Train, DType::F32, |tape| {
        let a = tape.parameter(find(&parameters, "a.x"));
        let b = tape.input(parameters.get(find(&parameters, "b.x")).clone());
        let norms = ["a", "b"].map(|branch| norm(&parameters, branch));
        let shortcut = ops::norm_shortcut(tape, b, &norms[1])?;
        ops::norm_pair(tape, a, &norms[0], shortcut)
    });
    // In order: the output; x, gamma and beta of a; x and gamma of b; averages.
    assert_eq!((all.len(), some.len()), (10, 9));
    assert!(all[..4] == some[..4] && all[5..] == some[4..]);
}

#[test]
fn checkpointed_pairs_are_the_same_to_the_bit() {
    let Some((gpu, _alone)) = gpu() else { return };
    let parameters = parameters(&gpu, &[3, 5, 5, 8], DType::Bf16);
    let plain = outcome(&parameters, Mode::Train, DType::Bf16, |tape| pair(tape, &parameters));
    let segment = |tape: &mut Tape, _: &[Var]| pair(tape, &parameters);
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    let y = tape.checkpoint(&[], &segment).unwrap();
    assert!(outcome_of(tape, y, DType::Bf16) == plain);
}
