//! A ResNet-D and SimCLR v2's network against PyTorch. `tools/golden/simclr_v2.py` made the values.

#[path = "../../engine/tests/common/values.rs"]
mod values;

use serde_json::Value;
use simclr_engine::{Device, Mode, ParameterKind, Parameters, SingleProcess, Tape, Tensor};
use simclr_nn::{Depth, PoolPadding, ResNet, ResNetSpec, Stem, Variant};
use values::uniform;

/// Allowed errors relative to the norm: of h, and of gradients, in which the rounding of all layers adds up. PyTorch
/// computed in f64.
const H: f64 = 1e-5;
const GRADIENTS: f64 = 2e-4;

fn spec(settings: &Value) -> ResNetSpec {
    let number = |key: &str| settings[key].as_f64().unwrap();
    let depth = if settings["depth"] == 18 { Depth::D18 } else { Depth::D50 };
    let official = settings["official"] == true;
    ResNetSpec {
        variant: Variant::D,
        selective_kernels: Some(number("ratio")).filter(|&ratio| ratio > 0.0),
        projection_shortcuts: official,
        pool_padding: if official { PoolPadding::Same } else { PoolPadding::All },
        ..ResNetSpec::new(depth, number("base") / 64.0, Stem::ImageNet)
    }
}

/// Sets weights by the script's formulas.
fn set_weights(parameters: &mut Parameters) {
    for id in parameters.ids() {
        let (name, shape) = (parameters.name(id).to_owned(), parameters.get(id).shape().to_vec());
        let (centre, spread) = match parameters.kind(id) {
            ParameterKind::Weight => (0.0, (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt() as f32),
            ParameterKind::Norm if name.ends_with("bn3.weight") => (0.2, 0.1),
            ParameterKind::Norm if name.ends_with(".weight") => (1.0, 0.1),
            ParameterKind::Norm => (0.0, 0.1),
            ParameterKind::Bias | ParameterKind::Buffer => continue,
        };
        let formula =
            uniform(&name, shape.iter().product()).iter().map(|u| centre + spread * u).collect::<Vec<_>>();
        parameters.get_mut(id).write(&formula).unwrap();
    }
}

fn assert_described(what: &str, got: &[f32], golden: &Value, tolerance: f64) {
    let number = |value: &Value| value.as_f64().unwrap();
    let norm = number(&golden["norm"]);
    let sum = |of: &mut dyn Iterator<Item = f64>| of.sum::<f64>();
    let own_norm = sum(&mut got.iter().map(|&v| f64::from(v) * f64::from(v))).sqrt();
    let digest = uniform("digest", got.len());
    let own_digest = sum(&mut got.iter().zip(&digest).map(|(&v, &u)| f64::from(v) * f64::from(u)));
    let mut off = vec![(own_norm - norm) / norm, (own_digest - number(&golden["digest"])) / norm];
    let values = golden["values"].as_array().unwrap();
    let every = got.len().div_ceil(5);
    assert_eq!(values.len(), got.iter().step_by(every).count(), "{what}");
    off.extend(got.iter().step_by(every).zip(values).map(|(&v, want)| (f64::from(v) - number(want)) / norm));
    let worst =
        off.iter().fold(0.0, |most: f64, v| if v.is_nan() { f64::INFINITY } else { most.max(v.abs()) });
    println!("{what}: off by {worst:.1e}");
    assert!(worst <= tolerance, "{what}: off by {worst:.1e} of its norm");
}

#[test]
fn networks_are_those_of_pytorch() {
    let golden: Value = serde_json::from_str(include_str!("golden/simclr_v2.json")).unwrap();
    for golden in golden["networks"].as_array().unwrap() {
        let (settings, results) = (&golden["settings"], golden["results"].as_object().unwrap());
        let size = |key: &str| settings[key].as_u64().unwrap() as usize;
        let device = Device::cpu(2).unwrap();
        let mut parameters = Parameters::new();
        let net = ResNet::new(&spec(settings), &device, 0, &mut parameters).unwrap();
        set_weights(&mut parameters);
        let trained = parameters.ids().filter(|&id| parameters.kind(id).is_trained()).count();
        assert_eq!(trained, golden["parameters"].as_u64().unwrap() as usize, "{settings}");
        let shape = [size("batch"), size("size"), size("size"), 3];
        let images = uniform("images", shape.iter().product()).iter().map(|u| (u + 1.0) / 2.0).collect();
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let x = tape.input(Tensor::from_vec(&device, &shape, images).unwrap());
        let h = net.forward(&mut tape, &x).unwrap();
        assert_described(&format!("h of {settings}"), h.tensor().as_slice().unwrap(), &results["h"], H);
        let dh = uniform("dh", h.tensor().len());
        let dh = Tensor::from_vec(&device, h.tensor().shape(), dh).unwrap();
        let gradients = tape.backward(&h, dh).unwrap();
        for (name, golden) in results.iter().filter(|(name, _)| *name != "h") {
            let id = parameters.find(name).unwrap_or_else(|| panic!("no {name}"));
            let gradient = gradients.get(id).unwrap().to_vec().unwrap();
            assert_described(&format!("d{name} of {settings}"), &gradient, golden, GRADIENTS);
        }
    }
}
