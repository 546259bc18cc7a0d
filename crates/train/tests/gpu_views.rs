//! Views made on a GPU, or on its stand-in, against those of the processor: the same images, and the same views up to
//! rounding.

#![cfg(feature = "cuda")]

mod common;
mod on_gpu;
mod watching;

use std::sync::Arc;

use common::run_in;
use on_gpu::gpu;
use simclr_augment::ViewConfig;
use simclr_data::{
    Batch, DataError, Dataset, DecodeScratch, Decoded, Loader, LoaderConfig, Position, Reading, Region, Share,
};
use simclr_engine::{Device, Pixels, SingleProcess};
use simclr_train::checkpoint::Checkpoint;
use simclr_train::file_system::Disk;
use simclr_train::pretrain::{Batches, CapturedStep, Plan, ViewsPlace, Worker, pretrain};
use simclr_train::{Config, TrainError, memory};
use watching::Watch;

const SIDE: u32 = 16;

/// Images of many sizes; every ninth is broken.
struct Sizes(Vec<Vec<u8>>);

impl Sizes {
    fn of(images: usize) -> Arc<dyn Dataset> {
        let image = |index: usize| {
            let (width, height) = Sizes::size(index);
            let value = move |at: usize| {
                let (x, y) = (at / 3 % width as usize, at / 3 / width as usize);
                let wave = (x as f32 * 0.4 + index as f32).sin() * 70.0 + (y as f32 * 0.3).cos() * 40.0;
                (120.0 + wave + (at % 3 * 15 + at * 7 % 11) as f32).clamp(0.0, 255.0) as u8
            };
            (0..3 * (width * height) as usize).map(value).collect()
        };
        Arc::new(Sizes((0..images).map(image).collect()))
    }

    fn size(index: usize) -> (u32, u32) {
        (10 + index as u32 % 37, 60 - index as u32 % 23)
    }
}

impl Dataset for Sizes {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn classes(&self) -> &[String] {
        &[]
    }
    fn label(&self, _: usize) -> Option<u32> {
        None
    }
    fn name(&self, index: usize) -> String {
        format!("image {index}")
    }
    fn read_part<'a>(
        &'a self,
        index: usize,
        _: &dyn Fn(u32, u32) -> Region,
        _: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        if index % 9 == 4 {
            return Err(DataError::Image { name: self.name(index), reason: "torn".to_owned() });
        }
        let (width, height) = Sizes::size(index);
        Ok(Decoded { width, height, pixels: &self.0[index] })
    }
}

fn loader() -> LoaderConfig {
    let config = ViewConfig { blur_prob: Some(0.5), ..ViewConfig::default() };
    LoaderConfig {
        batch: 8,
        share: Share::WHOLE,
        seed: 5,
        reading: Reading { threads: 2, strict: false },
        views: config.families(SIDE).unwrap().to_vec(),
    }
}

/// Takes `count` batches with views made at `place`. Also returns the skipped images and the bytes kept.
fn take(device: &Device, place: &ViewsPlace, start: Position, count: usize) -> (Vec<Batch>, Vec<u32>, usize) {
    let mut batches = Batches::start(Sizes::of(70), loader(), start, device, place).unwrap();
    let side = SIDE as usize;
    let mut pixels = Pixels::new(device, [16, side, side, 3]).unwrap();
    let mut taken = Vec::new();
    for number in 0..count {
        let mut batch = batches.next(Some(&mut pixels)).unwrap();
        // Bring the next batch early, as a run does, or sometimes not, as if the loader were late.
        if number % 3 > 0 {
            batches.bring().unwrap();
        }
        batch.views = pixels.read().unwrap();
        taken.push(batch);
    }
    let skipped = batches.skipped().iter().map(|skipped| skipped.index).collect();
    (taken, skipped, batches.kept())
}

fn assert_same(got: &[Batch], want: &[Batch], what: &str) {
    assert_eq!(got.len(), want.len());
    let (mut sum, mut all) = (0, 0);
    for (number, (got, want)) in got.iter().zip(want).enumerate() {
        let known = |batch: &Batch| (batch.indices.clone(), batch.position);
        assert_eq!(known(got), known(want), "{what}, batch {number}");
        assert_eq!(got.views.len(), want.views.len());
        for (got, want) in got.views.iter().zip(&want.views) {
            let off = got.abs_diff(*want);
            assert!(off <= 1, "{what}, batch {number}: {got} for {want}");
            (sum, all) = (sum + usize::from(off), all + 1);
        }
    }
    assert!(sum * 100 < all, "{what}: {sum} of {all} are off by 1");
}

#[test]
fn the_views_are_those_of_the_processor() {
    let Some((device, _alone)) = gpu(2) else { return };
    let mut loader_of_cpu = Loader::new(Sizes::of(70), loader(), Position::default());
    let want: Vec<Batch> = (0..21).map(|_| loader_of_cpu.next_batch().unwrap()).collect();
    let all: usize = (0..70)
        .filter(|index| index % 9 != 4)
        .map(|index| {
            let (width, height) = Sizes::size(index);
            3 * (width * height) as usize
        })
        .sum();
    for (what, place) in [
        ("on the processor", ViewsPlace::Cpu(None)),
        ("nothing kept", ViewsPlace::Gpu { keeps: 0 }),
        ("all kept", ViewsPlace::Gpu { keeps: 1 << 24 }),
        ("room for some", ViewsPlace::Gpu { keeps: all as u64 / 2 }),
    ] {
        let (got, skipped, kept) = take(&device, &place, Position::default(), 21);
        assert_same(&got, &want, what);
        assert_eq!(skipped.len(), loader_of_cpu.skipped().len(), "{what}");
        match what {
            "all kept" => assert!(kept >= all, "{kept} of {all}"),
            "room for some" => assert!(kept > 0 && kept <= all / 2, "{kept} of {all}"),
            _ => assert_eq!(kept, 0),
        }
        // Start in the middle of the second epoch.
        let (rest, ..) = take(&device, &place, want[9].position, 8);
        assert_same(&rest, &want[10..18], what);
    }
}

fn config(sets: &[&str]) -> Config {
    common::usual(&["data.image_size=8", "data.holdout=0", "train.precision=f32"], sets)
}

/// Trains to the end, with a stop in between if given. Returns the plan and the losses of all steps.
fn train(device: &Device, config: &Config, stop_after: Option<u64>) -> Result<(Plan, Vec<f64>), TrainError> {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch { stop_after, ..Watch::default() };
    let go_on = |from: Option<&Checkpoint>, watch: &mut Watch| {
        let run = run_in(folder.path(), config, from)?;
        pretrain(&Sizes::of(70), config, &run, from, device, watch)
    };
    let outcome = go_on(None, &mut watch)?;
    if watch.stop_after.take().is_some() {
        go_on(Some(&Checkpoint::read(&Disk, &outcome.checkpoint)?), &mut watch)?;
    }
    Ok((watch.plan.unwrap(), watch.steps.iter().map(|step| step.loss).collect()))
}

#[test]
fn a_run_learns_the_same_wherever_its_views_are_made() {
    let Some((device, _alone)) = gpu(2) else { return };
    let on = |place: &str, stop_after| {
        train(&device, &config(&[&format!("data.views_on={place}")]), stop_after).unwrap()
    };
    let ((plan_of_cpu, cpu), (plan_of_gpu, gpu)) = (on("cpu", None), on("gpu", None));
    assert!(matches!(plan_of_cpu.views, ViewsPlace::Cpu(Some(_))));
    assert!(matches!(plan_of_gpu.views, ViewsPlace::Gpu { keeps: 1.. }));
    assert_eq!(cpu.len(), 8);
    for (step, (got, want)) in gpu.iter().zip(&cpu).enumerate() {
        assert!((got - want).abs() < 2e-2 * want, "step {step}: {got} for {want}");
    }
    // Stopping and resuming in the middle of an epoch, with no images kept yet, gives the same bits.
    assert_eq!(on("gpu", Some(3)).1, gpu);
}

#[test]
fn what_images_take_of_the_gpu_is_foreseen() {
    for (what, keeps) in [("cpu", 0), ("gpu", 0), ("gpu", 1 << 30)] {
        let Some((device, _alone)) = gpu(2) else { return };
        let config = config(&[&format!("data.views_on={what}"), "data.image_size=16"]);
        let images = Sizes::of(70);
        let mut model = simclr_train::Model::new(&config, &device).unwrap();
        let mut optimizer = simclr_train::optim::Optimizer::new(&config.optim, &model.parameters).unwrap();
        let sizes = memory::Images::of(&config, &device, &*images, Worker::ALONE);
        let choice = memory::choose(&model, &optimizer, &config, &sizes, Worker::ALONE).unwrap();
        let place = match what {
            "cpu" => ViewsPlace::Cpu(None),
            _ => ViewsPlace::Gpu { keeps },
        };
        let predicted = choice.needs.state + choice.needs.loader + place.to_keep(&sizes);

        let mut batches = Batches::start(
            images,
            LoaderConfig { batch: config.train.batch, ..loader() },
            Position::default(),
            &device,
            &place,
        )
        .unwrap();
        let mut captured = CapturedStep::new(&model, 2 * config.train.batch).unwrap();
        for _ in 0..5 {
            let batch = batches.next(Some(captured.pixels())).unwrap();
            captured.step(&mut model, &mut optimizer, &config.loss, &SingleProcess, 0.01).unwrap();
            batches.recycle(batch);
            batches.bring().unwrap();
        }
        assert_eq!(batches.kept() > 0, keeps > 0);
        let measured = device.memory().peak as u64;
        let ratio = predicted as f64 / measured as f64;
        assert!((0.97..1.3).contains(&ratio), "{what}, {keeps}: {predicted} for {measured}");
        // The step has its own memory pool, which grows in units of 64 MiB.
        let (step, held) = (choice.needs.step + choice.needs.kernels, captured.held() as u64);
        assert!(held <= step + (64 << 20), "{what}: {step} for {held}");
    }
}

#[test]
fn what_a_gpu_takes_beyond_the_tensors_of_a_processor_is_foreseen() {
    let Some((device, _alone)) = gpu(2) else { return };
    for (precision, of_16_bits) in [("f32", false), ("tf32", false), ("bf16", true), ("fp16", true)] {
        let config = config(&[&format!("train.precision={precision}"), "train.memory=full"]);
        let model = simclr_train::Model::new(&config, &device).unwrap();
        let optimizer = simclr_train::optim::Optimizer::new(&config.optim, &model.parameters).unwrap();
        let choice =
            memory::choose(&model, &optimizer, &config, &memory::Images::default(), Worker::ALONE).unwrap();
        let (kept, batch) = (choice.memory, config.train.batch);
        let on_cpu = memory::step_use(&model, &optimizer, &config, kept, batch).unwrap().held as u64;
        let step = on_cpu - choice.needs.state;
        let margin = if of_16_bits { step / 16 } else { 0 };
        assert_eq!((choice.needs.step, choice.needs.libraries), (step + margin, 512 << 20), "{precision}");
    }
}

#[test]
fn views_of_images_that_are_too_large_for_a_gpu_are_made_on_the_processor() {
    let Some((device, _alone)) = gpu(2) else { return };
    let total = device.total_bytes().unwrap().unwrap();
    let choice = |place: &str, each| {
        let config = config(&[&format!("data.views_on={place}")]);
        let model = simclr_train::Model::new(&config, &device).unwrap();
        let optimizer = simclr_train::optim::Optimizer::new(&config.optim, &model.parameters).unwrap();
        let images = memory::Images { each, longest: 60, ..memory::Images::default() };
        let choice = memory::choose(&model, &optimizer, &config, &images, Worker::ALONE)?;
        let (families, batch) = (config.view.families(8).unwrap(), config.train.batch);
        let seen = Sizes::of(70);
        let decided = ViewsPlace::decide(&config, &device, &families, &*seen, &choice, &images, batch)?;
        Ok::<_, TrainError>((choice.needs.loader, decided))
    };
    let batch = config(&[]).train.batch as u64;
    let (large, small) = (total / 2 / batch, 3000);
    assert!(matches!(choice("auto", small).unwrap().1, ViewsPlace::Gpu { .. }));
    // The plan counts no images then.
    let (loader, place) = choice("auto", large).unwrap();
    assert!(loader < large && place.to_string().contains("data.shrink"), "{loader} {place}");
    let error = choice("gpu", large).unwrap_err().to_string();
    assert!(error.contains("data.views_on=cpu, or data.shrink"), "{error}");
}

#[test]
fn what_a_gpu_cannot_make_is_made_on_the_processor() {
    let refused = |device: &Device, config: &Config| {
        let error = train(device, config, None).expect_err("it is refused").to_string();
        assert!(error.contains("data.views_on is \"gpu\""), "{error}");
        error
    };
    let cpu = Device::cpu(1).unwrap();
    assert!(refused(&cpu, &config(&["data.views_on=gpu"])).contains("the run is on cpu"));
    let Some((device, _alone)) = gpu(2) else { return };
    let rotated = "view.a=[{ op = \"random_resized_crop\" }, { op = \"rotation\" }]";
    let place = |sets: &[&str]| {
        let config = config(sets);
        let families = config.view.families(8).unwrap();
        let model = simclr_train::Model::new(&config, &device).unwrap();
        let optimizer = simclr_train::optim::Optimizer::new(&config.optim, &model.parameters).unwrap();
        let choice =
            memory::choose(&model, &optimizer, &config, &memory::Images::default(), Worker::ALONE).unwrap();
        let (images, batch) = (Sizes::of(70), config.train.batch);
        let sizes = memory::Images::look(&*images);
        ViewsPlace::decide(&config, &device, &families, &*images, &choice, &sizes, batch)
    };
    let told = place(&[rotated]).unwrap().to_string();
    assert!(told.contains("on the processor") && told.contains("rotation"), "{told}");
    let error = place(&[rotated, "data.views_on=gpu"]).unwrap_err().to_string();
    assert!(error.contains("a GPU cannot make rotation"), "{error}");
    assert!(matches!(place(&[]).unwrap(), ViewsPlace::Gpu { keeps: 1.. }));
}
