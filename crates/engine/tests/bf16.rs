//! Activations in bf16: a step's results stay close to f32's, and keep all guarantees of f32.

mod common;

use common::network::{CHANNELS, Network, SIZE};
use common::{bits, tensor};
use simclr_engine::{DType, Device, Mode, Parameters, SingleProcess, Tape, Tensor, ops};

struct Step {
    loss: f32,
    gradients: Vec<Tensor>,
    averages: Vec<Tensor>,
}

impl Step {
    fn bits(&self) -> Vec<Vec<u32>> {
        let tensors = self.gradients.iter().chain(&self.averages);
        tensors.map(bits).chain([vec![self.loss.to_bits()]]).collect()
    }
}

fn step(parameters: &Parameters, network: &Network, views: Tensor, checkpoint: bool) -> Step {
    let device = views.device().clone();
    let mut tape = Tape::new(parameters, Mode::Train, &SingleProcess);
    let (loss, _) = network.loss(&mut tape, views, checkpoint).unwrap();
    let one = Tensor::full(&device, &[1], 1.0).unwrap();
    let gradients = tape.backward(&loss, one).unwrap();
    Step {
        loss: loss.tensor().as_slice().unwrap()[0],
        gradients: gradients.iter().map(|(_, gradient)| gradient.clone()).collect(),
        averages: tape.into_buffer_updates().drain().map(|(_, average)| average).collect(),
    }
}

fn views(device: &Device, count: usize, dtype: DType) -> Tensor {
    tensor(device, "views", &[count, SIZE, SIZE, CHANNELS]).cast(dtype).unwrap()
}

fn relative_rms(got: &Tensor, want: &Tensor) -> f64 {
    let sum =
        |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>();
    let (got, want) = (got.as_slice().unwrap(), want.as_slice().unwrap());
    (sum(&mut got.iter().zip(want).map(|(a, b)| a - b)) / sum(&mut want.iter().copied())).sqrt()
}

/// Each layer rounds activations by up to 2^-9, forward and backward, and ReLUs near zero change sides. All of this
/// adds up in the gradient of the first layer, which is off by 13%.
#[test]
fn a_step_is_close_to_f32() {
    let device = Device::cpu(2).unwrap();
    let (parameters, network) = Network::new(&device);
    let want = step(&parameters, &network, views(&device, 24, DType::F32), false);
    let got = step(&parameters, &network, views(&device, 24, DType::Bf16), false);
    assert!((got.loss - want.loss).abs() < 0.01 * want.loss, "{} {}", got.loss, want.loss);
    assert_ne!(got.loss, want.loss);
    assert_eq!((got.averages.len(), got.gradients.len()), (want.averages.len(), want.gradients.len()));
    assert!(!got.averages.is_empty() && !got.gradients.is_empty());
    for (got, want) in got.averages.iter().zip(&want.averages) {
        assert!(relative_rms(got, want) < 0.02, "{got:?}");
    }
    for (got, want) in got.gradients.iter().zip(&want.gradients) {
        // The gradients of parameters are f32, whatever the type of activations.
        assert_eq!(got.dtype(), DType::F32);
        let error = relative_rms(got, want);
        assert!(error < 0.2, "gradient {got:?}: {error}");
    }
}

#[test]
fn bits_depend_neither_on_threads_nor_on_checkpoints() {
    let run = |threads, checkpoint| {
        let device = Device::cpu(threads).unwrap();
        let (parameters, network) = Network::new(&device);
        step(&parameters, &network, views(&device, 14, DType::Bf16), checkpoint).bits()
    };
    let one = run(1, false);
    assert!(one == run(2, false) && one == run(4, true));
}

#[test]
fn h_is_f32() {
    let device = Device::cpu(1).unwrap();
    let parameters = Parameters::new();
    let mut tape = Tape::new(&parameters, Mode::Eval, &SingleProcess);
    let x = tape.input(views(&device, 2, DType::Bf16));
    let pooled = ops::max_pool(&mut tape, &x, 3, 2, [1, 1]).unwrap();
    assert_eq!(pooled.tensor().dtype(), DType::Bf16);
    let h = ops::global_avg_pool(&mut tape, &pooled).unwrap();
    assert_eq!(h.tensor().dtype(), DType::F32);
}

/// Operators that compute only in f32 report other types.
#[test]
fn operators_without_a_bf16_form_are_errors() {
    let device = Device::cpu(1).unwrap();
    let parameters = Parameters::new();
    let mut tape = Tape::new(&parameters, Mode::Eval, &SingleProcess);
    let x = tape.input(tensor(&device, "x", &[4, 8]).cast(DType::Bf16).unwrap());
    let w = tape.input(tensor(&device, "w", &[8, 8]));
    let half = tape.input(tensor(&device, "w", &[3, 1, 1, CHANNELS]).cast(DType::Bf16).unwrap());
    let images = tape.input(views(&device, 2, DType::Bf16));
    let options = ops::Conv2d { stride: 1, padding: 0, channel_sums: false };
    for error in [
        ops::linear(&mut tape, &x, &w, None).err(),
        ops::l2_normalize(&mut tape, &x).err(),
        ops::conv2d(&mut tape, &images, &half, options).err(),
    ] {
        let message = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("Bf16") && message.contains("F32"), "{message}");
    }
}
