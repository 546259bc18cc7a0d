//! `simclr quickstart`: the whole workflow in minutes and without data: made images, pretraining, evaluation, report.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use simclr_data::{Source, Synthetic, synthetic};
use simclr_eval::protocols::{
    self, Evaluation, LogisticOptions, Origin, Splits, TrainedEncoder, Versus, kept_in_memory, random_encoder,
};
use simclr_exchange::write_encoder;
use simclr_metrics::Knn;
use simclr_train::config::KEYS;
use simclr_train::pretrain::Identity;
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Layers, TrainError};

use crate::encoding::load_encoder;
use crate::evaluation_progress::EvaluationProgress;
use crate::exit::{Done, usage};
use crate::interrupt;
use crate::settings::{OnDevice, Settings, Threads, from_to, resolve_for, seed, suggesting};
use crate::terminal;
use crate::training::{self, Training};
use crate::workers::Rendezvous;

/// How many images there are to train on for each one to test on.
const PER_TEST_IMAGE: usize = 4;

/// Images to train on.
const IMAGES: u32 = 6000;

/// What differs from the preset `small`. The objects fill much of these images, so smaller crops would often show none
/// of them. AdamW gets further than LARS in a few hundred steps of small batches.
const DIFFERENCES: [&str; 9] = [
    "view.crop_area=[0.3, 1.0]",
    "loss.temperature=0.2",
    "optim.name=adamw",
    "optim.rate=0.002",
    "train.batch=128",
    "train.epochs=13",
    "train.knn_every=2",
    "data.holdout=512",
    "data.cache=ram",
];

const ABOUT: &str = "\
Draws images of objects whose class is their shape (colour, texture, size, position, angle and light vary at \
random), pretrains a small encoder on them without labels, and compares what it has learnt with the same \
network with random weights. Leaves a run folder and a report to open in a browser.";

/// See it work in minutes, from drawing images to a report; needs no data
#[derive(Args, Debug)]
#[command(after_help = ABOUT)]
pub struct Quickstart {
    /// The run folder, new or empty
    #[arg(long, value_name = "RUN", default_value = "runs/quickstart")]
    out: PathBuf,

    /// Replace the run in the folder, if there is one, of an earlier quickstart
    #[arg(long, conflicts_with = "resume")]
    force: bool,

    /// Continue an interrupted quickstart
    #[arg(long)]
    resume: bool,

    /// Number of images to draw and train on [default: 6000; with --resume, as many as before]
    #[arg(long, value_name = "N", value_parser = from_to(100_u32, 1_000_000))]
    images: Option<u32>,

    /// Set a key, such as train.epochs=20; several may follow
    #[arg(
        long = "set",
        value_name = "KEY=VALUE",
        value_parser = suggesting(KEYS.iter().map(|key| key.path)),
        hide_possible_values = true
    )]
    sets: Vec<String>,

    /// Seed for everything
    #[arg(long, value_name = "N", value_parser = seed)]
    seed: Option<u64>,

    #[command(flatten)]
    threads: Threads,

    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

impl Quickstart {
    pub fn run(mut self) -> Result<Done> {
        let started = Instant::now();
        let training = self.training()?;
        self.check_images(&training)?;
        let before = training.saved().and_then(|meta| u32::try_from(meta.images).ok());
        self.images = self.images.or(before);
        let source = self.source(&training.config);
        terminal::say(&format!(
            "made images: {} of {} classes, {} more to test on",
            terminal::grouped(source.train.len() as u64),
            source.train.classes().len(),
            terminal::grouped(source.test.as_ref().map_or(0, |test| test.len()) as u64),
        ));
        if training.is_finished() {
            training.complete()?;
        } else {
            let outcome = training.go(&source.train, &Rendezvous::ALONE, &self.resume_command())?;
            if !outcome.finished {
                terminal::say(&format!("stopped after step {}, saved", terminal::grouped(outcome.step)));
                terminal::say(&format!("continue with: {}", self.resume_command()));
                return Ok(Done::Interrupted);
            }
            write_encoder(&training.folder, &outcome.checkpoint)?;
            if interrupt::requested() {
                terminal::say(&format!(
                    "stopped after training, saved; continue with: {}",
                    self.resume_command()
                ));
                return Ok(Done::Interrupted);
            }
        }
        let measured = self.measure(&source, &training.config)?;
        self.conclude(&measured, started)?;
        Ok(Done::Finished)
    }

    /// Rejects a run on other images than a quickstart makes: measuring it on made images would replace the results on
    /// its own.
    fn check_images(&self, training: &Training) -> Result<()> {
        let out = self.out.display();
        let is_ours = match training.saved() {
            // However many images there are, their names say whether they were made.
            Some(meta) => Identity::of(&Synthetic::new(meta.images as usize, 1, 0)).problem(meta).is_none(),
            // Before the first checkpoint, only a run of pretrain has an index of its data.
            None => !training.folder.index().exists(),
        };
        if !is_ours {
            return Err(usage(format!(
                "--resume: {out} is a run of pretrain; continue with: simclr pretrain DATA --out {} --resume",
                terminal::quoted_path(&self.out)
            )));
        }
        match training.saved().map(|meta| meta.images).zip(self.images) {
            Some((images, asked)) if images != u64::from(asked) => Err(usage(format!(
                "--images {asked}: {out} was trained on {images}; leave it out, or give --images {images}"
            ))),
            _ => Ok(()),
        }
    }

    fn training(&self) -> Result<Training> {
        let settings = Settings { sets: self.sets.clone(), seed: self.seed, ..Settings::default() };
        settings.check_options(self.threads, OnDevice::default(), None)?;
        if self.resume {
            return training::resume(&self.out, |resumed| settings.resolve_resumed(resumed, self.threads));
        }
        let replaces = RunFolder::exists(&self.out);
        if replaces && !self.force {
            return Err(usage(format!(
                "{} already holds a run; --force replaces it, --resume goes on with one that was interrupted, \
                     --out takes another folder",
                self.out.display()
            )));
        }
        if replaces && RunFolder::has_source(&self.out) {
            return Err(usage(format!(
                "--force: {} is a run on data of yours, made by pretrain or import, which quickstart does not replace; \
                 --out takes another folder",
                self.out.display()
            )));
        }
        let config = self.config()?;
        if replaces {
            training::check_unneeded(&self.out, &config, &[])?;
            training::remove(&self.out, &config, &self.source(&config).train)?;
        }
        training::begin(&self.out, config)
    }

    fn config(&self) -> Result<Config, TrainError> {
        let mut sets: Vec<String> = DIFFERENCES.map(str::to_owned).to_vec();
        sets.extend(self.sets.iter().cloned());
        sets.extend(self.seed.map(|seed| format!("train.seed={seed}")));
        sets.extend(self.threads.threads.map(|threads| format!("train.threads={threads}")));
        let layers = Layers { preset: Some("small"), sets: &sets, ..Layers::default() };
        resolve_for(&layers, &Synthetic::new(self.images.unwrap_or(IMAGES) as usize, 1, 0))
    }

    fn source(&self, config: &Config) -> Source {
        let images = self.images.unwrap_or(IMAGES) as usize;
        let source = synthetic(images, images / PER_TEST_IMAGE, config.data.image_size, config.train.seed);
        Source { train: kept_in_memory(source.train), test: source.test.map(kept_in_memory), ..source }
    }

    fn measure(&self, source: &Source, config: &Config) -> Result<Measured> {
        let device = training::device_of(config)?;
        let encoder = load_encoder(&self.out, false, &device)?;
        let test = source.test.clone().unwrap_or_else(|| source.train.clone());
        let splits = Splits::new(source.train.clone(), test)?;
        let mut progress = EvaluationProgress::default();
        let mut watch = |report| progress.see(report);
        let random = random_encoder(&encoder.config, splits.train(), &device, &mut watch)?;
        let models = Versus { trained: encoder.model.clone(), random: Some(random) };
        let encoded = protocols::encode(&models, &splits, true, &mut watch)?;
        let mut knn = protocols::knn(&encoded, &Knn::among(splits.train().len()))?;
        let mut linear = protocols::logistic(&device, &encoded, &LogisticOptions::default(), &mut watch)?;
        drop(progress);
        let made = || "drawn shapes".to_owned();
        let origin = Origin { train: made(), test: made(), folder: None, set_apart: false, shared: 0 };
        knn.data = Some(origin.clone());
        linear.data = Some(origin);
        encoder.record(&mut knn)?;
        encoder.record(&mut linear)?;

        let pictures = protocols::pictures(&encoded.trained, &splits, &encoder)?;
        let TrainedEncoder { run, config, .. } = &encoder;
        let page = run.report();
        protocols::write_report(&protocols::assemble_report(run, config, pictures)?, &page)?;
        Ok(Measured { knn, linear, page })
    }

    fn conclude(&self, measured: &Measured, started: Instant) -> Result<()> {
        let Measured { knn, linear, page } = measured;
        let seconds = started.elapsed();
        if self.json {
            let random = |of: &Evaluation| of.random.as_ref().map(|random| random.top1);
            let object = json!({
                "top1": linear.trained.top1,
                "random_top1": random(linear),
                "knn_top1": knn.trained.top1,
                "random_knn_top1": random(knn),
                "seconds": seconds.as_secs_f64(),
            });
            terminal::print_json(&object)?;
        } else {
            terminal::print(&format!("{:<16} {:>8} {:>8}", "accuracy", "kNN", "linear"))?;
            let line = |name: &str, knn: f64, linear: f64| {
                format!("{name:<16} {:>8} {:>8}", terminal::percent(knn), terminal::percent(linear))
            };
            terminal::print(&line("SimCLR", knn.trained.top1, linear.trained.top1))?;
            if let (Some(knn), Some(linear)) = (&knn.random, &linear.random) {
                terminal::print(&line("random encoder", knn.top1, linear.top1))?;
            }
            terminal::print(&line("guessing", 1.0 / knn.classes as f64, 1.0 / linear.classes as f64))?;
        }
        terminal::say(&format!("all of it took {}", terminal::clock(seconds)));
        terminal::say(&format!("open {} in a browser; the run is in {}", page.display(), self.out.display()));
        terminal::say("next, your own images: simclr pretrain PHOTOS --out runs/first --preset photos");
        Ok(())
    }

    /// The command that continues this quickstart. Given the number of images, the same ones are made again.
    fn resume_command(&self) -> String {
        let mut command = format!("simclr quickstart --out {} --resume", terminal::quoted_path(&self.out));
        if let Some(images) = self.images.filter(|&images| images != IMAGES) {
            command += &format!(" --images {images}");
        }
        command
    }
}

struct Measured {
    knn: Evaluation,
    linear: Evaluation,
    page: PathBuf,
}
