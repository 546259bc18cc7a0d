//! Convolutions that normalise their input as they read it.

use simclr_engine::ops::{self, Conv2d};
use simclr_engine::{Arithmetic, DType, Device, Mode, Parameters, Result, SingleProcess, Tape, Tensor, Var};

use crate::common::{gpu, tensor};
use crate::{Setting, TYPES, assert_close, compare, find, norm, outcome, outcome_of, rounded};

/// x (6, 5, 6, 8), a BatchNorm of its channels, and the weights of the convolution that follows.
const NORMALISED: Setting = Setting {
    activations: &[("x", &[6, 5, 6, 8])],
    parameters: &[("gamma", &[8]), ("beta", &[8]), ("w", &[16, 3, 3, 8])],
    averages: &[("mean", &[8]), ("var", &[8])],
};

/// Convolutions may normalise as they read only if steps need not be deterministic. The stand-in for a GPU is slow on
/// six images unless they do.
fn free(gpu: &Device) {
    gpu.set_arithmetic(Arithmetic { deterministic: false, ..Arithmetic::default() });
}

fn normalised(tape: &mut Tape, parameters: &Parameters, stride: usize) -> Result<Var> {
    let x = tape.parameter(find(parameters, "x"));
    let conv = Conv2d { stride, padding: 1, channel_sums: true };
    ops::norm_conv2d(tape, x, &norm(parameters), find(parameters, "w"), conv)
}

#[test]
fn convolutions_that_normalise_as_they_read() {
    let Some((gpu, _alone)) = gpu() else { return };
    free(&gpu);
    for mode in [Mode::Train, Mode::TrainFrozenNorm] {
        for stride in [1, 2] {
            let what = format!("norm_conv2d /{stride}");
            compare(&what, &gpu, &NORMALISED, mode, &TYPES, |tape, parameters| {
                let y = normalised(tape, parameters, stride)?;
                // The sums are those of the output, for a BatchNorm that follows.
                assert!(y.channel_sums().is_some());
                Ok(y)
            });
        }
    }
}

#[test]
fn what_a_convolution_normalises_is_not_kept() {
    let Some((gpu, _alone)) = gpu() else { return };
    let parameters = NORMALISED.on(&gpu, DType::F16);
    let kept = || {
        // The first run finds out whether fusing pays.
        normalised(&mut Tape::new(&parameters, Mode::Train, &SingleProcess), &parameters, 1).unwrap();
        let before = gpu.memory().live;
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let _y = normalised(&mut tape, &parameters, 1).unwrap();
        gpu.memory().live - before
    };
    let apart = kept();
    free(&gpu);
    let at_once = kept();
    // A real GPU may be faster with the separate operators.
    let activation = 2 * parameters.get(find(&parameters, "x")).len();
    let on_stand_in = gpu.to_string().contains("stand-in");
    assert!(!on_stand_in || at_once + activation <= apart, "{at_once} bytes instead of {apart}");
}

#[test]
fn checkpointed_convolutions_normalise_as_they_did() {
    let Some((gpu, _alone)) = gpu() else { return };
    free(&gpu);
    let parameters = NORMALISED.on(&gpu, DType::F16);
    let segment = |tape: &mut Tape, _: &[Var]| normalised(tape, &parameters, 2);
    let plain = outcome(&parameters, Mode::Train, DType::F16, |tape| segment(tape, &[]));
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    let y = tape.checkpoint(&[], &segment).unwrap();
    assert_close("checkpointed", DType::F16, &outcome_of(tape, y, DType::F16), &plain);
}

#[test]
fn a_captured_step_normalises_as_it_reads() {
    let Some((gpu, _alone)) = gpu() else { return };
    free(&gpu);
    let parameters = NORMALISED.on(&gpu, DType::F16);
    let want = outcome(&parameters, Mode::Train, DType::F16, |tape| normalised(tape, &parameters, 1));
    let dy = rounded(&tensor(&gpu, "dy", &[6, 5, 6, 16]), DType::F16);
    let w = find(&parameters, "w");
    let mut total = Tensor::zeros(&gpu, parameters.get(w).shape()).unwrap();
    let step = gpu
        .capture(|| {
            let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
            let y = normalised(&mut tape, &parameters, 1)?;
            let gradients = tape.backward(&y, dy.clone())?;
            total.add_assign(gradients.get(w).unwrap())
        })
        .unwrap();
    for _ in 0..2 {
        step.replay().unwrap();
    }
    // The step ran once before it was captured, and twice in replays.
    let got = total.to_vec().unwrap();
    let want: Vec<f32> = want[4].iter().map(|dw| 3.0 * dw).collect();
    assert_close("a captured step", DType::F16, &[got], &[want]);
}
