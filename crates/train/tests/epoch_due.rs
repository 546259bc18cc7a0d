//! An error at the end of an epoch costs neither its steps nor its figures.

mod common;
mod watching;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Disturbed, bits};
use simclr_data::{Dataset, Subset, Synthetic};
use simclr_engine::Device;
use simclr_train::checkpoint::Checkpoint;
use simclr_train::file_system::{Disk, FileSystem, Output};
use simclr_train::pretrain::{Resumed, inspect, pretrain, resume};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, TrainError};
use watching::Watch;

const IMAGES: usize = 176;

/// Two epochs of ten steps.
fn config() -> Config {
    common::usual(&["data.strict=true", "train.checkpoint_every=1000"], &[])
}

fn images() -> Arc<dyn Dataset> {
    Arc::new(Synthetic::new(IMAGES, 16, 0))
}

/// The lines of the log, without values that depend on the clock.
fn lines(folder: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let log = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        line.retain(|key, _| !["views_per_s", "waited_s"].contains(&key.as_str()));
        line
    };
    log.lines().map(line).collect()
}

/// Goes on with the run to its end, and compares it with one that nothing has disturbed, of which its log may be
/// `missing` lines of steps.
fn ends_as_undisturbed(path: &Path, missing: usize) {
    let device = Device::cpu(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let whole = RunFolder::create(folder.path(), &config()).unwrap();
    pretrain(&images(), &config(), &whole, None, &device, &mut ()).unwrap();
    let Resumed { folder: run, config, from, .. } = resume(path).unwrap();
    let from = from.map(|found| found.checkpoint);
    let outcome = pretrain(&images(), &config, &run, from.as_ref(), &device, &mut ()).unwrap();
    assert!(outcome.finished && outcome.step == 20, "{outcome:?}");
    let last =
        |run: &RunFolder| -> Checkpoint { run.checkpoints(1).latest_good().unwrap().unwrap().checkpoint };
    let (ended, expected) = (last(&run), last(&whole));
    assert!(bits(&ended) == bits(&expected));
    assert_eq!(ended.meta.best, expected.meta.best);
    assert_eq!(ended.meta.extra, expected.meta.extra);
    let (logged, mut all) = (lines(path), lines(folder.path()));
    assert_eq!(all.len() - logged.len(), missing);
    all.retain(|line| line["kind"] != "step" || logged.contains(line));
    assert_eq!(logged, all);
    drop(run);
    assert!(inspect(path).unwrap().is_finished());
}

#[test]
fn an_error_among_held_out_images_leaves_the_epochs_end_to_be_done() {
    // The end of the first epoch, and that of the last.
    for (stop_after, step) in [(None, 10), (Some(13), 20)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let device = Device::cpu(1).unwrap();
        let mut run = RunFolder::create(&path, &config()).unwrap();
        let mut from = None;
        if stop_after.is_some() {
            let mut watch = Watch { stop_after, ..Watch::default() };
            pretrain(&images(), &config(), &run, None, &device, &mut watch).unwrap();
            drop(run);
            let resumed = resume(&path).unwrap();
            from = resumed.from.map(|found| found.checkpoint);
            run = resumed.folder;
        }
        let (_, held_out) = Subset::split_off_holdout(images(), 16, config().train.seed).unwrap();
        let held_out: BTreeSet<usize> = held_out.indices().iter().map(|&index| index as usize).collect();
        let before = move |index| if held_out.contains(&index) { Err("torn") } else { Ok(()) };
        let torn: Arc<dyn Dataset> = Arc::new(Disturbed { images: Synthetic::new(IMAGES, 16, 0), before });
        let error = pretrain(&torn, &config(), &run, from.as_ref(), &device, &mut ()).unwrap_err();
        assert!(matches!(error, TrainError::Data(_)), "{error}");
        drop(run);

        let looked = inspect(&path).unwrap();
        assert!(!looked.is_finished());
        assert_eq!(looked.checkpoint().unwrap().meta.step, step);
        ends_as_undisturbed(&path, 0);
    }
}

/// A disk on which the log `of` takes no record that contains `refused`, so many `times`.
#[derive(Debug, Clone)]
struct Refusing {
    of: &'static str,
    refused: &'static str,
    times: Arc<AtomicUsize>,
}

struct Log {
    out: Box<dyn Output>,
    path: PathBuf,
    disk: Refusing,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Refusing { of, refused, times } = &self.disk;
        let is_refused = self.path.file_name().unwrap().to_string_lossy().starts_with(of)
            && bytes.windows(refused.len()).any(|part| part == refused.as_bytes());
        let is_refused = is_refused
            && times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        if is_refused { Err(io::Error::other("refused")) } else { self.out.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Seek for Log {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.out.seek(to)
    }
}

impl Output for Log {
    fn sync(&mut self) -> io::Result<()> {
        self.out.sync()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.out.truncate(length)
    }
}

impl FileSystem for Refusing {
    fn append(&self, path: &Path) -> io::Result<(Box<dyn Output>, u64)> {
        let (out, length) = Disk.append(path)?;
        Ok((Box::new(Log { out, path: path.to_owned(), disk: self.clone() }), length))
    }
}

/// The last step of an epoch, one within it, and an epoch.
#[test]
fn a_log_that_takes_no_line_costs_no_step_and_epochs_get_theirs_when_the_run_goes_on() {
    const EVER: usize = usize::MAX;
    for (of, refused, times, step, missing) in [
        ("metrics", "\"step\":10,\"epoch\":1.0", EVER, 10, 1),
        ("metrics", "\"step\":5,\"epoch\":0.5", EVER, 5, 1),
        // Offered once more before the run is saved.
        ("metrics", "\"step\":5,\"epoch\":0.5", 1, 5, 0),
        ("metrics", "\"kind\":\"epoch\"", EVER, 10, 0),
        ("events", "epoch/train_loss", EVER, 10, 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let disk = Refusing { of, refused, times: Arc::new(AtomicUsize::new(times)) };
        let run = RunFolder::create_on(&path, &config(), Arc::new(disk)).unwrap();
        let device = Device::cpu(1).unwrap();
        let error = pretrain(&images(), &config(), &run, None, &device, &mut ()).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
        drop(run);
        let looked = inspect(&path).unwrap();
        assert_eq!(looked.checkpoint().unwrap().meta.step, step, "{of} {refused}");
        ends_as_undisturbed(&path, missing);
    }
}
