//! `simclr bench views`: reading images and making their views, without a network.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use simclr_augment::{ImageRef, Isa, Recipe, Scratch, Step, Steps, Stream, ViewFamily};
use simclr_data::{Dataset, DecodeScratch, Region, permutation};
use simclr_engine::Level;
use simclr_train::pretrain::RunViews;

use crate::data::{self, Opening};
use crate::exit::Done;
use crate::settings::{Settings, Threads, from_to};
use crate::terminal;

/// The number of images to measure with, used over and over.
const IMAGES: usize = 256;
/// The views of an image.
const VIEWS: u64 = 2;
/// How many images are used to time the stages, and how often.
const TIMED: usize = 64;
const ROUNDS: usize = 7;

/// Time reading, decoding and making two views of each image: images per second, and each stage
#[derive(Args, Debug)]
pub struct Views {
    /// The images, as for pretrain; 256 of them, drawn at random, are used
    #[arg(required = true)]
    data: Vec<PathBuf>,

    /// Side of a view in pixels (data.image_size)
    #[arg(long, value_name = "PIXELS", value_parser = from_to(8_u32, 1024))]
    size: Option<u32>,

    /// How many seconds to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = from_to(1_u8, u8::MAX))]
    seconds: u8,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    settings: Settings,

    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    images_per_s: f64,
    views_per_s: f64,
    threads: usize,
    size: u32,
    images: usize,
    /// The instruction set that the views are made with.
    isa: String,
    /// Microseconds per image for both of its views, by stage.
    stages_us: Stages,
}

#[derive(Serialize)]
struct Stages {
    read_and_decode: f64,
    crop_and_resize: f64,
    color: f64,
    blur: f64,
    other: f64,
}

impl Views {
    pub fn run(mut self) -> Result<Done> {
        let source = Opening::new(&self.settings.data()?, 0).open(&self.data)?;
        if let Some(size) = self.size {
            self.settings.sets.push(format!("data.image_size={size}"));
        }
        let config = self.settings.resolve(&source, Threads::default())?;
        let RunViews { families, left_out } = RunViews::new(&config, source.train.as_ref())?;
        data::say_left_out(&left_out);
        let work = Work {
            dataset: source.train.as_ref(),
            families,
            indices: permutation(source.train.len(), config.train.seed, 0).into_iter().take(IMAGES).collect(),
            seed: config.train.seed,
        };
        let work = work.readable()?;
        let threads = self.threads.counted();
        let stages_us = work.stages()?;
        let images_per_s = work.images_per_s(threads, Duration::from_secs(self.seconds.into()))?;
        self.tell(&Figures {
            images_per_s,
            views_per_s: VIEWS as f64 * images_per_s,
            threads,
            size: config.data.image_size,
            images: work.indices.len(),
            // Views have no code for anything above AVX-512.
            isa: Isa::detect().at_most(Level::Avx512).to_string(),
            stages_us,
        })?;
        Ok(Done::Finished)
    }

    fn tell(&self, figures: &Figures) -> Result<()> {
        if self.json {
            return terminal::print_json(figures);
        }
        let Figures { images_per_s, views_per_s, threads, size, isa, stages_us, .. } = figures;
        terminal::print(&format!(
            "{images_per_s:.1} images/s  {views_per_s:.1} views/s of {size} x {size}, {}, {isa}",
            terminal::counted(*threads, "thread"),
        ))?;
        let Stages { read_and_decode, crop_and_resize, color, blur, other } = stages_us;
        let stages = [
            ("read and decode", read_and_decode),
            ("crop, resize, flip", crop_and_resize),
            ("colour", color),
            ("blur", blur),
            ("other operators", other),
        ];
        terminal::print("microseconds of an image and its two views, on one thread:")?;
        for (stage, time) in stages {
            terminal::print(&format!("  {stage:<18} {time:>8.1}"))?;
        }
        Ok(())
    }
}

/// What to measure with.
struct Work<'a> {
    dataset: &'a dyn Dataset,
    families: [ViewFamily; 2],
    indices: Vec<u32>,
    seed: u64,
}

impl<'a> Work<'a> {
    /// Leaves out images that cannot be read.
    fn readable(mut self) -> Result<Work<'a>> {
        let mut decode = DecodeScratch::default();
        let dataset = self.dataset;
        self.indices.retain(|&index| match dataset.read(index as usize, &mut decode) {
            Ok(_) => true,
            Err(error) => {
                terminal::warn(&format!("passed over {error}"));
                false
            }
        });
        match self.indices.is_empty() {
            true => bail!("none of the images can be read"),
            false => Ok(self),
        }
    }

    fn recipe(&self, image: ImageRef<'_>, index: u32, epoch: u64, branch: usize) -> Recipe {
        let mut stream = Stream::new(self.seed, epoch, index.into(), branch as u64);
        self.families[branch].draw(image.width, image.height, &mut stream)
    }

    /// Reads the part of an image that its views need, as the loader does.
    fn read<'b>(&'b self, index: u32, epoch: u64, scratch: &'b mut DecodeScratch) -> Result<ImageRef<'b>> {
        let needed = |width, height| {
            let [a, b] = [0, 1].map(|branch| {
                let mut stream = Stream::new(self.seed, epoch, index.into(), branch as u64);
                self.families[branch].draw_crop(width, height, &mut stream)
            });
            Region::both(a, b)
        };
        Ok(self.dataset.read_part(index as usize, &needed, scratch)?)
    }

    /// The images per second, with two views each, on `threads` threads.
    fn images_per_s(&self, threads: usize, time: Duration) -> Result<f64> {
        let start = Instant::now();
        let made = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|worker| scope.spawn(move || self.make(worker, threads, start, time)))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or(Ok(0))).sum::<Result<usize>>()
        })?;
        Ok(made as f64 / start.elapsed().as_secs_f64())
    }

    /// Reads every `stride`th image from `first` on and makes its views, over and over. Returns the number of images.
    fn make(&self, first: usize, stride: usize, start: Instant, time: Duration) -> Result<usize> {
        let (mut decode, mut scratch) = (DecodeScratch::default(), Scratch::default());
        let mut out = vec![0; self.families[0].view_len()];
        let mut made = 0;
        while start.elapsed() < time {
            let place = first + made * stride;
            let (index, epoch) = (self.indices[place % self.indices.len()], place / self.indices.len());
            let image = self.read(index, epoch as u64, &mut decode)?;
            for (branch, family) in self.families.iter().enumerate() {
                let recipe = self.recipe(image, index, epoch as u64, branch);
                family.apply(image, &recipe, &mut scratch, &mut out);
                std::hint::black_box(&mut out);
            }
            made += 1;
        }
        Ok(made)
    }

    /// The time of each stage: a view with the operators up to this stage, less one with those before it.
    fn stages(&self) -> Result<Stages> {
        let kinds: [fn(&Step) -> bool; 4] =
            [|_| false, Step::is_color, |step| step.is_color() || step.is_blur(), |_| true];
        let (mut decode, mut scratch) = (DecodeScratch::default(), Scratch::default());
        let mut out = vec![0; self.families[0].view_len()];
        let images = self.indices.len().min(TIMED);
        // The fastest of several rounds: a disturbance rarely lasts for all of them.
        let (mut reading, mut making) = (f64::INFINITY, [f64::INFINITY; 4]);
        for _ in 0..ROUNDS {
            let (mut read, mut made) = (Duration::ZERO, [Duration::ZERO; 4]);
            for &index in &self.indices[..images] {
                let start = Instant::now();
                let image = self.read(index, 0, &mut decode)?;
                read += start.elapsed();
                for (branch, family) in self.families.iter().enumerate() {
                    let recipe = self.recipe(image, index, 0, branch);
                    for (kind, time) in kinds.iter().zip(&mut made) {
                        let steps: Steps = recipe.steps.iter().filter(|step| kind(step)).copied().collect();
                        let recipe = Recipe { steps, ..recipe.clone() };
                        let start = Instant::now();
                        family.apply(image, &recipe, &mut scratch, &mut out);
                        *time += start.elapsed();
                    }
                }
            }
            let us = |time: Duration| time.as_secs_f64() * 1e6 / images as f64;
            reading = reading.min(us(read));
            for (least, time) in making.iter_mut().zip(made) {
                *least = least.min(us(time));
            }
        }
        let [crop, color, blur, all] = making;
        Ok(Stages {
            read_and_decode: reading,
            crop_and_resize: crop,
            color: (color - crop).max(0.0),
            blur: (blur - color).max(0.0),
            other: (all - blur).max(0.0),
        })
    }
}
