//! Views made on a GPU, or on what stands in for one, against those of the processor: the same images, the same
//! views but for rounding.

#![cfg(feature = "cuda")]

mod common;
mod on_gpu;

use std::sync::Arc;

use on_gpu::gpu;
use simclr_augment::ViewConfig;
use simclr_data::{
    Batch, DataError, Dataset, DecodeScratch, Decoded, Loader, LoaderConfig, Position, Reading, Region, Share,
};
use simclr_engine::{Device, Pixels, SingleProcess};
use simclr_train::file_system::Disk;
use simclr_train::pretrain::{
    Batches, CapturedStep, EpochRecord, Observer, Part, Plan, StepRecord, ViewsPlace, pretrain,
};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, TrainError, memory};

const SIDE: u32 = 16;

/// Images of many sizes, of which every ninth is broken.
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

/// `count` batches with their views, made at `place`, and what else is known: images skipped, bytes kept.
fn take(device: &Device, place: &ViewsPlace, start: Position, count: usize) -> (Vec<Batch>, Vec<u32>, usize) {
    let mut batches = Batches::start(Sizes::of(70), loader(), start, device, place).unwrap();
    let side = SIDE as usize;
    let mut pixels = Pixels::new(device, [16, side, side, 3]).unwrap();
    let mut taken = Vec::new();
    for number in 0..count {
        let mut batch = batches.next(Some(&mut pixels)).unwrap();
        // As a run does, or as one that is behind does.
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
        // Begun in the middle of the second epoch.
        let (rest, ..) = take(&device, &place, want[9].position, 8);
        assert_same(&rest, &want[10..18], what);
    }
}

/// Watches, and stops after a number of steps.
#[derive(Default)]
struct Watch {
    stop_after: Option<u64>,
    plan: Option<Plan>,
    losses: Vec<f64>,
}

impl Observer for Watch {
    fn started(&mut self, plan: &Plan) {
        self.plan = Some(plan.clone());
    }
    fn step(&mut self, record: &StepRecord) {
        self.losses.push(record.loss);
    }
    fn epoch(&mut self, _: &EpochRecord) {}
    fn warn(&mut self, _: &str) {}
    fn stop(&self) -> bool {
        self.stop_after.is_some_and(|steps| self.losses.len() as u64 >= steps)
    }
}

fn config(sets: &[&str]) -> Config {
    let usual = [
        "data.image_size=8",
        "data.holdout=0",
        "encoder.width=0.0625",
        "train.batch=16",
        "train.epochs=2",
        "train.precision=f32",
        "optim.warmup_epochs=0.5",
        "train.log_every=1",
    ];
    common::small(&usual, sets).unwrap()
}

fn train(device: &Device, config: &Config, stop_after: Option<u64>) -> Result<Watch, TrainError> {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch { stop_after, ..Watch::default() };
    let run = RunFolder::create(folder.path(), config)?;
    let outcome = pretrain(&Sizes::of(70), config, &run, None, device, &mut watch)?;
    if stop_after.is_some() {
        drop(run);
        let (run, _) = RunFolder::resume(folder.path())?;
        let from = simclr_train::checkpoint::Checkpoint::read(&Disk, &outcome.checkpoint)?;
        watch.stop_after = None;
        pretrain(&Sizes::of(70), config, &run, Some(&from), device, &mut watch)?;
    }
    Ok(watch)
}

#[test]
fn a_run_learns_the_same_wherever_its_views_are_made() {
    let Some((device, _alone)) = gpu(2) else { return };
    let on = |place: &str, stop_after| {
        train(&device, &config(&[&format!("data.views_on={place}")]), stop_after).unwrap()
    };
    let (cpu, gpu) = (on("cpu", None), on("gpu", None));
    assert!(matches!(cpu.plan.unwrap().views, ViewsPlace::Cpu(Some(_))));
    assert!(matches!(gpu.plan.unwrap().views, ViewsPlace::Gpu { keeps: 1.. }));
    assert_eq!(cpu.losses.len(), 8);
    for (step, (got, want)) in gpu.losses.iter().zip(&cpu.losses).enumerate() {
        assert!((got - want).abs() < 2e-2 * want, "step {step}: {got} for {want}");
    }
    // Stopped in the middle of an epoch and taken up again, with nothing kept yet: the same bits.
    assert_eq!(on("gpu", Some(3)).losses, gpu.losses);
}

#[test]
fn what_images_take_of_the_gpu_is_foreseen() {
    for (what, keeps) in [("cpu", 0), ("gpu", 0), ("gpu", 1 << 30)] {
        let Some((device, _alone)) = gpu(2) else { return };
        let config = config(&[&format!("data.views_on={what}"), "data.image_size=16"]);
        let images = Sizes::of(70);
        let mut model = simclr_train::Model::new(&config, &device).unwrap();
        let mut optimizer = simclr_train::optim::Optimizer::new(&config.optim, &model.parameters).unwrap();
        let sizes = memory::Images::of(&config, &device, &*images);
        let choice = memory::choose((&model, &optimizer), &config, &sizes, Part::WHOLE).unwrap();
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
        // The step has a pool of its own, which grows by 64 MiB.
        let (step, held) = (choice.needs.step + choice.needs.kernels, captured.held() as u64);
        assert!(held <= step + (64 << 20), "{what}: {step} for {held}");
    }
}

#[test]
fn what_a_gpu_cannot_make_is_made_on_the_processor() {
    let refused = |device: &Device, config: &Config| {
        let error = train(device, config, None).err().expect("it is refused").to_string();
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
            memory::choose((&model, &optimizer), &config, &memory::Images::default(), Part::WHOLE).unwrap();
        ViewsPlace::decide(&config, &device, &families, &*Sizes::of(70), &choice)
    };
    let told = place(&[rotated]).unwrap().to_string();
    assert!(told.contains("on the processor") && told.contains("rotation"), "{told}");
    let error = place(&[rotated, "data.views_on=gpu"]).unwrap_err().to_string();
    assert!(error.contains("a GPU cannot make rotation"), "{error}");
    assert!(matches!(place(&[]).unwrap(), ViewsPlace::Gpu { keeps: 1.. }));
}
