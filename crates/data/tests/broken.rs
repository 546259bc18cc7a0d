//! A folder in which some images are broken, from listing to batches.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use simclr_augment::{ViewConfig, ViewFamily};
use simclr_data::{DataError, EvalLoader, Loader, LoaderConfig, Position, Reading, Share, Skipped, open};
use tempfile::{TempDir, tempdir};

/// Twelve good images, among them one of a single pixel and one 30,000 pixels wide, and four broken ones.
fn folder() -> TempDir {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for number in 0..10u8 {
        RgbImage::from_pixel(20, 10, Rgb([number * 20; 3]))
            .save(path(&format!("good {number}.png")))
            .unwrap();
    }
    RgbImage::new(1, 1).save(path("one pixel.bmp")).unwrap();
    RgbImage::new(30_000, 2).save(path("wide.png")).unwrap();
    let jpeg = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/colour.jpg")).unwrap();
    fs::write(path("cut.jpg"), &jpeg[..jpeg.len() - 60]).unwrap();
    fs::write(path("empty.png"), []).unwrap();
    fs::write(path("noise.jpg"), (0..999u32).map(|i| (i * i / 7) as u8).collect::<Vec<u8>>()).unwrap();
    fs::write(path("text.jpeg"), "not a picture at all").unwrap();
    dir
}

fn reasons(mut skipped: Vec<Skipped>) -> Vec<(String, String)> {
    skipped.sort_by_key(|skipped| skipped.index);
    skipped.into_iter().map(|skipped| (skipped.name, skipped.reason)).collect()
}

fn assert_all_listed(skipped: Vec<Skipped>) {
    let reasons = reasons(skipped);
    let expected = [
        ("cut.jpg", "truncated JPEG"),
        ("empty.png", "the file is empty"),
        ("noise.jpg", "not an image"),
        ("text.jpeg", "not an image"),
    ];
    assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
    for ((name, reason), (expected_name, expected_reason)) in reasons.iter().zip(expected) {
        assert!(name == expected_name && reason.contains(expected_reason), "{name}: {reason}");
    }
}

#[test]
fn training_passes_over_them() {
    let dir = folder();
    let source = open(dir.path()).unwrap();
    assert_eq!(source.train.len(), 16);
    let family = ViewFamily::first_branch(&ViewConfig::default(), 16).unwrap();
    let views = vec![family.clone(), family];
    let config = LoaderConfig {
        batch: 12,
        share: Share::WHOLE,
        seed: 4,
        reading: Reading { threads: 3, strict: false },
        prefetch: 1,
        views,
    };
    let mut loader = Loader::new(source.train, config, Position::default());
    for epoch in 0..6 {
        let batch = loader.next_batch().unwrap();
        // Of 16 places four are passed over, the last of them with the next batch perhaps.
        assert!((epoch * 16 + 12..=epoch * 16 + 16).contains(&batch.position.0), "{:?}", batch.position);
        assert_eq!(batch.indices.len(), 12);
        let mut indices = batch.indices.clone();
        indices.sort_unstable();
        // All that can be read: "cut" and "empty" come first by name, "noise" and "text" after the good ones.
        assert_eq!(indices.iter().filter(|&&i| i < 2).count(), 0);
        loader.recycle(batch);
    }
    assert_all_listed(loader.skipped());
}

#[test]
fn evaluation_passes_over_them() {
    let dir = folder();
    let source = open(dir.path()).unwrap();
    let mut loader = EvalLoader::new(source.train, 48, 5, Reading { threads: 2, strict: false });
    let mut images = 0;
    while let Some(batch) = loader.next_batch().unwrap() {
        assert_eq!(batch.views.len(), batch.indices.len() * 48 * 48 * 3);
        images += batch.indices.len();
    }
    assert_eq!(images, 12);
    assert_all_listed(loader.skipped());
}

#[test]
fn strict_reading_ends_at_the_first_in_order() {
    let dir = folder();
    let train = open(dir.path()).unwrap().train;
    let family = ViewFamily::first_branch(&ViewConfig::default(), 16).unwrap();
    for threads in [1, 3] {
        let reading = Reading { threads, strict: true };
        let mut loader = EvalLoader::new(train.clone(), 48, 2, reading);
        let error = loader.next_batch().unwrap_err();
        assert!(matches!(&error, DataError::Image { name, .. } if name == "cut.jpg"), "{error}");
        assert!(loader.next_batch().unwrap().is_none());

        let views = vec![family.clone()];
        let config = LoaderConfig { batch: 16, share: Share::WHOLE, seed: 4, reading, prefetch: 1, views };
        let mut loader = Loader::new(train.clone(), config, Position::default());
        let broken = ["cut.jpg", "empty.png", "noise.jpg", "text.jpeg"];
        let names: Vec<String> =
            simclr_data::permutation(16, 4, 0).into_iter().map(|i| train.name(i as usize)).collect();
        let first = names.iter().find(|name| broken.contains(&name.as_str()));
        match loader.next_batch().unwrap_err() {
            DataError::Image { name, .. } => assert_eq!(Some(&name), first),
            error => panic!("{error}"),
        }
    }
}
