//! Networks to write, and what is written run again.

#![allow(dead_code, reason = "each test program uses a part of this")]

pub mod interpreter;

use std::path::Path;

use simclr_engine::{Device, ParameterKind};
use simclr_exchange::Trained;
use simclr_train::checkpoint::Checkpoint;
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Layers, Model};

/// The configuration that differs from the default in `sets`, in f32.
pub fn config(sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().chain(&["train.precision=f32"]).map(|set| set.to_string()).collect();
    Config::resolve(&Layers { sets: &sets, ..Layers::default() }).unwrap()
}

/// Its network, with no BatchNorm as it was made, so that each of its tensors counts.
pub fn model(config: &Config) -> Model {
    let mut model = Model::new(config, &Device::cpu(1).unwrap()).unwrap();
    let mut number = 0;
    for (_, kind, value) in model.parameters.iter_mut() {
        let about = match kind {
            ParameterKind::Weight => continue,
            // Gamma and variance must not be 0.
            ParameterKind::Norm | ParameterKind::Buffer => 0.75,
            ParameterKind::Bias => 0.0,
        };
        for value in value.as_mut_slice().unwrap() {
            number = (number * 7919 + 104_729) % 65_536;
            *value = about + number as f32 / 65_536.0 - 0.5;
        }
    }
    model
}

/// The network after 7 steps.
pub fn trained<'a>(model: &'a Model, config: &'a Config) -> Trained<'a> {
    Trained { model, config, step: 7, epoch: 2 }
}

/// 8-bit images (count, S, S, 3), no two alike.
pub fn images(model: &Model, count: usize) -> Vec<u8> {
    let values = count * model.image_size() * model.image_size() * 3;
    (0..values as u64).map(|i| ((i * i * 31 + i * 7919) % 251) as u8).collect()
}

/// The greatest difference, as a share of the greatest value.
#[track_caller]
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let greatest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, |a: f32, b| a.max(b.abs()));
    let scale = greatest(&mut b.iter().copied());
    assert!(scale > 0.0 && scale.is_finite());
    greatest(&mut a.iter().zip(b).map(|(a, b)| a - b)) / scale
}

/// The newest checkpoint of a run.
pub fn newest(run: &Path) -> Checkpoint {
    let (run, _) = RunFolder::open(run).unwrap();
    run.checkpoints(1).latest_good().unwrap().unwrap().checkpoint
}

#[track_caller]
pub fn says(message: String, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}
