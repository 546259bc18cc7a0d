//! Decoding only the parts that views look at gives the same views.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{damaged_jpegs, loading};
use simclr_augment::{CropBox, ViewConfig, ViewFamily};
use simclr_data::{
    Batch, Cached, Dataset, DecodeOptions, DecodeScratch, DiskBudget, EvalLoader, Loader, LoaderConfig,
    Opener, Position, Reading, Share, Skipped, Window, decode_file, decode_part, open,
};

/// A folder of the JPEG files in `golden`: colour and grey, several samplings, progressive, every orientation.
fn folder() -> tempfile::TempDir {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "jpg") {
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    folder
}

fn views(set: Arc<dyn Dataset>) -> Vec<Vec<u8>> {
    let family = ViewFamily::first_branch(&ViewConfig::default(), 12).unwrap();
    let config = LoaderConfig {
        batch: 4,
        share: Share::WHOLE,
        seed: 3,
        reading: Reading { threads: 2, strict: false },
        views: vec![family.clone(), family],
    };
    let mut loader = Loader::new(set, config, Position::default());
    let views = (0..12).map(|_| loader.next_batch().unwrap().views).collect();
    assert!(loader.skipped().is_empty());
    views
}

fn crops(set: Arc<dyn Dataset>) -> Vec<Vec<u8>> {
    let mut loader = EvalLoader::new(set, 40, 5, Reading { threads: 2, strict: false });
    std::iter::from_fn(|| loader.next_batch().unwrap()).map(|batch| batch.views).collect()
}

#[test]
fn views_of_parts_are_those_of_whole_images() {
    let folder = folder();
    for window in [Window::Full, Window::Image] {
        let decode = DecodeOptions { window, ..DecodeOptions::default() };
        let set =
            Opener { decode, ..Opener::default() }.open(&[folder.path().to_owned()]).unwrap().to_pretrain();
        // Images that are kept are read whole; of those without room, parts.
        let kept: Arc<dyn Dataset> = Arc::new(Cached::in_memory(Arc::clone(&set), 1 << 20));
        let full = Arc::new(Cached::in_memory(Arc::clone(&set), 5000));
        let (all, evaluation) = (views(Arc::clone(&kept)), crops(Arc::clone(&kept)));
        for other in [set, full.clone() as Arc<dyn Dataset>] {
            assert_eq!(views(Arc::clone(&other)), all);
            assert_eq!(crops(other), evaluation);
        }
        assert!((1..=5000).contains(&full.used_bytes()));
    }
}

/// Batches of some epochs, and the images skipped in them or soon after.
fn loaded(set: Arc<dyn Dataset>, threads: usize) -> (Vec<Batch>, Vec<Skipped>) {
    let mut loader = Loader::new(set, loading(7, 3, threads), Position::default());
    let mut next = || Batch { waited: Default::default(), ..loader.next_batch().unwrap() };
    let batches = (0..30).map(|_| next()).collect();
    (batches, loader.skipped())
}

#[test]
fn what_is_kept_does_not_decide_which_images_are_broken() {
    let folder = damaged_jpegs();
    let set = open(folder.path()).unwrap().to_pretrain();
    let (expected, skipped) = loaded(Arc::clone(&set), 2);
    let is_used = |index: u32| expected.iter().any(|batch| batch.indices.contains(&index));
    assert!(skipped.iter().any(|skipped| is_used(skipped.index)), "it depends on the crop");
    let evaluation = crops(Arc::clone(&set));
    let bytes = 3 * 24 * 16;
    for threads in [1, 2, 5] {
        for images in [1, 3, 6, 100] {
            let (dir, decode) = (tempfile::tempdir().unwrap(), DecodeOptions::default());
            let on_disk = || {
                let budget = DiskBudget { bytes: images * (bytes + 24), spare: 0 };
                Cached::on_disk(Arc::clone(&set), &decode, budget, &dir.path().join("cache")).unwrap()
            };
            for cached in [Cached::in_memory(Arc::clone(&set), images * bytes), on_disk(), on_disk()] {
                let cached = Arc::new(cached);
                assert!(loaded(cached.clone(), threads).0 == expected, "{threads} threads, {images} images");
                assert_eq!(crops(cached.clone()), evaluation);
                assert!(cached.used_bytes() >= bytes);
            }
        }
    }
}

#[test]
fn a_part_is_the_same_whichever_way_the_image_is_turned() {
    let folder = folder();
    let mut whole = DecodeScratch::default();
    let options = DecodeOptions::default();
    let mut untouched = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let image = decode_file(&path, &options, &mut whole).unwrap();
        for crop in [(0, 0, 5, 3), (13, 2, 11, 14), (8, 15, 1, 1), (23, 0, 1, 16)] {
            let (left, top, width, height) = crop;
            let crop = CropBox { left, top, width, height };
            // No pixels of an image decoded earlier may be taken for this one's.
            let mut part = DecodeScratch::default();
            let needed = |w: u32, h: u32| {
                assert_eq!((w, h), (image.width, image.height));
                crop.into()
            };
            let seen = decode_part("x", &bytes, &options, &needed, &mut part).unwrap();
            assert_eq!(seen.pixels.len(), image.pixels.len());
            let mut different = false;
            for (at, (a, b)) in seen.pixels.iter().zip(image.pixels).enumerate() {
                let (x, y) = ((at / 3) as u32 % image.width, (at / 3) as u32 / image.width);
                let inside = (left..left + width).contains(&x) && (top..top + height).contains(&y);
                assert!(!inside || a == b, "{}: ({x}, {y}) of {crop:?}", path.display());
                different |= a != b;
            }
            untouched += u32::from(different);
        }
    }
    // For most files, the rest was not decoded.
    assert!(untouched > 20, "{untouched}");
}
