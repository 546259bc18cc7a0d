//! Shared by the engine's tests: reproducible values, a small network, and the check of gradients.
#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod gradient_check;
pub mod network;
pub mod values;

use simclr_engine::ops::BatchNorm;
use simclr_engine::{Device, ParameterId, ParameterKind, Parameters, Tensor};

pub fn device() -> Device {
    Device::cpu(2).unwrap()
}

/// A GPU if there is one, else a stand-in for one; `None`, with a message, if the stand-in cannot be built. The guard
/// admits one test at a time: while one captures a step, others of the process must not wait for all work.
#[cfg(feature = "cuda")]
pub fn gpu() -> Option<(Device, std::sync::MutexGuard<'static, ()>)> {
    use std::io::Write as _;
    use std::sync::{Mutex, PoisonError};
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Straight to stderr, which the test harness does not capture.
    let say = |what: &str| drop(writeln!(std::io::stderr(), "SKIPPED {what}"));
    match Device::cuda(0, 2) {
        Ok(device) => return Some((device, alone)),
        Err(missing) => say(&format!("on a GPU: {missing}")),
    }
    let Some(libraries) = simclr_stand_in::libraries() else {
        say("on the stand-in for a GPU: it needs a C++ compiler");
        return None;
    };
    Some((Device::cuda_with(&libraries, 0, 2).expect("the stand-in is a whole device"), alone))
}

/// A tensor of [`values::uniform`] values.
pub fn tensor(device: &Device, name: &str, shape: &[usize]) -> Tensor {
    let len = shape.iter().product();
    Tensor::from_vec(device, shape, values::uniform(name, len)).unwrap()
}

/// A trained parameter with values made from its name.
pub fn parameter(parameters: &mut Parameters, device: &Device, name: &str, shape: &[usize]) -> ParameterId {
    let value = tensor(device, name, shape);
    parameters.add(name, ParameterKind::Weight, value).unwrap()
}

/// A BatchNorm of `channels` channels with its running averages.
pub fn batch_norm(parameters: &mut Parameters, device: &Device, channels: usize) -> BatchNorm {
    let mut add = |name: &str, kind, centre: f32| {
        let values = values::uniform(name, channels).iter().map(|u| centre + 0.5 * u).collect();
        parameters.add(name, kind, Tensor::from_vec(device, &[channels], values).unwrap()).unwrap()
    };
    BatchNorm {
        gamma: add("gamma", ParameterKind::Norm, 1.0),
        beta: Some(add("beta", ParameterKind::Norm, 0.0)),
        running_mean: add("mean", ParameterKind::Buffer, 0.0),
        running_var: add("var", ParameterKind::Buffer, 1.0),
        epsilon: 1e-5,
        decay: 0.9,
    }
}

/// A trained parameter with the given values.
pub fn parameter_of(
    parameters: &mut Parameters,
    device: &Device,
    name: &str,
    shape: &[usize],
    values: Vec<f32>,
) -> ParameterId {
    let value = Tensor::from_vec(device, shape, values).unwrap();
    parameters.add(name, ParameterKind::Weight, value).unwrap()
}

/// The largest |got - want| over the largest |want|.
pub fn deviation(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1e-30f32, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(want).map(|(a, b)| f64::from((a - b).abs()));
    // A NaN must not count as small.
    worst.fold(0.0, |m, v| if v.is_nan() { f64::INFINITY } else { f64::max(m, v) }) / f64::from(scale)
}

/// The bits of values, for comparisons in which NaN and -0 must count exactly.
pub fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.as_slice().unwrap().iter().map(|v| v.to_bits()).collect()
}
