//! Resuming a run: what it goes on with, and what is refused before a step is taken.

mod common;
mod watching;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use simclr_data::{Dataset, Synthetic};
use simclr_engine::Device;
use simclr_train::config::Auto;
use simclr_train::pretrain::{inspect, pretrain, resume};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, TrainError};
use watching::Watch;

fn images() -> Arc<dyn Dataset> {
    Arc::new(Synthetic::new(48, 16, 0))
}

/// A run that was stopped after two steps.
fn stopped(path: &Path, sets: &[&str]) -> Config {
    let config = common::usual(&[], sets);
    let run = RunFolder::create(path, &config).unwrap();
    let mut watch = Watch { stop_after: Some(2), ..Watch::default() };
    pretrain(&images(), &config, &run, None, &Device::cpu(1).unwrap(), &mut watch).unwrap();
    config
}

#[test]
fn a_run_goes_on_from_its_checkpoint_with_what_may_change_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let config = stopped(&path, &[]);
    let mut given = config.clone();
    given.train.log_every = Auto::Value(7);

    let looked = inspect(&path).unwrap().change(&given).unwrap();
    assert_eq!((looked.config.train.log_every, looked.checkpoint().unwrap().meta.step), (Auto::Value(7), 2));
    assert_eq!(RunFolder::open(&path).unwrap().1, config, "looking changes nothing");

    let resumed = resume(&path).unwrap();
    assert!(matches!(resume(&path), Err(TrainError::RunLocked { .. })));
    assert!(!resumed.is_finished() && resumed.failed.is_none());
    let resumed = resumed.change(&given).unwrap();
    assert_eq!(RunFolder::open(&path).unwrap().1, given);
    let device = Device::cpu(1).unwrap();
    let from = resumed.checkpoint();
    let outcome = pretrain(&images(), &resumed.config, &resumed.folder, from, &device, &mut ()).unwrap();
    assert!(outcome.finished && outcome.step > 2, "{outcome:?}");
    drop(resumed);
    assert!(resume(&path).unwrap().is_finished());
}

#[test]
fn what_would_be_another_run_is_refused_once_there_is_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let [begun, new] = ["begun", "new"].map(|name| folder.path().join(name));
    let config = stopped(&begun, &[]);
    let mut given = config.clone();
    given.optim.rate = Auto::Value(config.optim.settled_rate() * 2.0);
    let error = resume(&begun).unwrap().change(&given).unwrap_err();
    assert!(matches!(&error, TrainError::Conflict { key, .. } if key == "optim.rate"), "{error}");
    assert_eq!(RunFolder::open(&begun).unwrap().1, config);
    given.optim.rate = Auto::Value(f64::NAN);
    assert!(matches!(resume(&begun).unwrap().change(&given), Err(TrainError::BadValue { .. })));

    drop(RunFolder::create(&new, &config).unwrap());
    given.optim.rate = Auto::Value(0.5);
    let resumed = resume(&new).unwrap().change(&given).unwrap();
    assert!(resumed.from.is_none() && !resumed.is_finished());
    assert_eq!(RunFolder::open(&new).unwrap().1.optim.rate, Auto::Value(0.5));

    // A configuration that the checkpoint was not trained with.
    let file = begun.join("config.toml");
    let text = fs::read_to_string(&file).unwrap();
    let edited = text.replace("temperature = ", "temperature = 1");
    assert_ne!(edited, text);
    fs::write(&file, edited).unwrap();
    for error in [resume(&begun).unwrap_err(), inspect(&begun).unwrap_err()] {
        assert!(matches!(error, TrainError::CannotResume { .. }), "{error}");
    }
}

#[test]
fn what_ended_a_run_is_known_until_it_is_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let config = common::usual(&[], &["optim.name=sgd", "optim.rate=1e30", "optim.warmup_epochs=0"]);
    let run = RunFolder::create(&path, &config).unwrap();
    let device = Device::cpu(1).unwrap();
    let error = pretrain(&images(), &config, &run, None, &device, &mut ()).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
    drop(run);
    let Some(begun) = inspect(&path).ok().filter(|looked| looked.failed.is_some()) else {
        panic!("what ended the run is not known");
    };
    assert!(begun.from.is_none());
    let mut given = config.clone();
    given.train.log_every = Auto::Value(7);
    let begun = begun.change(&given).unwrap();
    assert!(begun.failed.is_some());
    given.optim.rate = Auto::Value(0.1);
    assert!(begun.change(&given).unwrap().failed.is_none());
}

#[test]
fn an_imported_network_cannot_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let config = common::usual(&[], &[]);
    let run = RunFolder::create_imported(&path, &config, "resnet.pth").unwrap();
    let device = Device::cpu(1).unwrap();
    let trained = pretrain(&images(), &config, &run, None, &device, &mut ()).unwrap_err();
    drop(run);
    for error in [trained, resume(&path).unwrap_err(), inspect(&path).unwrap_err()] {
        assert!(matches!(error, TrainError::CannotResume { .. }), "{error}");
        assert!(error.to_string().contains("imported from resnet.pth"), "{error}");
    }
}
