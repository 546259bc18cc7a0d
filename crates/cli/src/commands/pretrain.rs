//! `simclr pretrain`: images in, a run folder with an encoder out.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use simclr_data::Source;
use simclr_train::optim::Optimizer;
use simclr_train::pretrain::{RunViews, ViewsPlace, holdout_of};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Model, TrainError, memory};

use crate::data::Opening;
use crate::exit::Done;
use crate::settings::{OnDevice, Settings, Threads};
use crate::training;
use crate::{data, terminal, weights};

const EXAMPLES: &str = "\
Examples:
  simclr pretrain photos/ --out runs/first --preset photos
  simclr pretrain photos/ --out runs/first --resume
  simclr pretrain 'shards/train-{000..146}.tar' more.zip --out runs/large --preset imagenet
  simclr pretrain cifar/ --dry-run --preset cifar10 --set optim.rate=0.5 train.epochs=100

The run folder holds config.toml (every key, enough to repeat the run), metrics.jsonl, TensorBoard \
events, checkpoints/, and at the end encoder.safetensors with torchvision's names.";

/// Train an encoder on images; no labels are used
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", data::FORMS))]
pub struct Pretrain {
    /// The images; several are read as one
    #[arg(required = true)]
    data: Vec<PathBuf>,

    /// The run folder, new or empty
    #[arg(long, value_name = "RUN", required_unless_present = "dry_run")]
    out: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    on: OnDevice,

    /// Go on with the run in the folder, from its newest good checkpoint
    #[arg(long)]
    resume: bool,

    /// Stop at the first image that cannot be read, instead of passing over it (data.strict)
    #[arg(long)]
    strict: bool,

    /// Print the resolved configuration and the plan, and stop
    #[arg(long)]
    dry_run: bool,
}

impl Pretrain {
    pub fn run(mut self) -> Result<Done> {
        if self.strict {
            self.settings.sets.push("data.strict=true".to_owned());
        }
        self.settings.sets.extend(self.on.device.map(|device| format!("train.device={device}")));
        let Some(out) = self.out.as_deref().filter(|_| !self.dry_run) else {
            let source = Opening::new(self.settings.decode()?).open(&self.data)?;
            return self.plan(&source);
        };
        let (training, source) = if self.resume {
            let training = training::resume(out, &self.settings, self.threads)?;
            if training.is_finished() {
                let epochs = training.config.train.epochs;
                terminal::say(&format!("{} is finished: all {epochs} epochs are done", out.display()));
                return Ok(Done::Finished);
            }
            let index = training.folder.index();
            let mut opening = Opening::with_index(training.config.data.decode(), &index);
            let source = opening.open(&self.data)?;
            opening.save(&index);
            (training, source)
        } else {
            if RunFolder::exists(out) {
                // Said before the configuration is looked at, which may have been left out because of the run that is there.
                return Err(TrainError::RunExists { path: out.to_path_buf() }.into());
            }
            let mut opening = Opening::new(self.settings.decode()?);
            let source = opening.open(&self.data)?;
            let config = self.settings.resolve(Some(&source), self.threads)?;
            check_batch(&config, source.to_pretrain().len())?;
            self.advise(&config);
            let training = training::begin(out, config)?;
            opening.save(&training.folder.index());
            (training, source)
        };
        let outcome = training.go(&source.to_pretrain())?;
        if !outcome.finished {
            terminal::say(&format!(
                "stopped after step {}, saved to {}",
                outcome.step,
                outcome.checkpoint.display()
            ));
            terminal::say(&format!("go on with: {}", resume_command(&self.data, out)));
            return Ok(Done::Interrupted);
        }
        let encoder = weights::export(&training.folder, &outcome.checkpoint)?;
        terminal::say(&format!("encoder: {} (torchvision's names)", encoder.display()));
        if !source.train.classes().is_empty() {
            terminal::say(&format!(
                "how good is it? simclr knn {} --train {}",
                shell(out),
                shell(&self.data[0])
            ));
        }
        Ok(Done::Finished)
    }

    /// What would be done: the configuration on standard output, so that it can be kept as a file, the rest beside it.
    fn plan(&self, source: &Source) -> Result<Done> {
        let config = self.settings.resolve(Some(source), self.threads)?;
        let (images, held_out) = check_batch(&config, source.to_pretrain().len())?;
        let steps = images / config.train.batch;
        terminal::say(&format!(
            "would train on {} ({held_out} held out): {} of {}, {} in all",
            terminal::counted(images, "image"),
            terminal::counted(config.train.epochs as usize, "epoch"),
            terminal::counted(steps, "step"),
            terminal::counted(steps * config.train.epochs as usize, "step"),
        ));
        let device = training::device_of(&config)?;
        config.prepare(&device)?;
        let model = Model::new(&config, &device)?;
        let optimizer = Optimizer::new(&config.optim, &model.parameters).map_err(TrainError::from)?;
        let dataset = source.to_pretrain();
        let sizes = memory::Images::of(&config, &device, &*dataset);
        let mut choice = memory::choose((&model, &optimizer), &config, &sizes)?;
        let views = RunViews::new(&config, &*dataset)?;
        let place = ViewsPlace::decide(&config, &device, &views.families, &*dataset, &choice)?;
        choice.needs.images += place.to_keep(&sizes);
        if place != ViewsPlace::Cpu(None) {
            terminal::say(&place.to_string());
        }
        terminal::say(&choice.to_string());
        terminal::print(config.to_toml()?.trim_end())?;
        Ok(Done::Finished)
    }

    fn advise(&self, config: &Config) {
        if self.settings.preset.is_none() && self.settings.config.is_none() && self.settings.sets.is_empty() {
            terminal::say(&format!(
                "no preset: ResNet-18 on {0} x {0} pixels, the paper's recipe; --preset photos chooses sizes from \
                 the images and the machine",
                config.data.image_size
            ));
        }
    }
}

/// Images that will be trained on and held out of `images`.
fn check_batch(config: &Config, images: usize) -> Result<(usize, usize)> {
    let holdout = holdout_of(config, images);
    let batch = config.train.batch;
    if batch > images - holdout {
        return Err(TrainError::BatchTooLarge { batch, images: images - holdout, holdout }.into());
    }
    Ok((images - holdout, holdout))
}

fn resume_command(data: &[PathBuf], out: &Path) -> String {
    let data: Vec<String> = data.iter().map(|path| shell(path)).collect();
    format!("simclr pretrain {} --out {} --resume", data.join(" "), shell(out))
}

fn shell(path: &Path) -> String {
    terminal::quoted(&path.display().to_string())
}
