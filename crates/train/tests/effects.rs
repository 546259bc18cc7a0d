//! Every key of the encoder, the loss, the head and the optimiser changes what a step computes, and every key of the
//! views changes the views.

mod common;

use simclr_augment::{ImageRef, Scratch, Stream};
use simclr_engine::{Device, SingleProcess};
use simclr_train::config::KEYS;
use simclr_train::optim::Optimizer;
use simclr_train::pretrain::train_step;
use simclr_train::{Model, Schedule};

const SIDE: usize = 8;
const BATCH: usize = 8;

/// The encoder's bits after two steps, which every key changes.
fn trained(sets: &[&str]) -> Vec<Vec<u32>> {
    let usual = [
        "data.image_size=8",
        "encoder.width=0.0625",
        "train.batch=8",
        "train.epochs=1",
        "train.precision=f32",
        "optim.rate=0.1",
        "optim.warmup_epochs=0",
    ];
    let config = common::small(&usual, sets).unwrap();
    let mut model = Model::new(&config, &Device::cpu(1).unwrap()).unwrap();
    let mut optimizer = Optimizer::new(&config.optim, &model.parameters).unwrap();
    let schedule = Schedule::new(&config, 4 * BATCH as u64);
    let views: Vec<u8> = (0..2 * BATCH * SIDE * SIDE * 3).map(|i| (i * i % 251) as u8).collect();
    for step in [1, 2] {
        let rate = schedule.rate(step);
        let (model, optimizer) = (&mut model, &mut optimizer);
        let figures = train_step(model, optimizer, &config.loss, &SingleProcess, &views, rate).unwrap();
        assert!(figures.is_finite());
    }
    let encoder = model.parameters.iter().filter(|(name, ..)| !name.starts_with("head."));
    encoder.map(|(_, _, value)| value.to_vec().unwrap().iter().map(|v| v.to_bits()).collect()).collect()
}

const TRIPLETS: &str = "loss.name=margin_triplet";
const SGD: &str = "optim.name=sgd";
const ADAMW: &str = "optim.name=adamw";

/// The settings needed for a key to have an effect, and the change of the key.
const CHANGES: [(&[&str], &str); 32] = [
    (&[], "encoder.name=resnet34"),
    (&[], "encoder.width=0.125"),
    (&[], "encoder.stem=imagenet"),
    (&[], "encoder.variant=d"),
    (&["encoder.name=resnet50"], "encoder.selective_kernels=0.0625"),
    (&[], "encoder.shortcut=projection"),
    (&["encoder.stem=imagenet"], "encoder.pool_padding=same"),
    (&[], "encoder.normalize=imagenet"),
    (&[], "loss.name=nt_logistic"),
    (&["loss.name=nt_logistic"], "loss.mining=semi_hard"),
    (&[TRIPLETS], "loss.mining=semi_hard"),
    (&[], "loss.temperature=0.1"),
    (&[TRIPLETS], "loss.margin=0.1"),
    (&[], "loss.normalize=false"),
    (&[], "head.kind=linear"),
    (&[], "head.layers=3"),
    (&[], "head.hidden=16"),
    (&[], "head.dim=16"),
    (&[], "head.batch_norm=true"),
    (&[], "optim.name=sgd"),
    (&[], "optim.rate=0.2"),
    (&[], "optim.scaling=linear"),
    (&[], "optim.momentum=0.8"),
    (&[SGD], "optim.momentum=0.8"),
    (&[ADAMW], "optim.momentum=0.8"),
    (&[SGD], "optim.nesterov=true"),
    (&[], "optim.weight_decay=0.1"),
    (&[], "optim.trust_coefficient=0.01"),
    (&[ADAMW], "optim.beta2=0.9"),
    (&[ADAMW], "optim.epsilon=0.01"),
    (&[], "optim.warmup_epochs=1"),
    (&[], "optim.schedule=constant"),
];

#[test]
fn every_key_reaches_the_computation() {
    for (base, change) in CHANGES {
        let expected = trained(base);
        assert!(trained(base) == expected, "{base:?} is not the same twice");
        assert!(trained(&[base, &[change]].concat()) != expected, "{change} beside {base:?} changes nothing");
    }
    assert_complete(&["encoder.", "loss.", "head.", "optim."], &CHANGES);
}

/// Asserts that `changes` cover every key of these tables.
fn assert_complete(tables: &[&str], changes: &[(&[&str], &str)]) {
    for key in KEYS.iter().filter(|key| tables.iter().any(|table| key.path.starts_with(table))) {
        let is_tested = changes.iter().any(|(_, change)| change.split('=').next() == Some(key.path));
        assert!(is_tested, "{} has no case", key.path);
    }
}

/// Some views of an image from both branches.
fn views(sets: &[&str]) -> Vec<u8> {
    // The radius of the blur is a twentieth of the size.
    const SIZE: u32 = 40;
    let config = common::small(&["data.image_size=40"], sets).unwrap();
    let pixels: Vec<u8> = (0..24 * 20 * 3_u32).map(|i| (i * i % 251) as u8).collect();
    let image = ImageRef::new(24, 20, &pixels).unwrap();
    let mut scratch = Scratch::default();
    let mut all = Vec::new();
    for (branch, family) in config.view.families(SIZE).unwrap().iter().enumerate() {
        for index in 0..8 {
            let mut view = vec![0; family.view_len()];
            let recipe = family.draw(image.width, image.height, &mut Stream::new(1, 0, index, branch as u64));
            family.apply(image, &recipe, &mut scratch, &mut view);
            all.extend(view);
        }
    }
    all
}

const BLUR: &str = "view.blur_prob=1";

const CHANGES_OF_VIEWS: [(&[&str], &str); 15] = [
    (&[], "view.crop_area=[0.5, 1.0]"),
    (&[], "view.crop_aspect=[1.0, 1.0]"),
    (&[], "view.crop_aspect_law=log_uniform"),
    (&[], "view.shared_crop=[0.1, 0.2]"),
    (&[], "view.flip=1"),
    (&[], "view.color_strength=2"),
    (&[], "view.color_prob=0"),
    (&[], "view.gray_prob=1"),
    (&[], BLUR),
    (&[BLUR], "view.blur_sigma=[3.0, 4.0]"),
    (&[BLUR], "view.blur_padding=reflect"),
    (&[], "view.brightness=additive"),
    (&[], "view.preset=crop-only"),
    (&[], "view.a=[{op = \"sobel\"}]"),
    (&[], "view.b=[{op = \"sobel\"}]"),
];

#[test]
fn every_key_reaches_the_views() {
    for (base, change) in CHANGES_OF_VIEWS {
        assert!(
            views(&[base, &[change]].concat()) != views(base),
            "{change} beside {base:?} changes nothing"
        );
    }
    assert_complete(&["view."], &CHANGES_OF_VIEWS);
}
