//! After warm-up a training step allocates nothing. Alone in its file: the counter sees the whole process.

#[path = "../../augment/tests/counting/mod.rs"]
mod counting;

use counting::allocations;
use simclr_engine::{Device, SingleProcess};
use simclr_train::optim::Optimizer;
use simclr_train::pretrain::train_step;
use simclr_train::{Config, Layers, Model};

/// ResNet-D with selective kernels.
const SELECTIVE: &str = "resnet50 with selective kernels";

/// The fewest allocations of a step, once the first ones have brought every buffer and list to its size.
///
/// The fewest: the test harness has threads of its own, and one of several compute threads may meet a kind of work
/// late.
fn fewest(encoder: &str, precision: &str, memory: &str, threads: usize) -> usize {
    let sets = [
        "data.image_size=32".to_owned(),
        format!("encoder.name={}", encoder.split(' ').next().unwrap_or_default()),
        format!("encoder.selective_kernels={}", if encoder == SELECTIVE { 0.0625 } else { 0.0 }),
        "encoder.width=0.125".to_owned(),
        format!("train.memory={memory}"),
        format!("train.precision={precision}"),
    ];
    let config = Config::resolve(&Layers { sets: &sets, ..Layers::default() }).unwrap();
    let device = Device::cpu(threads).unwrap();
    let mut model = Model::new(&config, &device).unwrap();
    let mut optimizer = Optimizer::new(&config.optim, &model.parameters).unwrap();
    let views: Vec<u8> = (0..64 * 32 * 32 * 3).map(|i| (i * i % 251) as u8).collect();
    let mut step = || {
        allocations(|| {
            train_step(&mut model, &mut optimizer, &config.loss, &SingleProcess, &views, 0.1).unwrap();
        })
    };
    assert!(step() > 0, "the counter does not count");
    (0..6).map(|_| step()).min().unwrap_or(usize::MAX)
}

#[test]
fn a_step_allocates_nothing_after_warm_up() {
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
