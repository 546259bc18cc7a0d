//! Fused first layers: in 16 bits, on small images.

use simclr_engine::ops::{self, Conv2d};
use simclr_engine::{
    DType, Device, Mode, ParameterKind, Parameters, Result, SingleProcess, Tape, Tensor, Var,
};

use crate::common::{self, gpu, tensor};
use crate::{Setting, TYPES, assert_close, find, norm, outcome, outcome_of, rounded};

const MODES: [Mode; 2] = [Mode::Train, Mode::TrainFrozenNorm];

/// Images (N, H, W, 3), with the same values on both devices. The CPU keeps them in f32, because a fused layer does
/// not round in between.
fn images(device: &Device, size: [usize; 3], dtype: DType) -> Tensor {
    let kept = if device.is_gpu() { dtype } else { DType::F32 };
    let [n, h, w] = size;
    rounded(&tensor(device, "images", &[n, h, w, 3]), dtype).cast(kept).unwrap()
}

fn layer(tape: &mut Tape, parameters: &Parameters, images: Var) -> Result<Var> {
    let conv = Conv2d { stride: 1, padding: 1, channel_sums: true };
    ops::first_layer(tape, images, find(parameters, "w"), conv, &norm(parameters))
}

/// A layer of `channels` channels on a device. Its weights are rounded to `dtype`, so that the ReLU lets the same
/// values through on both devices.
fn parameters(device: &Device, channels: usize, with_beta: bool, dtype: DType) -> Parameters {
    let all: [(&str, &[usize]); 2] = [("gamma", &[channels]), ("beta", &[channels])];
    let averages: &[(&str, &[usize])] = &[("mean", &[channels]), ("var", &[channels])];
    let setting = Setting { activations: &[], parameters: &all[..1 + usize::from(with_beta)], averages };
    let mut parameters = setting.on(device, DType::F32);
    let w = rounded(&tensor(device, "w", &[channels, 3, 3, 3]), dtype).cast(DType::F32).unwrap();
    parameters.add("w", ParameterKind::Weight, w).unwrap();
    parameters
}

/// Output, gradients and new averages, with a dy of `dtype`.
fn plain(parameters: &Parameters, mode: Mode, images: &Tensor, dtype: DType) -> Vec<Vec<f32>> {
    outcome(parameters, mode, dtype, |tape| {
        let images = tape.input(images.clone());
        layer(tape, parameters, images)
    })
}

#[test]
fn first_layers_of_small_images() {
    let Some((gpu, _alone)) = gpu() else { return };
    for (size, k, with_beta) in [
        ([3, 33, 17], 64, true),
        ([2, 7, 35], 128, false),
        ([5, 32, 32], 64, true),
        ([2, 2, 1], 16, false),
        // There are no fused kernels for this number of channels: the separate ones round in between.
        ([3, 9, 9], 24, true),
    ] {
        let types = if k == 24 { &TYPES[..1] } else { &TYPES[..] };
        for (dtype, mode) in types.iter().flat_map(|&dtype| MODES.map(|mode| (dtype, mode))) {
            let [got, want] = [&gpu, &common::device()].map(|device| {
                let parameters = parameters(device, k, with_beta, dtype);
                let x = images(device, size, dtype);
                plain(&parameters, mode, &x, dtype)
            });
            assert_close(&format!("{size:?} to {k}, {mode:?}"), dtype, &got, &want);
        }
    }
}

#[test]
fn what_the_convolution_puts_out_is_not_kept() {
    let Some((gpu, _alone)) = gpu() else { return };
    let parameters = parameters(&gpu, 64, true, DType::Bf16);
    let (size, outputs) = ([2, 32, 32], 2 * 32 * 32 * 64);
    let kept = |dtype| {
        let x = images(&gpu, size, dtype);
        let before = gpu.memory().live;
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let x = tape.input(x);
        let _y = layer(&mut tape, &parameters, x).unwrap();
        gpu.memory().live - before
    };
    let [apart, at_once] = [DType::F32, DType::Bf16].map(kept);
    assert!(apart >= 2 * 4 * outputs, "{apart} bytes");
    assert!(at_once < 2 * 2 * outputs, "{at_once} bytes");
}

#[test]
fn a_wanted_gradient_of_images_is_given() {
    let Some((gpu, _alone)) = gpu() else { return };
    let mut parameters = parameters(&gpu, 16, true, DType::Bf16);
    let x = images(&gpu, [2, 5, 6], DType::Bf16);
    let id = parameters.add("x", ParameterKind::Weight, x).unwrap();
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    let x = tape.parameter(id);
    let y = layer(&mut tape, &parameters, x).unwrap();
    let dy = rounded(&tensor(&gpu, "dy", y.tensor().shape()), DType::Bf16);
    let gradients = tape.backward(&y, dy).unwrap();
    assert!(gradients.get(id).unwrap().to_vec().unwrap().iter().any(|v| *v != 0.0));
}

#[test]
fn checkpointed_first_layers_are_the_same_to_the_bit() {
    let Some((gpu, _alone)) = gpu() else { return };
    let parameters = parameters(&gpu, 64, true, DType::Bf16);
    let x = images(&gpu, [3, 9, 7], DType::Bf16);
    let plain = plain(&parameters, Mode::Train, &x, DType::Bf16);
    let segment = |tape: &mut Tape, x: &[Var]| layer(tape, &parameters, x[0].clone());
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    let x = tape.input(x);
    let y = tape.checkpoint(&[&x], &segment).unwrap();
    assert!(outcome_of(tape, y, DType::Bf16) == plain);
}

#[test]
fn a_captured_first_layer_is_computed_each_time() {
    let Some((gpu, _alone)) = gpu() else { return };
    let parameters = parameters(&gpu, 64, true, DType::Bf16);
    let x = images(&gpu, [3, 9, 7], DType::Bf16);
    let plain = plain(&parameters, Mode::Train, &x, DType::Bf16);
    let dy = rounded(&tensor(&gpu, "dy", &[3, 9, 7, 64]), DType::Bf16);
    let w = find(&parameters, "w");
    let mut total = Tensor::zeros(&gpu, parameters.get(w).shape()).unwrap();
    let step = gpu
        .capture(|| {
            let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
            let x = tape.input(x.clone());
            let y = layer(&mut tape, &parameters, x)?;
            let gradients = tape.backward(&y, dy.clone())?;
            total.add_assign(gradients.get(w).unwrap())
        })
        .unwrap();
    step.replay().unwrap();
    // The step ran once before it was captured, and once more in the replay.
    let got = total.to_vec().unwrap();
    let want = plain.iter().find(|values| values.len() == got.len()).unwrap();
    assert!(want.iter().any(|dw| *dw != 0.0) && got.iter().zip(want).all(|(got, dw)| *got == dw + dw));
}
