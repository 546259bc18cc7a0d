//! After warm-up a training step allocates nothing. Alone in its file: the counter sees the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use simclr_engine::{Device, SingleProcess};
use simclr_train::optim::Optimizer;
use simclr_train::pretrain::train_step;
use simclr_train::{Config, Layers, Model};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, hence from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The fewest allocations of a step, once the first ones have brought every buffer and list to its size.
///
/// The fewest: the test harness has threads of its own, and one of several compute threads may meet a kind of work late.
fn fewest(encoder: &str, precision: &str, memory: &str, threads: usize) -> usize {
    let sets = [
        "data.image_size=32".to_owned(),
        format!("encoder.name={encoder}"),
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
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        train_step(&mut model, &mut optimizer, &config.loss, &SingleProcess, &views, 0.1).unwrap();
        ALLOCATIONS.load(Ordering::Relaxed) - before
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
    ] {
        let fewest = fewest(encoder, precision, memory, threads);
        assert_eq!(fewest, 0, "{encoder}, {precision}, {memory}, {threads} threads");
    }
}
