//! What a run logs and reports is what happened.

mod common;
mod watching;

use std::path::Path;
use std::sync::Arc;

use common::run_in;
use simclr_data::{Dataset, Reading, Subset, Synthetic};
use simclr_engine::Device;
use simclr_train::checkpoint::Checkpoint;
use simclr_train::file_system::Disk;
use simclr_train::pretrain::{RunViews, health, holdout_knn, pretrain};
use simclr_train::{Config, Model, Schedule};
use watching::Watch;

const BATCH: usize = 16;
/// Number of training images: ten steps per epoch.
const TRAINED: u64 = 160;

/// Two epochs on 16 x 16 pixels.
fn config(sets: &[&str]) -> Config {
    common::usual(&["train.precision=f32"], sets)
}

fn images(config: &Config) -> Arc<dyn Dataset> {
    Arc::new(Synthetic::new(TRAINED as usize + config.data.holdout, 16, 0))
}

/// Trains in `folder`, up to a step if one is given, and returns what was observed and saved.
fn train(
    folder: &Path,
    config: &Config,
    from: Option<&Checkpoint>,
    stop_after: Option<u64>,
) -> (Watch, Checkpoint) {
    let run = run_in(folder, config, from).unwrap();
    let mut watch = Watch { stop_after, ..Watch::default() };
    let device = Device::cpu(1).unwrap();
    let outcome = pretrain(&images(config), config, &run, from, &device, &mut watch).unwrap();
    (watch, Checkpoint::read(&Disk, &outcome.checkpoint).unwrap())
}

/// The lines of the log, without values that depend on the clock.
fn lines(folder: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let log = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        line.retain(|key, _| !["views_per_s", "waited_s"].contains(&key.as_str()));
        line
    };
    log.lines().map(line).collect()
}

#[test]
fn a_run_that_was_stopped_logs_what_one_that_was_not_does() {
    let config = config(&[]);
    let [whole, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    train(whole.path(), &config, None, None);
    let mut from = None;
    // Stop in the first epoch, at its end, in the second.
    for stop_after in [Some(3), Some(10), Some(13), None] {
        from = Some(train(stopped.path(), &config, from.as_ref(), stop_after).1);
    }
    let (whole, stopped) = (lines(whole.path()), lines(stopped.path()));
    assert_eq!(whole.len(), 22);
    assert_eq!(stopped, whole);
}

#[test]
fn steps_are_logged_with_the_schedules_rate_and_the_epoch_that_they_are_in() {
    let (folder, config) = (tempfile::tempdir().unwrap(), config(&[]));
    let (watch, _) = train(folder.path(), &config, None, None);
    let schedule = Schedule::new(&config, TRAINED);
    assert_eq!(watch.steps.len(), 20);
    for (before, step) in (0..).zip(&watch.steps) {
        assert_eq!((step.step, step.rate), (before + 1, schedule.rate(before)));
        assert_eq!(step.epoch, (step.step * BATCH as u64) as f64 / TRAINED as f64);
    }
}

#[test]
fn an_epoch_is_logged_with_the_means_of_its_own_steps() {
    let (folder, config) = (tempfile::tempdir().unwrap(), config(&[]));
    let (watch, _) = train(folder.path(), &config, None, None);
    assert_eq!(watch.epochs.iter().map(|epoch| epoch.step).collect::<Vec<_>>(), [10, 20]);
    for (epoch, steps) in watch.epochs.iter().zip(watch.steps.chunks(10)) {
        let losses: f64 = steps.iter().map(|step| step.loss).sum();
        let accuracies: f64 = steps.iter().map(|step| step.contrastive_accuracy).sum();
        assert!((epoch.train_loss - losses / 10.0).abs() < 1e-9, "{epoch:?}");
        assert!((epoch.train_contrastive_accuracy - accuracies / 10.0).abs() < 1e-9, "{epoch:?}");
    }
}

/// The norm of all trained values, or of their difference between two networks.
fn norm(model: &Model, other: Option<&Model>) -> f64 {
    let trained = model.parameters.ids().filter(|&id| model.parameters.kind(id).is_trained());
    let squares = trained.map(|id| {
        let values = model.parameters.get(id).to_vec().unwrap();
        let others = match other {
            Some(other) => other.parameters.get(id).to_vec().unwrap(),
            None => vec![0.0; values.len()],
        };
        let square = |(&a, b): (&f32, f32)| (f64::from(a) - f64::from(b)).powi(2);
        values.iter().zip(others).map(square).sum::<f64>()
    });
    squares.sum::<f64>().sqrt()
}

#[test]
fn norms_are_those_of_the_gradient_and_of_the_weights_after_the_step() {
    // With these settings, a step is the gradient times the rate.
    let plain = ["optim.name=sgd", "optim.momentum=0", "optim.weight_decay=0", "optim.warmup_epochs=0"];
    let (folder, config) = (tempfile::tempdir().unwrap(), config(&plain));
    let (watch, checkpoint) = train(folder.path(), &config, None, Some(1));
    let before = Model::new(&config, &Device::cpu(1).unwrap()).unwrap();
    let (after, _) = Model::from_checkpoint(&checkpoint, &before.device).unwrap();
    let step = &watch.steps[0];
    let near = |logged: f64, found: f64| (logged / found - 1.0).abs() < 1e-4;
    assert!(near(step.weight_norm, norm(&after, None)), "{step:?}: {}", norm(&after, None));
    let gradient = norm(&after, Some(&before)) / step.rate;
    assert!(near(step.gradient_norm, gradient), "{step:?}: {gradient}");
}

#[test]
fn held_out_figures_have_their_names() {
    let (folder, config) = (tempfile::tempdir().unwrap(), config(&["train.seed=3"]));
    let (_, checkpoint) = train(folder.path(), &config, None, None);
    let (model, _) = Model::from_checkpoint(&checkpoint, &Device::cpu(1).unwrap()).unwrap();
    let (train, holdout) =
        Subset::split_off_holdout(images(&config), config.data.holdout, config.train.seed).unwrap();
    let (train, holdout): (Arc<dyn Dataset>, Arc<dyn Dataset>) = (Arc::new(train), Arc::new(holdout));
    let views = RunViews::new(&config, &*train).unwrap().families;
    let reading = Reading { threads: 1, strict: true };
    let (health, _) = health(&model, &config.loss, &holdout, &views, reading).unwrap();
    let (knn, _) = holdout_knn(&model, &train, &holdout, reading).unwrap();
    let expected = [
        ("holdout_loss", health.loss),
        ("holdout_contrastive_accuracy", health.contrastive_accuracy),
        ("alignment", health.alignment),
        ("uniformity", health.uniformity),
        ("rank_me_h", health.rank_me_h),
        ("rank_me_z", health.rank_me_z),
        ("spread", health.spread),
        ("knn_top1", knn.unwrap()),
    ];
    let lines = lines(folder.path());
    let last = lines.last().unwrap();
    for (name, value) in expected {
        assert_eq!(last[name].as_f64(), Some(value), "{name}: {last:?}");
    }
}

#[test]
fn figures_are_measured_in_their_turn_and_after_the_last_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["train.epochs=5", "train.health_every=2", "train.knn_every=3"]);
    let (watch, _) = train(folder.path(), &config, None, None);
    let epochs = |measured: &dyn Fn(usize) -> bool| -> Vec<u64> {
        let found = (0..watch.epochs.len()).filter(|&i| measured(i));
        found.map(|i| watch.epochs[i].epoch).collect()
    };
    assert_eq!(epochs(&|i| watch.epochs[i].health.is_some()), [2, 4, 5]);
    assert_eq!(epochs(&|i| watch.epochs[i].knn_top1.is_some()), [3, 5]);
}

/// The warnings of collapse in a run of eight epochs, resumed with a head whose weights are multiplied by `share` and
/// whose bias adds a direction common to all images. Before, they were as `narrow` as given. The run is stopped after
/// some steps and taken up again.
fn warned(sets: &[&str], share: f32, narrow: Option<f64>, stops: &[u64]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let still = ["head.kind=linear", "optim.name=sgd", "optim.rate=1e-9", "train.epochs=8"];
    let config = config(&[&still[..], sets].concat());
    let (_, mut checkpoint) = train(folder.path(), &config, None, Some(3));
    for tensor in &mut checkpoint.tensors {
        match tensor.name.as_str() {
            "head.0.linear.weight" => tensor.data.iter_mut().for_each(|value| *value *= share),
            "head.0.linear.bias" => tensor.data.fill(1.0 - share),
            _ => {}
        }
    }
    checkpoint.meta.extra.narrow = narrow;
    let warnings = in_slots(folder.path(), &config, Some(checkpoint), stops);
    warnings.into_iter().filter(|warning| warning.contains("collapsing")).collect()
}

/// Trains to the end, with a stop after each of these steps. Returns all warnings.
fn in_slots(folder: &Path, config: &Config, mut from: Option<Checkpoint>, stops: &[u64]) -> Vec<String> {
    let mut warnings = Vec::new();
    for stop in stops.iter().map(|&stop| Some(stop)).chain([None]) {
        let (watch, checkpoint) = train(folder, config, from.as_ref(), stop);
        warnings.extend(watch.warnings);
        from = Some(checkpoint);
    }
    warnings
}

#[test]
fn projections_that_stay_narrow_are_warned_of() {
    for sets in [&["data.holdout=16"][..], &["data.holdout=0"], &["data.holdout=16", "train.health_every=0"]]
    {
        assert_eq!(warned(sets, 1.0, None, &[]), [""; 0], "{sets:?}");
        // Projections that are narrow in the first epoch may still widen. On held-out images they do so for some
        // epochs, until the running averages have settled.
        let warnings = warned(sets, 0.1, None, &[]);
        assert!((2..=7).contains(&warnings.len()), "{sets:?}: {warnings:?}");
        assert!(warnings[0].contains("lower optim.rate or raise loss.temperature"), "{warnings:?}");
    }
}

#[test]
fn a_loss_that_stands_at_that_of_guessing_is_warned_of_once() {
    let told = |sets: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&[&["train.epochs=4", "optim.warmup_epochs=1"], sets].concat());
        let guessing = (2.0 * config.train.batch as f64 - 1.0).ln();
        let said = format!("the loss is stuck at that of guessing ({guessing:.3} = ln ");
        let count = |stops: &[u64], folder: &Path| {
            in_slots(folder, &config, None, stops).iter().filter(|warning| warning.starts_with(&said)).count()
        };
        let whole = count(&[], &folder.path().join("whole"));
        // Slots of an epoch each.
        assert_eq!(count(&[10, 20, 30], &folder.path().join("slots")), whole, "{sets:?}");
        whole
    };
    assert_eq!(told(&["loss.temperature=1e30"]), 1);
    // In the last epoch there is nothing to wait for: neither a second epoch nor the end of warm-up.
    assert_eq!(told(&["loss.temperature=1e30", "train.epochs=1"]), 1);
    assert_eq!(told(&[]), 0);
    assert_eq!(told(&["loss.temperature=1e30", "loss.name=nt_logistic"]), 0);
    // Where z is not normalised, that says only that it is small beside the temperature.
    let small_z = ["loss.temperature=1e4", "head.batch_norm=false"];
    assert_eq!(told(&[&small_z[..], &["loss.normalize=false"]].concat()), 0);
}
