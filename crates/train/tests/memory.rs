//! Predicted memory against what a step actually takes.

use simclr_engine::{Device, SingleProcess};
use simclr_train::config::Memory;
use simclr_train::memory::{Images, Needs, step_use};
use simclr_train::optim::Optimizer;
use simclr_train::pretrain::train_step;
use simclr_train::{Config, Layers, Model};

#[test]
fn tensors_take_what_was_predicted() {
    let networks: [&[&str]; 6] = [
        &["encoder.width=0.125", "data.image_size=16"],
        &["encoder.width=0.0625", "data.image_size=40", "head.batch_norm=false", "optim.name=adamw"],
        &["encoder.name=resnet50", "encoder.width=0.0625", "data.image_size=64"],
        &["encoder.width=0.125", "data.image_size=32", "head.kind=none", "loss.normalize=false"],
        &["encoder.width=0.125", "data.image_size=40", "encoder.variant=d"],
        &[
            "encoder.name=resnet50",
            "encoder.width=0.0625",
            "encoder.selective_kernels=0.0625",
            "data.image_size=40",
        ],
    ];
    for network in networks {
        for (precision, memory) in [
            ("train.precision=f32", "train.memory=full"),
            ("train.precision=f32", "train.memory=blocks"),
            ("train.precision=bf16", "train.memory=full"),
            ("train.precision=bf16", "train.memory=blocks"),
        ] {
            let sets: Vec<String> = ["train.batch=24", "data.holdout=0", precision, memory]
                .iter()
                .chain(network)
                .map(|&set| set.to_owned())
                .collect();
            let config = Config::resolve(&Layers { sets: &sets, ..Layers::default() }).unwrap();
            let device = Device::cpu(1).unwrap();
            let mut model = Model::new(&config, &device).unwrap();
            let mut optimizer = Optimizer::new(&config.optim, &model.parameters).unwrap();
            let predicted =
                step_use(&model, &optimizer, &config, config.train.memory.unwrap_or_default(), 24).unwrap();
            let needs = Needs::of(
                &model,
                &optimizer,
                &config,
                config.train.memory.unwrap_or_default(),
                24,
                &Images::default(),
            )
            .unwrap();
            // Even the smallest tensors take a cache line.
            let live = device.memory().live as f64;
            assert!((live / needs.state as f64 - 1.0).abs() < 0.01, "{live} {needs:?} of {sets:?}");
            assert_eq!(needs.state + needs.step, predicted.held as u64);

            let side = config.data.image_size as usize;
            let views: Vec<u8> = (0..48 * side * side * 3).map(|i| (i * i % 251) as u8).collect();
            for _ in 0..2 {
                train_step(&mut model, &mut optimizer, &config.loss, &SingleProcess, &views, 0.1).unwrap();
            }
            let measured = device.memory();
            for (what, predicted, measured) in
                [("peak", predicted.peak, measured.peak), ("held", predicted.held, measured.held)]
            {
                let ratio = measured as f64 / predicted as f64;
                assert!((0.95..1.05).contains(&ratio), "{what} {predicted} {measured} of {sets:?}");
            }
        }
    }
}

#[test]
fn a_large_batch_is_predicted_without_its_memory() {
    let sets = ["encoder.name=resnet50".to_owned(), "encoder.width=0.25".to_owned()];
    let config = Config::resolve(&Layers { sets: &sets, ..Layers::default() }).unwrap();
    let model = Model::new(&config, &Device::cpu(1).unwrap()).unwrap();
    let optimizer = Optimizer::new(&config.optim, &model.parameters).unwrap();
    let of = |memory, batch| step_use(&model, &optimizer, &config, memory, batch).unwrap().peak as f64;
    let (full, blocks) = (of(Memory::Full, 100_000), of(Memory::Blocks, 100_000));
    assert!(full > 1e12 && blocks < full / 2.0, "{full} {blocks}");
    let grown = of(Memory::Full, 200_000) / full;
    assert!((1.95..2.05).contains(&grown), "{grown}");
}

#[test]
fn checkpoints_take_a_copy_of_the_state_and_one_of_the_best_where_there_is_one() {
    for (sets, held_out, labelled, copies) in [
        (&[][..], 16, true, 2),
        (&["train.health_every=0"], 16, true, 2),
        (&["train.health_every=0"], 16, false, 1),
        (&["train.knn_every=0"], 16, true, 2),
        (&["train.health_every=0", "train.knn_every=0"], 16, true, 1),
        (&[], 0, true, 1),
    ] {
        let needs = needs(16, &Images { held_out, labelled, ..Images::default() }, sets);
        assert_eq!(needs.checkpoint, copies * needs.state, "{held_out} {sets:?}");
    }
}

/// What a small network needs for steps of 8 images of `size` x `size` pixels.
fn needs(size: usize, images: &Images, sets: &[&str]) -> Needs {
    let size = format!("data.image_size={size}");
    let usual = ["encoder.width=0.0625", &size, "train.batch=8"];
    let sets: Vec<String> = usual.iter().chain(sets).map(|&set| set.to_owned()).collect();
    let config = Config::resolve(&Layers { sets: &sets, ..Layers::default() }).unwrap();
    let model = Model::new(&config, &Device::cpu(1).unwrap()).unwrap();
    let optimizer = Optimizer::new(&config.optim, &model.parameters).unwrap();
    Needs::of(&model, &optimizer, &config, Memory::Full, 8, images).unwrap()
}

/// The figures after an epoch are computed in batches that take no more than a step where images are large, and what is
/// not computed takes nothing.
#[test]
fn held_out_images_take_no_more_than_a_step() {
    let of = |held_out| Images { held_out, labelled: true, ..Images::default() };
    let alone = needs(1024, &of(0), &[]);
    for held_out in [10, 100, 1000] {
        // Freed blocks do not fit all sizes alike.
        let ratio = needs(1024, &of(held_out), &[]).step as f64 / alone.step as f64;
        assert!((0.99..1.05).contains(&ratio), "{ratio} with {held_out}");
    }
    // A step on 16 small views takes less than figures of 128.
    let [none, few, many] = [0, 10, 1000].map(|held_out| needs(32, &of(held_out), &["train.knn_every=0"]));
    assert!(none.step <= few.step && few.step < many.step, "{none:?} {few:?} {many:?}");
    assert!(few.loader > none.loader, "{none:?} {few:?}");
    let unlabelled = Images { labelled: false, ..of(1000) };
    for (images, sets) in [
        (&of(1000), &["train.health_every=0", "train.knn_every=0"][..]),
        (&unlabelled, &["train.health_every=0"]),
    ] {
        assert_eq!(needs(32, images, sets), none);
    }
}
