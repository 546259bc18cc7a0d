//! Several GPUs, or their stand-ins, train as a single one would.

#![cfg(feature = "cuda")]

mod common;
mod watching;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::scope;
use std::time::Duration;

use common::{bits, broken, run_in};
use simclr_data::{Dataset, Synthetic};
use simclr_engine::Device;
use simclr_train::checkpoint::Checkpoint;
use simclr_train::file_system::Disk;
use simclr_train::pretrain::{Outcome, Team, assist, lead};
use simclr_train::run_folder::RunFolder;
use simclr_train::workers::{Host, Wait, Workers};
use simclr_train::{Config, TrainError};
use watching::Watch;

/// Two GPUs, one test at a time.
fn gpus() -> Option<([Device; 2], MutexGuard<'static, ()>)> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let libraries = simclr_stand_in::libraries_for_two_gpus()?;
    Some(([0, 1].map(|ordinal| Device::cuda_with(&libraries, ordinal, 1).unwrap()), alone))
}

/// One epoch of slightly more than five steps on 8 x 8 pixels.
fn config(sets: &[&str]) -> Config {
    common::usual(&["data.image_size=8", "train.epochs=1", "train.precision=f32", "optim.rate=0.01"], sets)
}

fn images() -> Arc<dyn Dataset> {
    Arc::new(Synthetic::new(96, 8, 0))
}

/// Two workers connected over TCP, as two processes would be.
fn workers() -> [Workers; 2] {
    let host = Host::listen("127.0.0.1:0").unwrap();
    let at = host.address().unwrap().to_string();
    let mut patient = || Ok(());
    let timeout = Duration::from_secs(60);
    scope(|scope| {
        let second =
            scope.spawn(move || Workers::join(1, 2, &at, Wait { timeout, check: &mut || Ok(()) }).unwrap());
        [host.meet(2, Wait { timeout, check: &mut patient }).unwrap(), second.join().unwrap()]
    })
}

type Led = (Result<Outcome, TrainError>, Watch);

/// Trains on all `devices`, 1 or 2.
fn train(
    devices: &[Device],
    folder: &Path,
    config: &Config,
    from: Option<&Checkpoint>,
    stop_after: Option<u64>,
) -> (Led, Option<Result<bool, TrainError>>) {
    train_on([images(), images()], devices, folder, config, from, stop_after)
}

/// [`train`] with separate images for each device.
fn train_on(
    [images, others]: [Arc<dyn Dataset>; 2],
    devices: &[Device],
    folder: &Path,
    config: &Config,
    from: Option<&Checkpoint>,
    stop_after: Option<u64>,
) -> (Led, Option<Result<bool, TrainError>>) {
    let run = run_in(folder, config, from).unwrap();
    let mut watch = Watch { stop_after, ..Watch::default() };
    let [first, other] = devices else {
        let led = lead(&images, config, &run, from, &Team::ALONE, &devices[0], &mut watch);
        return ((led, watch), None);
    };
    let [leader, second] = workers();
    scope(|scope| {
        let assisting = scope
            .spawn(move || assist(&others, config, &Team::new(&second, 2), other, &mut Watch::default()));
        // Drop the leader before waiting for the other worker, as if its process had ended.
        let led = {
            let leader = leader;
            lead(&images, config, &run, from, &Team::new(&leader, 2), first, &mut watch)
        };
        ((led, watch), Some(assisting.join().unwrap()))
    })
}

/// Trains a whole run. Returns its last checkpoint, and what worker 0 saw.
fn whole(devices: &[Device], config: &Config) -> (Checkpoint, Watch) {
    let folder = tempfile::tempdir().unwrap();
    let ((outcome, watch), other) = train(devices, folder.path(), config, None, None);
    let outcome = outcome.unwrap();
    assert!(outcome.finished && other.is_none_or(|other| other.unwrap()));
    (Checkpoint::read(&Disk, &outcome.checkpoint).unwrap(), watch)
}

#[test]
fn two_gpus_take_the_steps_of_one() {
    let Some((gpus, _alone)) = gpus() else { return };
    // In 16 bits a first layer of 16 channels is fused.
    let wide = ["encoder.width=0.25", "train.precision=bf16", "train.memory=blocks"];
    for (sets, of_loss, of_norm) in [(&[][..], 1e-3, 1e-2), (&wide, 1e-2, 5e-2)] {
        let config = config(sets);
        let (_, alone) = whole(&gpus[..1], &config);
        let (_, watch) = whole(&gpus, &config);
        assert_eq!((watch.plan.unwrap().workers, watch.steps.len(), watch.epochs.len()), (2, 6, 1));
        for (step, alone) in watch.steps.iter().zip(&alone.steps) {
            let near = |one: f64, other: f64, by: f64| (one / other - 1.0).abs() < by;
            let losses = [step.loss, alone.loss];
            assert!(near(losses[0], losses[1], of_loss), "{sets:?}, step {}: {losses:?}", step.step);
            let norms = [step.gradient_norm, alone.gradient_norm];
            assert!(
                near(norms[0], norms[1], of_norm),
                "{sets:?}, gradients of step {}: {norms:?}",
                step.step
            );
        }
    }
}

/// Including the loss scale and the number of skipped steps.
#[test]
fn two_gpus_go_on_to_the_same_bits() {
    let Some((gpus, _alone)) = gpus() else { return };
    let config = config(&["train.precision=fp16"]);
    let (expected, _) = whole(&gpus, &config);
    let folder = tempfile::tempdir().unwrap();
    let mut from: Option<Checkpoint> = None;
    for stop_after in [Some(2), None] {
        let ((outcome, _), other) = train(&gpus, folder.path(), &config, from.as_ref(), stop_after);
        let outcome = outcome.unwrap();
        assert!(outcome.finished == other.unwrap().unwrap() && outcome.finished == stop_after.is_none());
        from = Some(Checkpoint::read(&Disk, &outcome.checkpoint).unwrap());
    }
    assert!(bits(&from.unwrap()) == bits(&expected));
}

#[test]
fn each_worker_needs_a_gpu_of_its_own() {
    let Some((gpus, _alone)) = gpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let same = [gpus[0].clone(), gpus[0].clone()];
    let ((outcome, _), other) = train(&same, folder.path(), &config(&[]), None, None);
    for error in [outcome.unwrap_err(), other.unwrap().unwrap_err()] {
        assert!(error.to_string().contains("workers 0 and 1 compute on the same GPU"), "{error}");
    }
}

#[test]
fn a_worker_that_fails_is_told_of_by_the_other_that_waits_for_it() {
    let Some((gpus, _alone)) = gpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let torn = broken(Synthetic::new(96, 8, 0), (0..96).step_by(3));
    let config = config(&["data.strict=true", "data.holdout=0", "data.cache=none"]);
    let ((outcome, _), other) = train_on([images(), torn], &gpus, folder.path(), &config, None, None);
    for error in [outcome.unwrap_err(), other.unwrap().unwrap_err()] {
        assert!(error.to_string().contains("torn"), "{error}");
    }
}

/// The variable with the address of worker 0 for worker 1, which is another process of this program.
const MEET: &str = "SIMCLR_TEST_MEET";

/// Many steps per epoch. Worker 1 logs none of them, so it never waits for its steps: the stand-in runs as late as it
/// may.
fn long(log_every: &str) -> (Config, Arc<dyn Dataset>) {
    (config(&[log_every, "data.holdout=0"]), Arc::new(Synthetic::new(1600, 8, 0)))
}

#[test]
#[ignore = "no test by itself: what the one below starts"]
fn worker_1_of_another_process() {
    let Ok(at) = std::env::var(MEET) else { return };
    let Some((gpus, _alone)) = gpus() else { return };
    let wait = Wait { timeout: Duration::from_secs(60), check: &mut || Ok(()) };
    let worker = Workers::join(1, 2, &at, wait).unwrap();
    let (config, images) = long("train.log_every=1000");
    let team = Team::new(&worker, 2);
    // The process is killed meanwhile.
    let _ = assist(&images, &config, &team, &gpus[1], &mut Watch::default());
}

/// Worker 0 waits on its GPU for a step that the killed worker never takes.
#[test]
fn a_worker_that_was_killed_is_given_up() {
    let Some((gpus, _alone)) = gpus() else { return };
    let host = Host::listen("127.0.0.1:0").unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["worker_1_of_another_process", "--exact", "--ignored"])
        .env(MEET, host.address().unwrap().to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let worker = host.meet(2, Wait { timeout: Duration::from_secs(120), check: &mut || Ok(()) }).unwrap();
    let (config, images) = long("train.log_every=1");
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path(), &config).unwrap();
    let (tell, told) = channel();
    let mut watch = Watch { tell: Some(tell), ..Watch::default() };
    let outcome = scope(|scope| {
        scope.spawn(move || {
            let first = told.recv_timeout(Duration::from_secs(120));
            other.kill().unwrap();
            other.wait().unwrap();
            first.expect("a first step");
        });
        lead(&images, &config, &run, None, &Team::new(&worker, 2), &gpus[0], &mut watch)
    });
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("worker 1 has gone"), "{error}");
}
