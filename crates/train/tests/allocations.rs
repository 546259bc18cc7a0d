//! After warm-up a training step allocates nothing. Alone in its file because the counter sees the whole process.

#[path = "../../augment/tests/counting/mod.rs"]
mod counting;

use std::sync::{Barrier, Mutex, PoisonError};
use std::thread::scope;
use std::time::Duration;

use counting::allocations;
use simclr_engine::{Collective, Device, SingleProcess};
use simclr_train::optim::Optimizer;
use simclr_train::pretrain::train_step;
use simclr_train::workers::{Host, Wait, Workers};
use simclr_train::{Config, Layers, Model};

/// ResNet-D with selective kernels.
const SELECTIVE: &str = "resnet50 with selective kernels";

/// The state of a run.
struct Run {
    config: Config,
    model: Model,
    optimizer: Optimizer,
    views: Vec<u8>,
}

impl Run {
    fn new(sets: &[String], threads: usize) -> Run {
        let config = Config::resolve(&Layers { sets, ..Layers::default() }).unwrap();
        let model = Model::new(&config, &Device::cpu(threads).unwrap()).unwrap();
        let optimizer = Optimizer::new(&config.optim, &model.parameters).unwrap();
        let views: Vec<u8> = (0..64 * 32 * 32 * 3).map(|i| (i * i % 251) as u8).collect();
        Run { config, model, optimizer, views }
    }

    fn step(&mut self, collective: &dyn Collective) {
        let Run { config, model, optimizer, views } = self;
        train_step(model, optimizer, &config.loss, collective, views, 0.1).unwrap();
    }
}

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// The fewest allocations of a step, after the first ones have brought all buffers and lists to their sizes.
///
/// The fewest, because the test harness has threads of its own, and a compute thread may get some kind of work for the
/// first time in a late step.
fn fewest(encoder: &str, precision: &str, memory: &str, threads: usize) -> usize {
    let sets = [
        "data.image_size=32".to_owned(),
        format!("encoder.name={}", encoder.split(' ').next().unwrap_or_default()),
        format!("encoder.selective_kernels={}", if encoder == SELECTIVE { 0.0625 } else { 0.0 }),
        "encoder.width=0.125".to_owned(),
        format!("train.memory={memory}"),
        format!("train.precision={precision}"),
    ];
    let mut run = Run::new(&sets, threads);
    let mut step = || allocations(|| run.step(&SingleProcess));
    assert!(step() > 0, "the counter does not count");
    (0..6).map(|_| step()).min().unwrap_or(usize::MAX)
}

#[test]
fn a_step_allocates_nothing_after_warm_up() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (encoder, precision, memory, threads) in [
        ("resnet18", "f32", "full", 1),
        ("resnet18", "bf16", "full", 1),
        ("resnet18", "f32", "blocks", 1),
        ("resnet50", "f32", "blocks", 1),
        ("resnet18", "bf16", "blocks", 2),
        ("resnet18", "f32", "full", 2),
        (SELECTIVE, "bf16", "full", 1),
        (SELECTIVE, "f32", "blocks", 2),
    ] {
        let fewest = fewest(encoder, precision, memory, threads);
        assert_eq!(fewest, 0, "{encoder}, {precision}, {memory}, {threads} threads");
    }
}

/// Counts the allocations of two workers over TCP together. At least half of the steps must have none: the fewest of
/// all steps would hide occasional allocations.
#[test]
fn a_step_of_workers_allocates_nothing_after_warm_up() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Most gradients are large enough to be summed in pieces by the workers.
    let sets = ["data.image_size=32", "encoder.width=0.125", "train.precision=f32"].map(str::to_owned);
    let host = Host::listen("127.0.0.1:0").unwrap();
    let at = host.address().unwrap().to_string();
    let (together, timeout, steps) = (Barrier::new(2), Duration::from_secs(60), 25);
    let mut counts: Vec<usize> = scope(|scope| {
        let (sets, together) = (&sets, &together);
        scope.spawn(move || {
            let worker = Workers::join(1, 2, &at, Wait { timeout, check: &mut || Ok(()) }).unwrap();
            let mut run = Run::new(sets, 1);
            (0..steps).for_each(|_| {
                together.wait();
                run.step(&worker);
                together.wait();
            });
        });
        let worker = host.meet(2, Wait { timeout, check: &mut || Ok(()) }).unwrap();
        let mut run = Run::new(sets, 1);
        let step = |_| {
            allocations(|| {
                together.wait();
                run.step(&worker);
                together.wait();
            })
        };
        (0..steps).map(step).collect()
    });
    let after = &mut counts[5..];
    after.sort_unstable();
    assert_eq!(after[after.len() / 2], 0, "{after:?}");
}
