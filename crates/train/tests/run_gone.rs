//! A run whose folder is removed, moved or replaced while it trains ends, and touches nothing that is not its own.

#![cfg(unix)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use simclr_data::{Dataset, Synthetic};
use simclr_engine::Device;
use simclr_train::TrainError;
use simclr_train::checkpoint::{Checkpoint, Meta};
use simclr_train::pretrain::{Observer, Outcome, StepRecord, pretrain};
use simclr_train::run_folder::RunFolder;

/// Does something to the run after its third step, once the checkpoint of the second is on the disk.
struct Meddler<F> {
    after_three: F,
    checkpoint: PathBuf,
    /// The checkpoint that is told to be what is left of the run.
    rescued: Option<(PathBuf, u64)>,
}

impl<F: FnMut()> Observer for Meddler<F> {
    fn step(&mut self, record: &StepRecord) {
        if record.step == 3 {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !self.checkpoint.exists() {
                assert!(Instant::now() < deadline, "no checkpoint is written");
                sleep(Duration::from_millis(5));
            }
            (self.after_three)();
        }
    }

    fn rescued(&mut self, checkpoint: &Path, lost: u64) {
        self.rescued = Some((checkpoint.to_owned(), lost));
    }
}

/// Trains in `folder` for two epochs of ten steps, with a checkpoint after every second one. Nothing may be left of the
/// run.
fn train(folder: &Path, after_three: impl FnMut()) -> Result<Outcome, TrainError> {
    let (run, trained, rescued) = trained(folder, after_three)?;
    assert_eq!(rescued, None);
    assert!(run.write("encoder.safetensors", |out| out.write_all(b"old")).is_err());
    run.remove_cache();
    run.discard();
    trained
}

type Trained = (RunFolder, Result<Outcome, TrainError>, Option<(PathBuf, u64)>);

fn trained(folder: &Path, after_three: impl FnMut()) -> Result<Trained, TrainError> {
    let config = common::usual(&["train.checkpoint_every=2", "train.keep_checkpoints=1"], &[]);
    let images: Arc<dyn Dataset> = Arc::new(Synthetic::new(176, 16, 0));
    let run = RunFolder::create(folder, &config)?;
    let checkpoint = run.checkpoints(1).path(2);
    let mut meddler = Meddler { after_three, checkpoint, rescued: None };
    let trained = pretrain(&images, &config, &run, None, &Device::cpu(1).unwrap(), &mut meddler);
    let rescued = meddler.rescued;
    Ok((run, trained, rescued))
}

fn checkpoint(step: u64) -> Checkpoint {
    Checkpoint { meta: Meta { step, ..Meta::default() }, ..Checkpoint::default() }
}

#[test]
fn a_folder_that_is_gone_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let error = train(&path, || fs::remove_dir_all(&path).unwrap()).unwrap_err();
    assert!(matches!(error, TrainError::RunGone { .. }), "{error}");
    assert!(!path.exists());

    let elsewhere = folder.path().join("elsewhere");
    let error = train(&path, || fs::rename(&path, &elsewhere).unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("no longer the folder") && error.contains("was moved, continue the run there"),
        "{error}"
    );
    assert!(!path.exists());
    // What was moved goes on.
    let (moved, _) = RunFolder::resume(&elsewhere).unwrap();
    assert_eq!(moved.checkpoints(1).latest_good().unwrap().unwrap().checkpoint.meta.step, 2);
}

#[test]
fn a_run_that_took_the_place_of_another_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut other = None;
    let error = train(&path, || {
        fs::remove_dir_all(&path).unwrap();
        let run = RunFolder::create(&path, &common::usual(&[], &[])).unwrap();
        run.checkpoints(1).save(&checkpoint(1)).unwrap();
        fs::write(run.cache(), "theirs").unwrap();
        fs::write(path.join("checkpoints/step-00000009.safetensors.1-0.tmp"), "theirs").unwrap();
        other = Some(run);
    });
    let error = error.unwrap_err();
    assert!(matches!(error, TrainError::RunGone { .. }), "{error}");
    let other = other.unwrap();
    assert_eq!(fs::read_dir(path.join("checkpoints")).unwrap().count(), 2);
    assert!(other.cache().exists() && !path.join("encoder.safetensors").exists());
    // It has its own lock still.
    other.checkpoints(1).save(&checkpoint(2)).unwrap();
    assert!(matches!(RunFolder::resume(&path), Err(TrainError::RunLocked { .. })));
}

#[test]
fn a_lock_that_was_removed_protects_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let error = train(folder.path(), || fs::remove_file(folder.path().join("lock")).unwrap()).unwrap_err();
    assert!(error.to_string().contains("or its file `lock`, was removed"), "{error}");
    assert_eq!(RunFolder::resume(folder.path()).unwrap().0.checkpoints(1).list().unwrap().len(), 1);
}

#[test]
fn steps_that_could_not_be_saved_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let at = |step: u64| folder.path().join(format!("checkpoints/step-{step:08}.safetensors"));
    // A folder that is not empty is not replaced by a file.
    let block = || (4..=20).for_each(|step| fs::create_dir_all(at(step).join("taken")).unwrap());
    let (_run, trained, rescued) = trained(folder.path(), block).unwrap();
    let error = trained.unwrap_err();
    let (checkpoint, lost) = rescued.unwrap_or_else(|| panic!("{error}"));
    // The failure of the fourth step's checkpoint is met during the steps that follow it.
    assert_eq!(checkpoint, at(2), "{error}");
    assert!((2..=4).contains(&lost), "{lost} after {error}");
}
