//! A folder in which some images are broken, from listing to batches.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::numbered::Numbered;
use common::{gzip, loading, png, tar, zip, zstd};
use image::{Rgb, RgbImage};
use simclr_augment::{ViewConfig, ViewFamily};
use simclr_data::{
    DataError, DecodeScratch, EvalLoader, Loader, LoaderConfig, Opener, Position, Reading, Sample, Share,
    Skipped, open, survey,
};
use tempfile::{TempDir, tempdir};

/// Twelve good images, one of them a single pixel and one 30,000 pixels wide, and four broken ones.
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
        views,
    };
    let mut loader = Loader::new(source.train, config, Position::default());
    for epoch in 0..6 {
        let batch = loader.next_batch().unwrap();
        // Four of 16 places are skipped, the last of them perhaps with the next batch.
        assert!((epoch * 16 + 12..=epoch * 16 + 16).contains(&batch.position.0), "{:?}", batch.position);
        assert_eq!(batch.indices.len(), 12);
        let mut indices = batch.indices.clone();
        indices.sort_unstable();
        // All readable images: "cut" and "empty" come first by name, "noise" and "text" after the good ones.
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
        let config = LoaderConfig { batch: 16, share: Share::WHOLE, seed: 4, reading, views };
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

#[test]
fn an_archive_that_goes_is_lost_and_its_images_are_not_broken() {
    let dir = tempdir().unwrap();
    let members = |name: &str| (0..20u8).map(|i| (format!("{name}{i}.png"), png(i))).collect::<Vec<_>>();
    let write = |name: &str, bytes: Vec<u8>| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet/snappy.parquet");
    let pairs: [[PathBuf; 2]; 4] = [
        [write("a.tar", tar(&members("a"))), write("b.tar", tar(&members("b")))],
        [write("a.tar.gz", gzip(tar(&members("a")))), write("b.tgz", gzip(tar(&members("b"))))],
        [write("a.tar.zst", zstd(tar(&members("a")))), write("c.tar", tar(&members("c")))],
        [write("a.parquet", fs::read(&table).unwrap()), write("b.parquet", fs::read(&table).unwrap())],
    ];
    for gone in 0..2 {
        for paths in &pairs {
            let set = Opener::default().open(paths).unwrap().train;
            let away = dir.path().join("away");
            fs::rename(&paths[gone], &away).unwrap();
            let name = paths[gone].to_string_lossy();
            let is_told = |error: DataError| {
                let text = error.to_string();
                assert!(matches!(error, DataError::Lost { .. }), "{name}: {text}");
                assert!(text.starts_with(&*name) && text.contains("bring back what has gone"), "{text}");
            };
            is_told(
                Loader::new(set.clone(), loading(40, 1, 2), Position::default()).next_batch().unwrap_err(),
            );
            is_told(survey(&*set, 2, false, &|_| ()).unwrap_err());
            fs::rename(&away, &paths[gone]).unwrap();
            let mut scratch = DecodeScratch::default();
            assert!((0..40).all(|index| set.read(index, &mut scratch).is_ok()), "{name}: it is back");
        }
    }
    // A file that is open stays readable.
    let path = write("a.zip", zip(&members("a"), true));
    let set = open(&path).unwrap().train;
    fs::remove_file(&path).unwrap();
    assert_eq!(survey(&*set, 2, false, &|_| ()).unwrap().readable, 20);
}

#[test]
fn an_archive_in_the_place_of_another_is_not_read_as_that() {
    let dir = tempdir().unwrap();
    let members = |name: &str| (0..20u8).map(|i| (format!("{name}{i}.png"), png(i))).collect::<Vec<_>>();
    let [old, new] = [tar(&members("a")), tar(&members("a longer name"))];
    for (name, old, new) in [
        ("a.tar", &old, [new.clone(), new].concat()),
        ("a.tar.gz", &gzip(old.clone()), gzip(tar(&members("b")))),
    ] {
        let [path, away] = [name, "away"].map(|name| dir.path().join(name));
        fs::write(&path, old).unwrap();
        let set = open(&path).unwrap().train;
        fs::rename(&path, &away).unwrap();
        fs::write(&path, new).unwrap();
        let error = survey(&*set, 2, false, &|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, DataError::Lost { .. }), "{name}: {text}");
        assert!(text.contains("has changed since it was opened; ") && text.contains("as it was"), "{text}");
        fs::rename(&away, &path).unwrap();
        let set = open(&path).unwrap().train;
        assert_eq!(survey(&*set, 2, false, &|_| ()).unwrap().readable, 20);
    }
}

/// A sample looks at other images in place of those that cannot be read.
#[test]
fn a_sample_passes_over_them() {
    let every_second: Vec<usize> = (0..64).step_by(2).collect();
    let sample = Sample::of(&*Numbered::new(64, [24, 30], &every_second, 0));
    assert_eq!((sample.images, sample.shorter, sample.longest), (16, 24, 30));
}
