//! The defaults and the presets, value for value, so that they do not change unnoticed.

use simclr_train::presets::PRESETS;
use simclr_train::{Config, Layers};

/// A resolved configuration with a given precision, since "auto" depends on the machine.
fn resolved(preset: Option<&str>) -> Config {
    let sets = ["train.precision=f32".to_owned()];
    Config::resolve(&Layers { preset, sets: &sets, ..Layers::default() }).unwrap()
}

#[test]
fn the_defaults_are_these() {
    let found = resolved(None).to_toml().unwrap();
    for (found, expected) in found.lines().zip(include_str!("golden/defaults.toml").lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found, include_str!("golden/defaults.toml"));
}

/// What each preset changes, including what follows from it. `photos` also gets sizes at run time.
const CHANGES: [(&str, &[&str]); 5] = [
    (
        "cifar10",
        &[
            "data.image_size=32",
            "view.color_strength=0.5",
            "view.blur_prob=0.0",
            "encoder.stem=\"small\"",
            "loss.temperature=0.5",
            "optim.rate=1.0",
            "optim.weight_decay=0.0001",
            "train.batch=512",
            "train.epochs=1000",
        ],
    ),
    (
        "cifar10-short",
        &[
            "data.image_size=32",
            "view.crop_area=[0.2, 1.0]",
            "view.blur_prob=0.0",
            "encoder.stem=\"small\"",
            "head.hidden=2048",
            "loss.temperature=0.2",
            "optim.rate=3.0",
            "optim.weight_decay=0.0001",
            "train.batch=512",
        ],
    ),
    ("imagenet", &["encoder.name=\"resnet50\"", "train.batch=4096"]),
    (
        "small",
        &[
            "data.image_size=32",
            "view.color_strength=0.5",
            "view.blur_prob=0.0",
            "encoder.width=0.25",
            "encoder.stem=\"small\"",
            "head.batch_norm=false",
            "loss.temperature=0.5",
            "optim.rate=1.0",
            "optim.scaling=\"none\"",
            "optim.weight_decay=0.0001",
            "optim.warmup_epochs=1.0",
            "train.epochs=10",
        ],
    ),
    (
        "photos",
        &[
            "loss.temperature=0.2",
            "optim.name=\"sgd\"",
            "optim.rate=0.006",
            "optim.scaling=\"sqrt\"",
            "optim.weight_decay=0.0001",
        ],
    ),
];

#[test]
fn the_presets_change_these() {
    assert!(PRESETS.iter().map(|preset| preset.name).eq(CHANGES.map(|(name, _)| name)));
    let defaults = resolved(None);
    for (name, changes) in CHANGES {
        let found = defaults.differences(&resolved(Some(name)));
        let found: Vec<String> =
            found.iter().map(|found| format!("{}={}", found.key, found.theirs)).collect();
        assert_eq!(found, changes, "{name}");
    }
}
