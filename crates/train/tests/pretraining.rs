//! The pretraining loop on generated images: the same bits however it runs, and a clean stop if it cannot go on.

mod common;
mod events;
#[cfg(feature = "cuda")]
mod on_gpu;
mod watching;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use common::{bits, broken, run_in};
use simclr_data::{Dataset, Synthetic};
use simclr_engine::Device;
use simclr_train::checkpoint::{Best, Checkpoint};
use simclr_train::file_system::Disk;
use simclr_train::pretrain::{EpochRecord, Outcome, Plan, Worker, plan, pretrain};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, TrainError};
use watching::Watch;

/// Two epochs of ten steps on 16 x 16 pixels.
fn config(sets: &[&str]) -> Config {
    common::usual(&[], sets)
}

fn images() -> Arc<dyn Dataset> {
    Arc::new(Synthetic::new(176, 16, 0))
}

fn train(
    folder: &Path,
    config: &Config,
    from: Option<&Checkpoint>,
    threads: usize,
    watch: &mut Watch,
) -> Result<Outcome, TrainError> {
    train_on(&Device::cpu(threads).unwrap(), folder, config, from, watch)
}

fn train_on(
    device: &Device,
    folder: &Path,
    config: &Config,
    from: Option<&Checkpoint>,
    watch: &mut Watch,
) -> Result<Outcome, TrainError> {
    pretrain(&images(), config, &run_in(folder, config, from)?, from, device, watch)
}

/// Trains a whole run and returns its last checkpoint.
fn finished(config: &Config, threads: usize) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let outcome = train(folder.path(), config, None, threads, &mut Watch::default()).unwrap();
    assert!(outcome.finished && outcome.step == 20, "{outcome:?}");
    Checkpoint::read(&Disk, &outcome.checkpoint).unwrap()
}

/// Properties that do not depend on the precision are tested in both.
const PRECISIONS: [&str; 2] = ["train.precision=f32", "train.precision=bf16"];

#[test]
fn twenty_steps_have_the_same_bits_on_1_2_and_4_threads() {
    for precision in PRECISIONS {
        let expected = bits(&finished(&config(&[precision]), 1));
        for threads in [2, 4] {
            assert!(bits(&finished(&config(&[precision]), threads)) == expected, "{threads} threads");
        }
        assert!(bits(&finished(&config(&[precision, "train.seed=1"]), 1)) != expected, "another seed");
    }
    let [f32, bf16] = PRECISIONS.map(|precision| bits(&finished(&config(&[precision]), 2)));
    assert!(f32 != bf16);
}

#[test]
fn block_memory_trains_to_the_same_bits() {
    for precision in PRECISIONS {
        let full = bits(&finished(&config(&[precision]), 2));
        assert!(bits(&finished(&config(&[precision, "train.memory=blocks"]), 2)) == full);
    }
}

#[test]
fn a_run_stopped_anywhere_goes_on_to_the_same_bits_and_the_same_log() {
    for (optimizer, precision) in [("lars", 1), ("sgd", 0), ("adamw", 0)] {
        let name = format!("optim.name={optimizer}");
        let config = config(&[&name, "optim.rate=0.01", PRECISIONS[precision]]);
        let expected = finished(&config, 1);
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch { stop_after: Some(3), ..Watch::default() };
        let mut outcome = train(folder.path(), &config, None, 1, &mut watch).unwrap();
        // Stop in the first epoch, at its very end, in the second.
        for stop_after in [7, 10, 13, 99] {
            assert!(!outcome.finished);
            let checkpoint = Checkpoint::read(&Disk, &outcome.checkpoint).unwrap();
            let mut watch = Watch { stop_after: Some(stop_after), ..Watch::default() };
            outcome = train(folder.path(), &config, Some(&checkpoint), 2, &mut watch).unwrap();
        }
        assert!(outcome.finished);
        let checkpoint = Checkpoint::read(&Disk, &outcome.checkpoint).unwrap();
        assert!(bits(&checkpoint) == bits(&expected), "{optimizer}");
        assert_eq!(checkpoint.meta.best, expected.meta.best, "{optimizer}");
        let log = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> =
            log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let steps: Vec<u64> = lines
            .iter()
            .filter(|line| line["kind"] == "step")
            .map(|line| line["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, (1..=20).collect::<Vec<_>>());
        assert_eq!(lines.iter().filter(|line| line["kind"] == "epoch").count(), 2);
    }
}

#[test]
fn every_figure_is_logged_and_finite() {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch::default();
    train(folder.path(), &config(&[]), None, 1, &mut watch).unwrap();
    assert_eq!((watch.steps.len(), watch.epochs.len()), (20, 2));
    let log = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    for (kind, count, keys) in [
        (
            "step",
            20,
            "loss contrastive_accuracy entropy rate gradient_norm weight_norm views_per_s waited_s epoch",
        ),
        (
            "epoch",
            2,
            "train_loss train_contrastive_accuracy holdout_loss holdout_contrastive_accuracy alignment uniformity \
             rank_me_h rank_me_z spread knn_top1 skipped",
        ),
    ] {
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let lines: Vec<_> = lines.filter(|line| line["kind"] == kind).collect();
        assert_eq!(lines.len(), count, "{kind}");
        for (line, key) in lines.iter().flat_map(|line| keys.split_whitespace().map(move |key| (line, key))) {
            assert!(line[key].as_f64().is_some_and(f64::is_finite), "{kind} {key}: {line}");
        }
    }
}

/// The figures of both logs: the kind of line and the name in `metrics.jsonl`, and the tag in TensorBoard.
const TAGS: [(&str, &str, &str); 18] = [
    ("step", "loss", "train/loss"),
    ("step", "contrastive_accuracy", "train/contrastive_accuracy"),
    ("step", "entropy", "train/entropy"),
    ("step", "rate", "train/rate"),
    ("step", "gradient_norm", "train/gradient_norm"),
    ("step", "weight_norm", "train/weight_norm"),
    ("step", "views_per_s", "speed/views_per_s"),
    ("step", "waited_s", "speed/waited_s"),
    ("epoch", "train_loss", "epoch/train_loss"),
    ("epoch", "train_contrastive_accuracy", "epoch/train_contrastive_accuracy"),
    ("epoch", "holdout_loss", "holdout/loss"),
    ("epoch", "holdout_contrastive_accuracy", "holdout/contrastive_accuracy"),
    ("epoch", "alignment", "holdout/alignment"),
    ("epoch", "uniformity", "holdout/uniformity"),
    ("epoch", "rank_me_h", "holdout/rank_me_h"),
    ("epoch", "rank_me_z", "holdout/rank_me_z"),
    ("epoch", "spread", "holdout/spread_z"),
    ("epoch", "knn_top1", "holdout/knn_top1"),
];

#[test]
fn tensorboard_is_told_what_the_log_is() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&["train.health_every=2", "train.knn_every=2"]);
    train(folder.path(), &config, None, 1, &mut Watch::default()).unwrap();
    let log = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events = events::read(folder.path());
    assert_eq!((events.len(), lines.len()), (22, 22));
    for (line, event) in lines.iter().zip(events) {
        // The first epoch has no held-out figures.
        let figure = |&(kind, name, tag): &(&str, &str, &str)| {
            let value = line[name].as_f64().filter(|_| line["kind"] == kind)?;
            Some((tag.to_owned(), value as f32))
        };
        let expected: Vec<(String, f32)> = TAGS.iter().filter_map(figure).collect();
        let scalars = event.summary.unwrap().values.into_iter();
        let scalars: Vec<_> = scalars.map(|value| (value.tag, value.simple_value.unwrap())).collect();
        assert_eq!((event.step, scalars), (line["step"].as_i64().unwrap(), expected), "{line}");
    }
    assert_eq!(lines[21].as_object().unwrap().len(), 14, "{}", lines[21]);
}

/// Settings for the losses other than NT-Xent.
const OTHER_LOSSES: [[&str; 2]; 4] = [
    ["loss.name=nt_logistic", "loss.mining=none"],
    ["loss.name=nt_logistic", "loss.mining=semi_hard"],
    ["loss.name=margin_triplet", "loss.mining=none"],
    ["loss.name=margin_triplet", "loss.mining=semi_hard"],
];

#[test]
fn every_loss_trains() {
    for keys in OTHER_LOSSES {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::default();
        let config = config(&[&keys[..], &["train.epochs=5", "train.precision=f32"]].concat());
        train(folder.path(), &config, None, 2, &mut watch).unwrap();
        let (first, last) = (&watch.epochs[0], &watch.epochs[4]);
        let mut entropies = watch.steps.iter().map(|step| step.entropy);
        assert!(last.train_loss < first.train_loss, "{keys:?}: {first:?} {last:?}");
        assert!(entropies.all(|entropy| entropy > 0.0 && entropy < 31f64.ln()), "{keys:?}");
    }
}

#[test]
fn a_run_does_what_was_planned() {
    let (folder, config) = (tempfile::tempdir().unwrap(), config(&[]));
    let planned = plan(&images(), &config, &Device::cpu(1).unwrap(), Worker::ALONE).unwrap();
    assert_eq!((planned.images, planned.holdout, planned.steps, planned.done), (160, 16, 20, 0));
    let mut watch = Watch { stop_after: Some(1), ..Watch::default() };
    train(folder.path(), &config, None, 1, &mut watch).unwrap();
    let done = watch.plan.unwrap();
    assert_eq!(planned.memory.needs, done.memory.needs);
    // Free memory varies.
    assert_eq!(Plan { memory: done.memory, ..planned }, done);
}

#[test]
fn the_best_state_is_told_by_one_figure() {
    let knn = |epoch: &EpochRecord| epoch.knn_top1;
    let contrastive = |epoch: &EpochRecord| epoch.health.as_ref().map(|health| health.contrastive_accuracy);
    type Figure<'a> = &'a dyn Fn(&EpochRecord) -> Option<f64>;
    for (knn_every, health_every, name, figure) in [
        (2, 1, "knn_top1", &knn as Figure),
        (1, 2, "knn_top1", &knn),
        (0, 1, "holdout_contrastive_accuracy", &contrastive),
    ] {
        let sets = ["train.epochs=5".to_owned(), format!("train.knn_every={knn_every}")];
        let sets = [&sets[0], &sets[1], &format!("train.health_every={health_every}")];
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::default();
        let outcome = train(folder.path(), &config(&sets.map(|set| &**set)), None, 1, &mut watch).unwrap();
        let best = Checkpoint::read(&Disk, &outcome.checkpoint).unwrap().meta.best.unwrap();
        let measured = watch.epochs.iter().filter_map(|epoch| Some((epoch.step, figure(epoch)?)));
        // The last of the equally good ones.
        let (step, value) = measured.reduce(|a, b| if b.1 >= a.1 { b } else { a }).unwrap();
        assert_eq!((best.figure(), best.step(), best.value()), (name, step, value));
    }
}

#[test]
fn the_best_state_is_remembered_across_a_stop() {
    let (folder, config) = (tempfile::tempdir().unwrap(), config(&[]));
    let go_on = |from: Option<&Checkpoint>, stop_after| {
        let mut watch = Watch { stop_after, ..Watch::default() };
        let outcome = train(folder.path(), &config, from, 1, &mut watch).unwrap();
        Checkpoint::read(&Disk, &outcome.checkpoint).unwrap()
    };
    let mut stopped = go_on(None, Some(10));
    // No later accuracy is as good as this.
    stopped.meta.best = Best::new(10, stopped.meta.best.unwrap().figure(), 2.0);
    let ended = go_on(Some(&stopped), None);
    assert_eq!((ended.meta.step, ended.meta.best), (20, stopped.meta.best));
}

#[test]
fn a_loss_that_is_not_finite_stops_before_it_spoils_anything() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        config(&["optim.name=sgd", "optim.rate=1e30", "optim.warmup_epochs=0", "train.checkpoint_every=1"]);
    let error = train(folder.path(), &config, None, 1, &mut Watch::default()).unwrap_err();
    let TrainError::NotFinite { step, ref last_good, .. } = error else { panic!("{error}") };
    assert!(step >= 1);
    let last_good = last_good.as_ref().unwrap();
    assert!(error.to_string().contains(&last_good.display().to_string()), "{error}");
    assert!(error.to_string().ends_with("begin with this one's encoder (train.from)"), "{error}");
    let checkpoint = Checkpoint::read(&Disk, last_good).unwrap();
    assert_eq!(checkpoint.meta.step, step);
    let averages = checkpoint.tensors.iter().filter(|t| t.name.contains("running_"));
    assert!(
        averages.flat_map(|t| &t.data).all(|v| v.is_finite()),
        "running averages took part in the bad step"
    );
}

/// A non-finite running average does not affect training steps, only later evaluations of images.
#[test]
fn a_network_that_is_not_finite_ends_the_run_and_is_not_saved() {
    for (held_out, tensor, value, what) in [
        ("data.holdout=16", "bn1.running_mean", f32::NAN, "the features of held-out images at step 10 (rate"),
        (
            "data.holdout=0",
            "bn1.running_var",
            f32::INFINITY,
            "the values of `bn1.running_var` at step 22 (rate",
        ),
        // The features do not reveal this value.
        (
            "data.holdout=16",
            "bn1.running_var",
            f32::INFINITY,
            "the values of `bn1.running_var` at step 10 (rate",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&[held_out]);
        let mut watch = Watch { stop_after: Some(3), ..Watch::default() };
        let outcome = train(folder.path(), &config, None, 1, &mut watch).unwrap();
        let mut spoiled = Checkpoint::read(&Disk, &outcome.checkpoint).unwrap();
        let tensors = spoiled.tensors.iter_mut();
        tensors.filter(|found| found.name == tensor).for_each(|found| found.data.fill(value));
        let error = train(folder.path(), &config, Some(&spoiled), 1, &mut Watch::default()).unwrap_err();
        assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
        let error = error.to_string();
        assert!(error.starts_with(what) && error.contains("lower optim.rate"), "{error}");
        assert!(error.contains(&outcome.checkpoint.display().to_string()), "{error}");
        let kept = RunFolder::open(folder.path()).unwrap().0.checkpoints(9).list().unwrap();
        assert_eq!(kept.iter().map(|&(step, _)| step).collect::<Vec<_>>(), [3], "{error}");
    }
}

#[test]
fn broken_images_are_listed_once_the_held_out_ones_too() {
    let every_seventh = (0..176).step_by(7);
    let images = broken(Synthetic::new(176, 16, 0), every_seventh.clone());
    let broken: BTreeSet<String> = every_seventh.map(|index| images.name(index)).collect();
    for (knn_every, health_every) in [(0, 1), (1, 0), (1, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let sets = [format!("train.knn_every={knn_every}"), format!("train.health_every={health_every}")];
        let config = config(&sets.each_ref().map(String::as_str));
        let run = RunFolder::create(folder.path(), &config).unwrap();
        let mut watch = Watch::default();
        let device = Device::cpu(1).unwrap();
        let outcome = pretrain(&images, &config, &run, None, &device, &mut watch).unwrap();
        let listed = run.read_skipped().unwrap();
        assert_eq!((listed.len(), outcome.skipped), (broken.len(), broken.len()), "{listed:?}");
        assert_eq!(listed.into_iter().map(|skipped| skipped.name).collect::<BTreeSet<_>>(), broken);
        assert_eq!(watch.epochs.last().map(|epoch| epoch.skipped), Some(broken.len()));
    }
}

#[test]
fn a_batch_larger_than_the_data_and_other_data_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error =
        train(folder.path(), &config(&["train.batch=161"]), None, 1, &mut Watch::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("train.batch is 161") && text.contains("160"), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let config = config(&[]);
    let mut watch = Watch { stop_after: Some(2), ..Watch::default() };
    let outcome = train(folder.path(), &config, None, 1, &mut watch).unwrap();
    let checkpoint = Checkpoint::read(&Disk, &outcome.checkpoint).unwrap();
    let (run, _) = RunFolder::resume(folder.path()).unwrap();
    let fewer: Arc<dyn Dataset> = Arc::new(Synthetic::new(100, 16, 0));
    let device = Device::cpu(1).unwrap();
    let error = pretrain(&fewer, &config, &run, Some(&checkpoint), &device, &mut watch).unwrap_err();
    assert!(error.to_string().contains("176 images"), "{error}");
}

#[test]
fn the_state_of_another_optimiser_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch { stop_after: Some(1), ..Watch::default() };
    let outcome = train(folder.path(), &config(&["optim.name=sgd"]), None, 1, &mut watch).unwrap();
    let mut checkpoint = Checkpoint::read(&Disk, &outcome.checkpoint).unwrap();
    let other = config(&["optim.name=adamw"]);
    checkpoint.meta.config = other.to_toml().unwrap();
    let error = train(folder.path(), &other, Some(&checkpoint), 1, &mut watch).unwrap_err().to_string();
    assert!(error.contains("\"optimizer.conv1.weight\" has 108 values, 216 are needed"), "{error}");
}

/// Every third step is logged; the run goes on in the middle of an epoch as if it had not been stopped.
#[cfg(feature = "cuda")]
#[test]
fn captured_steps_have_the_same_bits_across_a_stop() {
    let Some((gpu, _alone)) = on_gpu::gpu(1) else { return };
    let config = config(&["train.epochs=1", "train.log_every=3", "train.precision=bf16"]);
    let run = |stops: &[u64]| {
        let folder = tempfile::tempdir().unwrap();
        let (mut from, mut steps, mut epochs) = (None, Vec::new(), Vec::new());
        for stop in stops.iter().map(|&stop| Some(stop)).chain([None]) {
            let mut watch = Watch { stop_after: stop, ..Watch::default() };
            let outcome = train_on(&gpu, folder.path(), &config, from.as_ref(), &mut watch).unwrap();
            from = Some(Checkpoint::read(&Disk, &outcome.checkpoint).unwrap());
            steps.extend(watch.steps.iter().map(|step| (step.step, step.loss, step.gradient_norm)));
            epochs.extend(watch.epochs.iter().map(|epoch| epoch.train_loss));
        }
        (bits(&from.unwrap()), steps, epochs)
    };
    let whole = run(&[]);
    assert_eq!(whole.1.iter().map(|step| step.0).collect::<Vec<_>>(), [3, 6, 9, 10]);
    for stops in [&[][..], &[3, 6]] {
        let again = run(stops);
        assert_eq!((&again.1, &again.2), (&whole.1, &whole.2), "figures, stopped after {stops:?}");
        let differing = again.0.iter().zip(&whole.0).filter(|(a, b)| a != b).map(|(a, _)| &a.0);
        assert_eq!(differing.collect::<Vec<_>>(), Vec::<&String>::new(), "stopped after {stops:?}");
    }
}

/// Losses other than NT-Xent, with all negatives and with mined ones: captured and replayed steps match those of the
/// processor.
#[cfg(feature = "cuda")]
#[test]
fn captured_steps_of_other_losses_follow_those_of_the_processor() {
    let Some((gpu, _alone)) = on_gpu::gpu(1) else { return };
    for keys in [OTHER_LOSSES[0], OTHER_LOSSES[3]] {
        let config = config(&[&keys[..], &["train.epochs=1", "train.precision=f32"]].concat());
        let losses = |device: &Device| {
            let folder = tempfile::tempdir().unwrap();
            let mut watch = Watch { stop_after: Some(3), ..Watch::default() };
            train_on(device, folder.path(), &config, None, &mut watch).unwrap();
            watch.steps.iter().map(|step| step.loss).collect::<Vec<_>>()
        };
        let (got, want) = (losses(&gpu), losses(&Device::cpu(1).unwrap()));
        assert!(got.len() == 3 && got.iter().zip(&want).all(|(got, want)| (got - want).abs() < 1e-3 * want));
    }
}

/// At a rate at which the weights overflow, the error names the failing step, and nothing after it is kept.
#[cfg(feature = "cuda")]
#[test]
fn a_captured_step_that_is_not_finite_ends_the_run() {
    let Some((gpu, _alone)) = on_gpu::gpu(1) else { return };
    let sets =
        ["train.epochs=1", "optim.name=sgd", "optim.rate=1e30", "optim.warmup_epochs=0", "train.log_every=4"];
    let config = config(&sets);
    let failing = |device: &Device| {
        let folder = tempfile::tempdir().unwrap();
        match train_on(device, folder.path(), &config, None, &mut Watch::default()) {
            Err(TrainError::NotFinite { step, rate, last_good: None, .. }) => (step, rate),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failing(&gpu), failing(&Device::cpu(1).unwrap()));
}

/// Begun on the CPU, resumed on a GPU (or its stand-in), ended on the CPU.
#[cfg(feature = "cuda")]
#[test]
fn checkpoints_move_between_devices() {
    let Some((gpu, _alone)) = on_gpu::gpu(1) else { return };
    let cpu = Device::cpu(1).unwrap();
    let config = config(&["train.epochs=1", "train.precision=f32"]);
    let run = |middle: &Device| {
        let folder = tempfile::tempdir().unwrap();
        let mut from = None;
        for (device, stop_after) in [(&cpu, 2), (middle, 4), (&cpu, 6)] {
            let mut watch = Watch { stop_after: Some(stop_after), ..Watch::default() };
            let outcome = train_on(device, folder.path(), &config, from.as_ref(), &mut watch).unwrap();
            assert_eq!(outcome.step, stop_after);
            from = Some(Checkpoint::read(&Disk, &outcome.checkpoint).unwrap());
        }
        from.unwrap()
    };
    let (got, want) = (run(&gpu), run(&cpu));
    for (got, want) in got.tensors.iter().zip(&want.tensors) {
        assert_eq!((&got.name, &got.shape), (&want.name, &want.shape));
        let size = want.data.iter().fold(1e-6f32, |most, v| most.max(v.abs()));
        let off = got.data.iter().zip(&want.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= 1e-2 * size, "{} is off by {off:e} of {size:e}", want.name);
    }
}

/// A GPU waits for every log line, so by default it logs less often than a CPU.
#[cfg(feature = "cuda")]
#[test]
fn lines_of_a_gpu_are_rarer() {
    let Some((gpu, _alone)) = on_gpu::gpu(1) else { return };
    let config =
        config(&["train.epochs=1", "train.log_every=auto", "train.health_every=0", "train.knn_every=0"]);
    let logged = |device: &Device| {
        let (folder, mut watch) = (tempfile::tempdir().unwrap(), Watch::default());
        train_on(device, folder.path(), &config, None, &mut watch).unwrap();
        watch.steps.iter().map(|line| line.step).collect::<Vec<_>>()
    };
    assert_eq!(logged(&Device::cpu(1).unwrap()), (1..=10).collect::<Vec<_>>());
    assert_eq!(logged(&gpu), [10]);
}

/// However many images are embedded, a GPU gets one of two batch sizes: one for few images, one for many.
#[cfg(feature = "cuda")]
#[test]
fn embedding_searches_for_kernels_twice() {
    let Some((gpu, _alone)) = on_gpu::gpu_without_memories(1) else { return };
    let model = simclr_train::Model::new(&config(&["train.precision=f32"]), &gpu).unwrap();
    let image = |i: usize| (0..16 * 16 * 3).map(move |v| (v * 7 + i * 31) as u8);
    let embed = |count: usize| {
        let images: Vec<u8> = (0..count).flat_map(image).collect();
        let (h, _) = model.embed(&images).unwrap();
        assert_eq!(h.len(), count * model.encoder.features());
        (h, gpu.searched().unwrap().0)
    };
    let ((few, first), (many, second)) = (embed(1), embed(40));
    assert!(first > 0 && second > first);
    assert_eq!((embed(32).1, embed(33).1, embed(256).1), (second, second, second));
    let off = few.iter().zip(&many).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-4, "{off}");
}
