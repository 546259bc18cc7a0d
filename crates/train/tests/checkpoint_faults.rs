//! A checkpoint survives the failure of any file operation, and a kill or a power cut during it.

mod faulty;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use faulty::{Fault, Faulty, Loss};
use simclr_train::checkpoint::{Best, Checkpoint, Checkpoints, Meta, NamedTensor};
use simclr_train::file_system::{Disk, FileSystem};

fn checkpoint(step: u64) -> Checkpoint {
    let data: Vec<f32> = (0..3000).map(|i| (i as f32 + step as f32).sin()).collect();
    let tensors = vec![
        NamedTensor { name: "conv1.weight".into(), shape: vec![10, 300], data },
        NamedTensor { name: "fc.bias".into(), shape: vec![1], data: vec![step as f32] },
    ];
    Checkpoint { tensors, meta: Meta { step, best: Best::new(step.min(20), "knn", 0.5), ..Meta::default() } }
}

fn checkpoints(folder: &Path, files: impl FileSystem + 'static) -> Checkpoints {
    Checkpoints::new(folder.join("checkpoints"), 2, Arc::new(files))
}

/// A folder with the best and the last two of the checkpoints of steps 10, 20, 30 and 40.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for step in [10, 20, 30, 40] {
        checkpoints(folder.path(), Disk).save(&checkpoint(step)).unwrap();
    }
    folder
}

/// The oracle: the newest good checkpoint is the old or the new one, and all checkpoints have the contents that were
/// saved.
fn check(folder: &Path, saved: bool, what: &str) {
    let kept = checkpoints(folder, Disk);
    let found = kept.latest_good().unwrap().unwrap();
    let step = found.checkpoint.meta.step;
    assert!(found.skipped.is_empty(), "{what}: {:?}", found.skipped);
    assert!(if saved { step == 50 } else { step == 40 || step == 50 }, "{what}: {step}");
    for (step, _) in kept.list().unwrap() {
        assert!(kept.load(step).unwrap() == checkpoint(step), "{what}");
    }
    assert!(kept.load(20).is_ok(), "{what}: the best is gone");
    assert!(step == 50 || kept.load(30).is_ok(), "{what}: an old one went before the new one was there");
}

/// Going on after the fault must save again and leave nothing behind.
fn go_on(folder: &Path, what: &str) {
    let kept = checkpoints(folder, Disk);
    kept.save(&checkpoint(50)).unwrap();
    let steps: Vec<_> = kept.list().unwrap().into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [20, 40, 50], "{what}");
    assert_eq!(Disk.list(&folder.join("checkpoints")).unwrap().len(), 3, "{what}: something is left over");
}

/// A run in training saves, and removes what it no longer keeps, while another process looks for a checkpoint.
#[test]
fn a_checkpoint_that_goes_while_it_is_looked_for_is_looked_for_once_more() {
    let best = |step| Best::new(step, "knn", 0.5);
    let with_best =
        |step: u64, best| Checkpoint { meta: Meta { best, ..checkpoint(step).meta }, ..checkpoint(step) };
    for (opened, gone, found) in [(40, [30, 40], (60, 60)), (20, [20, 30], (40, 60))] {
        let folder = prepared();
        let kept = checkpoints(folder.path(), Disk);
        let changed = kept.clone();
        let files = Faulty::changing(&kept.path(opened), move || {
            changed.save(&with_best(60, best(60))).unwrap();
            for step in gone {
                let _ = std::fs::remove_file(changed.path(step));
            }
        });
        let looking = checkpoints(folder.path(), files);
        let step =
            |found: Option<simclr_train::checkpoint::LoadedCheckpoint>| found.unwrap().checkpoint.meta.step;
        assert_eq!((step(looking.latest_good().unwrap()), step(looking.best().unwrap())), found);
    }
}

fn operations() -> u64 {
    let folder = prepared();
    let files = Faulty::default();
    checkpoints(folder.path(), files.clone()).save(&checkpoint(50)).unwrap();
    go_on(folder.path(), "no fault");
    files.operations()
}

#[test]
fn every_operation_fails_once() {
    let count = operations();
    assert!(count > 10, "{count}");
    for kind in [ErrorKind::StorageFull, ErrorKind::Other, ErrorKind::PermissionDenied] {
        for at in 0..=count {
            let what = format!("{kind} at operation {at}");
            let folder = prepared();
            let result =
                checkpoints(folder.path(), Faulty::new(at, Fault::Error(kind))).save(&checkpoint(50));
            if let Err(error) = &result {
                assert!(error.to_string().contains("checkpoints"), "{what}: {error}");
            }
            check(folder.path(), result.is_ok(), &what);
            go_on(folder.path(), &what);
        }
    }
}

#[test]
fn killed_or_without_power_at_every_operation() {
    for loss in [Loss::Nothing, Loss::Data, Loss::DataAndNames] {
        for at in 0..=operations() {
            let what = format!("{loss:?} at operation {at}");
            let folder = prepared();
            let files = Faulty::new(at, Fault::Stop);
            let result = checkpoints(folder.path(), files.clone()).save(&checkpoint(50));
            files.cut_power(loss);
            check(folder.path(), result.is_ok(), &what);
            go_on(folder.path(), &what);
        }
    }
}

#[test]
fn an_interrupted_write_is_taken_up_again() {
    let folder = prepared();
    checkpoints(folder.path(), Faulty::interrupting()).save(&checkpoint(50)).unwrap();
    check(folder.path(), true, "interrupted");
}

#[test]
fn the_first_checkpoint_is_there_whole_or_not_at_all() {
    for loss in [Loss::Nothing, Loss::Data, Loss::DataAndNames] {
        for at in 0..=operations() {
            let folder = tempfile::tempdir().unwrap();
            let files = Faulty::new(at, Fault::Stop);
            let saved = checkpoints(folder.path(), files.clone()).save(&checkpoint(1)).is_ok();
            files.cut_power(loss);
            match checkpoints(folder.path(), Disk).latest_good().unwrap() {
                Some(found) => assert!(found.checkpoint == checkpoint(1)),
                None => assert!(!saved, "{loss:?} at {at}"),
            }
        }
    }
}

#[test]
fn a_read_that_fails_falls_back_to_the_one_before() {
    let folder = prepared();
    // Listing is operation 0, opening the newest is operation 1.
    let files = Faulty::new(1, Fault::Error(ErrorKind::Other));
    let found = checkpoints(folder.path(), files).latest_good().unwrap().unwrap();
    assert_eq!(found.checkpoint.meta.step, 30);
    assert!(found.skipped[0].to_string().contains("step-00000040.safetensors"));
}
