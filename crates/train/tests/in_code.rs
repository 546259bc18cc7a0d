//! How `pretrain` handles configurations built in code, and checkpoints that do not belong to the run.

mod common;
mod watching;

use std::path::Path;
use std::sync::Arc;

use common::{bits, run_in};
use simclr_data::{Dataset, Synthetic};
use simclr_engine::Device;
use simclr_train::checkpoint::Checkpoint;
use simclr_train::config::{Auto, Precision};
use simclr_train::file_system::Disk;
use simclr_train::pretrain::{Outcome, Worker, plan, pretrain};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Model, TrainError};
use watching::Watch;

/// Ten steps on 16 x 16 pixels, with the precision left to the program.
fn config() -> Config {
    let mut config = common::usual(&[], &["train.epochs=1"]);
    config.train.precision = Precision::Auto;
    config.view.blur_prob = None;
    config
}

fn train(
    folder: &Path,
    config: &Config,
    from: Option<&Checkpoint>,
    stop_after: Option<u64>,
) -> Result<Outcome, TrainError> {
    let images: Arc<dyn Dataset> = Arc::new(Synthetic::new(176, 16, 0));
    let device = Device::cpu(1).unwrap();
    let mut watch = Watch { stop_after, ..Watch::default() };
    pretrain(&images, config, &run_in(folder, config, from)?, from, &device, &mut watch)
}

/// Trains and returns the last checkpoint.
fn saved(folder: &Path, config: &Config, from: Option<&Checkpoint>, stop_after: Option<u64>) -> Checkpoint {
    Checkpoint::read(&Disk, &train(folder, config, from, stop_after).unwrap().checkpoint).unwrap()
}

#[test]
fn what_is_left_to_the_program_is_settled_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] = ["1", "2", "3"].map(|name| folder.path().join(name));
    let whole = saved(&one, &config(), None, None);
    let part = saved(&two, &config(), None, Some(3));
    let read = Config::from_toml(&part.meta.config, "the test").unwrap();
    assert_eq!(read, config().resolved().unwrap());
    assert_ne!(read.train.precision, Precision::Auto);
    let ended = saved(&two, &read, Some(&part), None);
    assert!(bits(&ended) == bits(&whole), "another precision after the stop");
    let device = Device::cpu(1).unwrap();
    let built = Model::new(&config(), &device).unwrap();
    assert_eq!(built.activations(), Model::from_checkpoint(&whole, &device).unwrap().0.activations());
    // Opening the folder gives the configuration that was trained with.
    drop(RunFolder::create(&three, &config()).unwrap());
    assert_eq!(RunFolder::open(&three).unwrap().1, read);
}

#[test]
fn a_run_goes_on_with_its_own_recipe_alone() {
    let folder = tempfile::tempdir().unwrap();
    let part = saved(folder.path(), &config(), None, Some(3));
    let mut other = config();
    other.loss.temperature = 0.9;
    let error = train(folder.path(), &other, Some(&part), None).unwrap_err();
    assert!(matches!(error, TrainError::Conflict { .. }), "{error}");
    assert!(error.to_string().contains("loss.temperature"), "{error}");
    // Keys that do not change results may differ.
    other = config();
    other.train.keep_checkpoints += 1;
    assert!(train(folder.path(), &other, Some(&part), None).unwrap().finished);
}

#[test]
fn what_is_out_of_range_is_named_before_anything_is_made() {
    let images: Arc<dyn Dataset> = Arc::new(Synthetic::new(176, 16, 0));
    let device = Device::cpu(1).unwrap();
    type Change = fn(&mut Config);
    let changes: [(&str, Change); 6] = [
        ("train.epochs", |config| config.train.epochs = 0),
        ("train.batch", |config| config.train.batch = 0),
        ("train.log_every", |config| config.train.log_every = Auto::Value(0)),
        ("train.keep_checkpoints", |config| config.train.keep_checkpoints = 0),
        ("data.image_size", |config| config.data.image_size = 0),
        ("optim.rate", |config| config.optim.rate = Auto::Value(f64::NAN)),
    ];
    for (key, change) in changes {
        let mut wrong = config();
        change(&mut wrong);
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let refused = [
            RunFolder::create(&run, &wrong).err(),
            plan(&images, &wrong, &device, Worker::ALONE).err(),
            Model::new(&wrong, &device).err(),
        ];
        for error in refused {
            let error = error.unwrap_or_else(|| panic!("{key} was taken")).to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
        assert!(!run.exists());
    }
}
