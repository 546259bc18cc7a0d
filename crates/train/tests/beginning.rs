//! Training that starts from the encoder of another run.

mod common;
mod watching;

use std::path::Path;
use std::sync::Arc;
use std::thread::scope;

use simclr_data::{Dataset, Synthetic};
use simclr_engine::{Device, ThreadGroup};
use simclr_train::checkpoint::Checkpoint;
use simclr_train::file_system::Disk;
use simclr_train::pretrain::{Team, Worker, assist, lead, plan, pretrain};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Layers, TrainError};
use watching::Watch;

fn config(sets: &[&str]) -> Result<Config, TrainError> {
    let usual = [
        "data.image_size=8",
        "data.holdout=16",
        "train.batch=16",
        "train.epochs=1",
        "train.precision=f32",
        "optim.warmup_epochs=0",
        "optim.name=sgd",
        "optim.rate=0.1",
    ];
    common::small(&usual, sets)
}

fn images() -> Arc<dyn Dataset> {
    Arc::new(Synthetic::new(96, 8, 0))
}

/// Trains a whole run in `folder` and returns its last checkpoint.
fn train(folder: &Path, config: &Config) -> Checkpoint {
    let run = RunFolder::create(folder, config).unwrap();
    let device = Device::cpu(1).unwrap();
    let outcome = pretrain(&images(), config, &run, None, &device, &mut Watch::default()).unwrap();
    Checkpoint::read(&Disk, &outcome.checkpoint).unwrap()
}

/// The names of trained tensors with the same bits in both, and of those with different bits.
fn compare(a: &Checkpoint, b: &Checkpoint) -> (Vec<String>, Vec<String>) {
    let names = a.tensors.iter().map(|tensor| tensor.name.clone());
    // Running averages change with every batch.
    let trained = names.filter(|name| !name.starts_with("optimizer.") && !name.contains("running_"));
    trained.partition(|name| {
        let [a, b] = [a, b].map(|checkpoint| checkpoint.tensor(name));
        a.zip(b).is_some_and(|(a, b)| a.shape == b.shape && a.data == b.data)
    })
}

/// At a rate that is 0 in f32 the weights do not change.
const STILL: &str = "optim.rate=1e-50";

#[test]
fn encoder_and_head_are_those_of_the_other_run() {
    let folder = tempfile::tempdir().unwrap();
    let (first, at) = (folder.path().join("first"), |name: &str| folder.path().join(name));
    let from = format!("train.from={}", toml::Value::from(first.to_str().unwrap()));
    let trained = train(&first, &config(&["encoder.width=0.125", "encoder.shortcut=projection"]).unwrap());

    // The encoder is that of the other run, whatever the preset says.
    let again = config(&[&from, "train.seed=7", STILL]).unwrap();
    assert_eq!(again.encoder.width, 0.125);
    let (same, other) = compare(&train(&at("again"), &again), &trained);
    assert!(same.iter().any(|name| name.starts_with("head.")) && other.is_empty(), "{other:?}");

    // A head of another shape is initialised anew.
    let head = config(&[&from, "train.seed=7", "head.dim=17", STILL]).unwrap();
    let (same, other) = compare(&train(&at("head"), &head), &trained);
    assert!(other.iter().all(|name| name.starts_with("head.")) && !other.is_empty(), "{other:?}");
    assert!(!same.iter().any(|name| name.starts_with("head.")) && !same.is_empty(), "{same:?}");

    let planned = plan(&images(), &head, &Device::cpu(1).unwrap(), Worker::ALONE).unwrap();
    assert!(planned.starts_from.unwrap().ends_with("first, and a new projection head"));
    assert_eq!(planned.done, 0);
}

#[test]
fn the_order_and_the_views_follow_the_seed_whatever_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    train(&first, &config(&[]).unwrap());
    let from = format!("train.from={}", toml::Value::from(first.to_str().unwrap()));
    let loss = |seed: u64| {
        // All images are trained on: the seed also chooses the held-out ones.
        let config = config(&[&from, &format!("train.seed={seed}"), "data.holdout=0"]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(&folder.path().join("run"), &config).unwrap();
        let mut watch = Watch { stop_after: Some(1), ..Watch::default() };
        pretrain(&images(), &config, &run, None, &Device::cpu(1).unwrap(), &mut watch).unwrap();
        watch.steps[0].loss
    };
    assert_eq!(loss(7), loss(7));
    assert_ne!(loss(7), loss(8));
}

#[test]
fn all_workers_begin_with_it_and_so_does_a_run_that_was_stopped_before_it_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    let trained = train(&first, &config(&[]).unwrap());
    let from = format!("train.from={}", toml::Value::from(first.to_str().unwrap()));
    let config = config(&[&from, "train.seed=7", STILL]).unwrap();

    let mut group = ThreadGroup::new(2);
    let (second, leader) = (group.pop().unwrap(), group.pop().unwrap());
    let run = RunFolder::create(&folder.path().join("two"), &config).unwrap();
    let outcome = scope(|scope| {
        let config = &config;
        let other = scope.spawn(move || {
            let (team, device) = (Team::new(&second, 2), Device::cpu(1).unwrap());
            assist(&images(), config, &team, &device, &mut Watch::default()).unwrap()
        });
        let (team, device) = (Team::new(&leader, 2), Device::cpu(1).unwrap());
        let outcome = lead(&images(), config, &run, None, &team, &device, &mut Watch::default()).unwrap();
        assert!(other.join().unwrap());
        outcome
    });
    let (_, other) = compare(&Checkpoint::read(&Disk, &outcome.checkpoint).unwrap(), &trained);
    assert!(other.is_empty(), "{other:?}");

    // A run without a checkpoint begins again with the run named in its configuration.
    let begun = folder.path().join("begun");
    drop(RunFolder::create(&begun, &config).unwrap());
    let (run, known) = RunFolder::resume(&begun).unwrap();
    let device = Device::cpu(1).unwrap();
    let outcome = pretrain(&images(), &known, &run, None, &device, &mut Watch::default()).unwrap();
    let (_, other) = compare(&Checkpoint::read(&Disk, &outcome.checkpoint).unwrap(), &trained);
    assert!(other.is_empty(), "{other:?}");
}

#[test]
fn what_cannot_be_begun_with_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at =
        |name: &str| format!("train.from={}", toml::Value::from(folder.path().join(name).to_str().unwrap()));
    let missing = config(&[&at("nowhere")]).unwrap_err().to_string();
    assert!(missing.contains("`train.from` names no run") && missing.contains("nowhere"), "{missing}");
    assert!(config(&["train.from=\"\""]).unwrap_err().to_string().contains("\"none\""));

    let small = config(&[]).unwrap();
    drop(RunFolder::create(&folder.path().join("empty"), &small).unwrap());
    let planned = |config: &Config| plan(&images(), config, &Device::cpu(1).unwrap(), Worker::ALONE);
    let empty = planned(&config(&[&at("empty")]).unwrap()).unwrap_err().to_string();
    assert!(empty.contains("no checkpoint yet"), "{empty}");

    train(&folder.path().join("first"), &small);
    for (set, there) in [
        ("encoder.width=0.125", "encoder.width = 0.25"),
        ("encoder.normalize=imagenet", "normalize = \"none\""),
    ] {
        let other = planned(&config(&[&at("first"), set]).unwrap()).unwrap_err().to_string();
        assert!(other.contains(there) && other.contains("leave that key out"), "{other}");
    }
    // When a run is resumed, neither a preset nor the removal of the other run matters.
    let begun = config(&[&at("first")]).unwrap();
    std::fs::remove_dir_all(folder.path().join("first")).unwrap();
    let sets = [at("first")];
    let again = Layers { base: Some(&begun), preset: Some("photos"), sets: &sets, ..Layers::default() };
    assert_eq!(Config::resolve(&again).unwrap().encoder, begun.encoder);
    assert!(again.data().is_ok() && Layers { base: None, ..again }.data().is_ok());
    let kept = small.check_resume(&begun).unwrap_err().to_string();
    assert!(kept.contains("`train.from`"), "{kept}");
}
