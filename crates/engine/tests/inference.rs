//! A convolution and its BatchNorm as one kernel, where nothing is trained, against the operators that it replaces.

mod common;

use common::{batch_norm, deviation, device, parameter, tensor};
use simclr_engine::ops::{self, BatchNorm, Conv2d};
use simclr_engine::{DType, Device, Mode, ParameterId, Parameters, SingleProcess, Tape, Tensor};

/// A convolution from `inputs` to `outputs` channels and its BatchNorm.
struct Layer {
    parameters: Parameters,
    weight: ParameterId,
    norm: BatchNorm,
}

impl Layer {
    fn new(device: &Device, [inputs, outputs]: [usize; 2], side: usize) -> Layer {
        let mut parameters = Parameters::new();
        let weight = parameter(&mut parameters, device, "weight", &[outputs, side, side, inputs]);
        let norm = batch_norm(&mut parameters, device, outputs);
        Layer { parameters, weight, norm }
    }

    /// The fused operator's output in `mode`, and that of the operators one after the other.
    fn both_ways(
        &self,
        mode: Mode,
        x: &Tensor,
        conv: Conv2d,
        residual: Option<&Tensor>,
        relu: bool,
    ) -> [Vec<f32>; 2] {
        [true, false].map(|fused| {
            let mut tape = Tape::new(&self.parameters, mode, &SingleProcess);
            let x = tape.input(x.clone());
            let residual = residual.map(|residual| tape.input(residual.clone()));
            let y = if fused {
                ops::conv2d_norm(&mut tape, x, self.weight, conv, &self.norm, residual.as_ref(), relu)
            } else {
                let w = tape.parameter(self.weight);
                let y = ops::conv2d(&mut tape, &x, &w, conv).unwrap();
                ops::batch_norm(&mut tape, &y, &self.norm, residual.as_ref(), relu)
            };
            y.unwrap().tensor().to_vec().unwrap()
        })
    }
}

#[test]
fn a_convolution_and_its_norm_are_the_two_in_a_row() {
    let device = device();
    for ([batch, height, width, inputs], outputs, side, stride) in [
        ([3, 9, 7, 5], 33, 3, 2),
        ([2, 8, 8, 16], 64, 1, 1),
        ([5, 8, 8, 32], 48, 3, 1),
        ([1, 20, 20, 3], 16, 7, 2),
    ] {
        let layer = Layer::new(&device, [inputs, outputs], side);
        let conv = Conv2d { stride, padding: side / 2, channel_sums: false };
        let x = tensor(&device, "x", &[batch, height, width, inputs]);
        let to = [batch, height.div_ceil(stride), width.div_ceil(stride), outputs];
        let residual = tensor(&device, "residual", &to);
        for (residual, relu) in [(Some(&residual), true), (None, true), (None, false)] {
            for mode in [Mode::Eval, Mode::TrainFrozenNorm, Mode::Train] {
                let [fused, apart] = layer.both_ways(mode, &x, conv, residual, relu);
                assert_eq!(fused, apart, "{to:?} {mode:?}");
            }
            let x = x.cast(DType::Bf16).unwrap();
            let residual = residual.map(|residual| residual.cast(DType::Bf16).unwrap());
            let [fused, apart] = layer.both_ways(Mode::Eval, &x, conv, residual.as_ref(), relu);
            let off = deviation(&fused, &apart);
            assert!(off <= 1e-2, "{to:?}: off by {off:.1e}");
        }
    }
}

#[test]
fn only_where_nothing_is_trained_are_they_one_kernel() {
    let (device, profile) = Device::cpu_profiled(1, simclr_engine::Isa::detect()).unwrap();
    let layer = Layer::new(&device, [4, 8], 3);
    let x = tensor(&device, "x", &[2, 6, 6, 4]);
    for (mode, kernels) in [(Mode::Eval, 1), (Mode::Train, 0)] {
        profile.clear();
        let mut tape = Tape::new(&layer.parameters, mode, &SingleProcess);
        let x = tape.input(x.clone());
        assert_eq!(ops::fuses_conv2d_norm(&tape, &x), kernels == 1);
        let conv = Conv2d { stride: 1, padding: 1, channel_sums: false };
        ops::conv2d_norm(&mut tape, x, layer.weight, conv, &layer.norm, None, true).unwrap();
        let named = |name: &str| profile.costs().iter().filter(|(work, _)| work.operator == name).count();
        assert_eq!([named("conv2d_norm"), named("conv2d")], [kernels, 1 - kernels]);
    }
}

#[test]
fn a_residual_of_another_shape_is_refused() {
    let device = device();
    let layer = Layer::new(&device, [4, 8], 3);
    for mode in [Mode::Eval, Mode::Train] {
        let mut tape = Tape::new(&layer.parameters, mode, &SingleProcess);
        let x = tape.input(tensor(&device, "x", &[2, 6, 6, 4]));
        let residual = tape.input(tensor(&device, "residual", &[2, 6, 5, 8]));
        let conv = Conv2d { stride: 1, padding: 1, channel_sums: false };
        let y = ops::conv2d_norm(&mut tape, x, layer.weight, conv, &layer.norm, Some(&residual), true);
        let error = y.unwrap_err().to_string();
        assert!(error.contains("a residual [2, 6, 6, 8]") && error.contains("[2, 6, 5, 8]"), "{error}");
    }
}
