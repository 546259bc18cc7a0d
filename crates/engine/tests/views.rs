//! Views made on a GPU, or on a stand-in for one, against those of the CPU.

#![cfg(feature = "cuda")]

mod common;

use simclr_augment::{ImageRef, Recipe, Scratch, Stream, ViewConfig, ViewFamily, ViewOp, ViewPreset};
use simclr_engine::{Device, KeptAt, Pixels, Source, ViewMaker, impossible_on_gpu};

const SIDE: u32 = 24;

fn family() -> ViewFamily {
    let config = ViewConfig { blur_prob: Some(0.5), color_strength: 0.5, ..ViewConfig::default() };
    ViewFamily::first_branch(&config, SIDE).unwrap()
}

/// Decoded images one after another: the start, width and height of each.
struct Images {
    bytes: Vec<u8>,
    places: Vec<(usize, u32, u32)>,
}

impl Images {
    /// Some images of many sizes; how many depends on `batch`.
    fn of(batch: usize) -> Images {
        let mut images = Images { bytes: Vec::new(), places: Vec::new() };
        for i in 0..5 + batch as u32 {
            let (width, height) = (7 + 13 * i, 60 - 5 * i);
            images.places.push((images.bytes.len(), width, height));
            let wave = |at: u32| {
                let (x, y) = (at / 3 % width, at / 3 / width);
                let value = (x as f32 * 0.3 + batch as f32).sin() * 60.0 + (y as f32 * 0.2).cos() * 60.0;
                (128.0 + value + (at % 3 * 20 + at * 7 % 13) as f32).clamp(0.0, 255.0) as u8
            };
            images.bytes.extend((0..3 * width * height).map(wave));
        }
        images
    }

    fn recipes(&self, epoch: u64) -> Vec<Recipe> {
        let draw = |(i, &(_, width, height)): (usize, &(usize, u32, u32))| {
            family().draw(width, height, &mut Stream::new(9, epoch, i as u64, 0))
        };
        self.places.iter().enumerate().map(draw).collect()
    }

    fn views(&self, recipes: &[Recipe]) -> Vec<u8> {
        let family = family();
        let (mut views, mut scratch) = (vec![0; recipes.len() * family.view_len()], Scratch::default());
        let outs = views.chunks_exact_mut(family.view_len());
        for ((&(at, width, height), recipe), out) in self.places.iter().zip(recipes).zip(outs) {
            let pixels = &self.bytes[at..at + 3 * (width * height) as usize];
            family.apply(ImageRef::new(width, height, pixels).unwrap(), recipe, &mut scratch, out);
        }
        views
    }

    fn send(&self, maker: &mut ViewMaker, recipes: &[Recipe], kept: Option<KeptAt>) {
        let pixels = if kept.is_some() { &[][..] } else { &self.bytes };
        let sources = self.places.iter().map(|&(at, ..)| match kept {
            Some(kept) => Source::Kept(kept.after(at)),
            None => Source::Sent(at),
        });
        maker.send(pixels, recipes.len(), sources.zip(recipes)).unwrap();
    }

    fn room(&self, device: &Device) -> Pixels {
        Pixels::new(device, [self.places.len(), SIDE as usize, SIDE as usize, 3]).unwrap()
    }
}

fn assert_same(got: &[u8], want: &[u8], what: &str) {
    let differences = || got.iter().zip(want).map(|(a, b)| a.abs_diff(*b));
    let (most, sum) = (differences().max().unwrap(), differences().map(f64::from).sum::<f64>());
    assert!(got.len() == want.len() && most <= 1, "{what}: off by {most}");
    assert!(sum < 1e-2 * want.len() as f64, "{what}: off by {:.4} on average", sum / want.len() as f64);
}

#[test]
fn views_are_those_of_the_cpu_wherever_their_images_are() {
    let Some((device, _alone)) = common::gpu() else { return };
    let mut maker = ViewMaker::new(&device, 1 << 20).unwrap();
    let batches: Vec<Images> = (0..4).map(Images::of).collect();
    let mut kept = Vec::new();
    // One batch ahead, as in a run; only the first epoch sends the images.
    for epoch in 0..3 {
        let mut pending: Option<(usize, Vec<Recipe>, Pixels)> = None;
        let mut finished = Vec::new();
        for (number, images) in batches.iter().enumerate() {
            let recipes = images.recipes(epoch);
            images.send(&mut maker, &recipes, kept.get(number).copied().filter(|_| epoch > 0));
            if let Some((before, recipes, mut out)) = pending.replace((number, recipes, images.room(&device)))
            {
                let at = maker.make(epoch == 0, &mut out).unwrap();
                kept.extend(at);
                finished.push((before, recipes, out));
            }
        }
        let (before, recipes, mut out) = pending.unwrap();
        kept.extend(maker.make(epoch == 0, &mut out).unwrap());
        finished.push((before, recipes, out));
        assert_eq!(kept.len(), 4);
        for (number, recipes, out) in finished {
            let want = batches[number].views(&recipes);
            assert_same(&out.read().unwrap(), &want, &format!("epoch {epoch}, batch {number}"));
        }
    }
    assert!(maker.kept() >= batches.iter().map(|images| images.bytes.len()).sum());
}

#[test]
fn no_more_is_kept_than_there_is_room_for() {
    let Some((device, _alone)) = common::gpu() else { return };
    let (first, second) = (Images::of(0), Images::of(1));
    let mut maker = ViewMaker::new(&device, first.bytes.len() + 300).unwrap();
    let mut kept = Vec::new();
    for images in [&first, &second] {
        let recipes = images.recipes(0);
        images.send(&mut maker, &recipes, None);
        let mut out = images.room(&device);
        kept.push(maker.make(true, &mut out).unwrap());
        assert_same(&out.read().unwrap(), &images.views(&recipes), "made");
    }
    assert!(kept[0].is_some() && kept[1].is_none());
}

#[test]
fn misuse_is_refused() {
    assert!(ViewMaker::new(&common::device(), 0).is_err());
    let Some((device, _alone)) = common::gpu() else { return };
    let mut maker = ViewMaker::new(&device, 0).unwrap();
    let mut out = Pixels::new(&device, [1, 8, 8, 3]).unwrap();
    let recipe = Recipe::identity(4, 4);
    let says = |error: Option<simclr_engine::EngineError>, words: &str| {
        let error = error.expect("it is refused").to_string();
        assert!(error.contains(words), "{error}");
    };
    says(maker.make(false, &mut out).err(), "none are under way");
    let mut send = |at: usize| maker.send(&[0; 50], 1, [(Source::Sent(at), &recipe)].into_iter());
    says(send(3).err(), "does not lie within 50 bytes");
    send(2).unwrap();
    send(0).unwrap();
    says(send(0).err(), "two batches are under way");
    says(maker.make(false, &mut Pixels::new(&device, [2, 8, 8, 3]).unwrap()).err(), "192 are needed");
    says(maker.make(false, &mut Pixels::new(&common::device(), [1, 8, 8, 3]).unwrap()).err(), "views");
    maker.make(false, &mut out).unwrap();
}

#[test]
fn what_a_gpu_cannot_make_is_known_before() {
    let of = |preset| {
        let config = ViewConfig { preset, ..ViewConfig::default() };
        config.families(96).unwrap().iter().find_map(impossible_on_gpu)
    };
    for preset in [ViewPreset::None, ViewPreset::Simclr, ViewPreset::SimclrV1, ViewPreset::CropOnly] {
        assert_eq!(of(preset), None, "{preset:?}");
    }
    let list = |ops: &[ViewOp]| impossible_on_gpu(&ViewFamily::from_ops(ops, 96).unwrap());
    assert_eq!(list(&[ViewOp::Rotation(Default::default())]), Some("rotation"));
    let (blur, jitter) = (ViewOp::GaussianBlur(Default::default()), ViewOp::ColorJitter(Default::default()));
    assert_eq!(list(&[jitter.clone(), blur.clone()]), None);
    assert_eq!(list(&[blur.clone(), jitter]), Some("colour jitter after a blur"));
    assert_eq!(list(&[blur.clone(), blur]), Some("a second blur"));
}
