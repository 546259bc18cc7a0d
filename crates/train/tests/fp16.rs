//! Training in fp16 on a GPU, or on its stand-in: the loss scale adapts, survives a stop, and hides no fault.

#![cfg(feature = "cuda")]

mod common;
mod on_gpu;
mod watching;

use std::path::Path;
use std::sync::Arc;

use common::run_in;
use on_gpu::gpu;
use simclr_data::{Dataset, Synthetic};
use simclr_engine::{DType, Device};
use simclr_train::checkpoint::Checkpoint;
use simclr_train::config::Memory;
use simclr_train::file_system::Disk;
use simclr_train::optim::Optimizer;
use simclr_train::pretrain::{Outcome, pretrain};
use simclr_train::{Config, Model, TrainError, memory};
use watching::Watch;

/// Three epochs of slightly more than five steps on 8 x 8 pixels.
fn config(sets: &[&str]) -> Config {
    common::usual(&["data.image_size=8", "train.epochs=3", "train.precision=fp16"], sets)
}

/// Trains in `folder`, resuming from a checkpoint if one is given.
fn train(
    device: &Device,
    folder: &Path,
    config: &Config,
    from: Option<&Checkpoint>,
    stop_after: Option<u64>,
) -> (Result<Outcome, TrainError>, Watch) {
    let images: Arc<dyn Dataset> = Arc::new(Synthetic::new(96, 8, 0));
    let run = run_in(folder, config, from).unwrap();
    let mut watch = Watch { stop_after, ..Watch::default() };
    (pretrain(&images, config, &run, from, device, &mut watch), watch)
}

/// The checkpoint that a run left, and the bits of its tensors.
fn left(outcome: &Outcome) -> (Checkpoint, Vec<(String, Vec<u32>)>) {
    let checkpoint = Checkpoint::read(&Disk, &outcome.checkpoint).unwrap();
    let bits = common::bits(&checkpoint);
    (checkpoint, bits)
}

/// The loss scale, the steps since it changed, and the steps skipped.
fn scale_of(checkpoint: &Checkpoint) -> [f64; 3] {
    let extra = &checkpoint.meta.extra;
    let [steps, skipped] = [extra.loss_scale_steps.map(u64::from), extra.skipped_steps];
    [extra.loss_scale.unwrap(), steps.unwrap() as f64, skipped.unwrap() as f64]
}

/// A factor by which the scale is raised to make it overflow for a few steps.
const HIGHER: f64 = 16.0;

/// The loss scale after `skipped` skipped steps, starting at `scale`.
fn halved(scale: f64, skipped: f64) -> f64 {
    scale * 0.5f64.powf(skipped)
}

#[test]
fn a_run_is_near_that_of_f32_and_the_same_across_a_stop() {
    let Some((device, _alone)) = gpu(2) else { return };
    let whole = |sets: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, watch) = train(&device, folder.path(), &config(sets), None, None);
        (left(&outcome.unwrap()), watch)
    };
    let ((f32, _), want) = whole(&["train.precision=f32"]);
    let ((half, bits), got) = whole(&[]);
    assert_eq!((want.steps.len(), got.steps.len(), got.epochs.len()), (17, 17, 3));
    // The gradients of a network this narrow overflow at the initial scale: the first steps may be skipped, which
    // shifts the others.
    for (got, want) in got.steps.iter().zip(&want.steps) {
        assert!((got.loss - want.loss).abs() < 0.1 * want.loss, "{got:?} for {want:?}");
        let (norm, expected) = (got.gradient_norm, want.gradient_norm);
        let taken = norm > 0.0;
        assert!(!taken || (norm / expected).ln().abs() < 1.0, "|g| without the scale: {norm} for {expected}");
        assert!(taken || got.skipped_steps == Some(got.step), "{got:?}");
        assert!(got.loss_scale.is_some() && want.loss_scale.is_none() && want.skipped_steps.is_none());
    }
    let health = got.epochs[2].health.as_ref().expect("images are held out");
    assert!(health.contrastive_accuracy.is_finite() && got.epochs[2].knn_top1.is_some());
    let [scale, steps, skipped] = scale_of(&half);
    assert_eq!(scale, halved(65536.0, skipped));
    assert!(steps > 0.0 && steps + skipped <= 17.0, "{steps} and {skipped}");
    assert_eq!(f32.meta.extra.loss_scale, None);

    // Resumed with a scale that overflows, training lowers it and goes on, with the same bits across another stop.
    let scaled = |second_stop: Option<u64>| {
        let folder = tempfile::tempdir().unwrap();
        let (outcome, _) = train(&device, folder.path(), &config(&[]), None, Some(6));
        let (mut checkpoint, _) = left(&outcome.unwrap());
        let [scale, _, before] = scale_of(&checkpoint);
        assert_eq!(scale, halved(65536.0, before));
        let high = HIGHER * scale;
        if second_stop.is_none() {
            let (outcome, _) = train(&device, folder.path(), &config(&[]), Some(&checkpoint), None);
            assert_eq!(left(&outcome.unwrap()).1, bits, "the same bits across a stop");
        }
        checkpoint.meta.extra.loss_scale = Some(high);
        let (outcome, watch) = train(&device, folder.path(), &config(&[]), Some(&checkpoint), second_stop);
        for step in &watch.steps {
            let skipped = step.skipped_steps.unwrap() as f64 - before;
            assert_eq!(step.loss_scale, Some(halved(high, skipped)));
        }
        let (checkpoint, bits) = left(&outcome.unwrap());
        if second_stop.is_none() {
            let [_, steps, skipped] = scale_of(&checkpoint);
            assert!(skipped > before && steps > 0.0, "{skipped} and {steps}");
            return bits;
        }
        let (outcome, _) = train(&device, folder.path(), &config(&[]), Some(&checkpoint), None);
        left(&outcome.unwrap()).1
    };
    assert_eq!(scaled(Some(8)), scaled(None));
}

/// A temperature at which all gradients overflow f16 but the loss does not.
const STEEP: &str = "loss.temperature=1e-10";

/// Non-deterministic runs may use convolutions that normalise their input as they read it.
#[test]
fn a_run_that_need_not_repeat_is_near_that_of_f32() {
    let Some((device, _alone)) = gpu(2) else { return };
    let losses = |sets: &[&str]| -> Vec<f64> {
        let sets = [&["encoder.width=0.125", "train.batch=4"], sets].concat();
        let folder = tempfile::tempdir().unwrap();
        let (outcome, watch) = train(&device, folder.path(), &config(&sets), None, Some(4));
        outcome.unwrap();
        watch.steps.iter().map(|step| step.loss).collect()
    };
    let want = losses(&["train.precision=f32"]);
    let got = losses(&["train.deterministic=false"]);
    assert_eq!((got.len(), want.len()), (4, 4));
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() < 0.1 * want, "{got} for {want}");
    }
}

#[test]
fn skipped_steps_change_nothing_and_at_scale_1_the_run_ends() {
    let Some((device, _alone)) = gpu(2) else { return };
    let folder = tempfile::tempdir().unwrap();
    let steep = config(&[STEEP, "train.epochs=4", "train.knn_every=0", "train.health_every=0"]);
    let (outcome, watch) = train(&device, folder.path(), &steep, None, Some(4));
    let (checkpoint, _) = left(&outcome.unwrap());
    assert_eq!(scale_of(&checkpoint), [4096.0, 0.0, 4.0]);
    assert_eq!(watch.steps.iter().map(|step| step.skipped_steps).collect::<Vec<_>>(), [1, 2, 3, 4].map(Some));
    assert!(watch.steps.iter().all(|step| step.loss.is_finite() && step.gradient_norm == 0.0));
    // Weights and running averages are the initial ones, and the optimiser's state is untouched.
    let start = Model::new(&steep, &device).unwrap().store().unwrap();
    for tensor in &checkpoint.tensors {
        match start.iter().find(|other| other.name == tensor.name) {
            Some(start) => assert_eq!(start.data, tensor.data, "{}", tensor.name),
            None => assert!(tensor.data.iter().all(|&v| v == 0.0), "{}", tensor.name),
        }
    }
    // Twelve more skipped steps lower the scale to 1; the seventeenth step cannot be rescued by a lower one.
    let (outcome, watch) = train(&device, folder.path(), &steep, Some(&checkpoint), None);
    match outcome {
        Err(TrainError::NotFinite { step, what, .. }) => {
            assert!(step == 16 && !what.ends_with(char::is_numeric), "{step}, {what}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(watch.steps.last().map(|step| (step.step, step.loss_scale)), Some((16, Some(1.0))));
}

#[test]
fn memory_is_foreseen_and_a_processor_computes_in_f32() {
    let cpu = Device::cpu(1).unwrap();
    let error = config(&[]).prepare(&cpu).unwrap_err().to_string();
    assert!(error.contains("needs a GPU") && error.contains("bf16"), "{error}");
    assert_eq!(Model::new(&config(&[]), &cpu).unwrap().activations(), DType::F32);
    let Some((device, _alone)) = gpu(2) else { return };
    let [half, bf16] = ["train.precision=fp16", "train.precision=bf16"].map(|precision| {
        let config = config(&[precision]);
        let model = Model::new(&config, &device).unwrap();
        let optimizer = Optimizer::new(&config.optim, &model.parameters).unwrap();
        memory::step_use(&model, &optimizer, &config, Memory::Full, 16).unwrap()
    });
    assert_eq!(half, bf16);
}
