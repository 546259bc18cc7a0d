//! Loading and running a run's encoder, for the commands that put images through it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Error, Result};
use clap::Args;
use simclr_data::{Dataset, Reading, Source};
use simclr_engine::{DType, Device};
use simclr_eval::embedding::Broken;
use simclr_eval::protocols::{TrainedEncoder, WhichCheckpoint};
use simclr_exchange::ExchangeError;
use simclr_train::config::{Auto, HeadKind, Memory};
use simclr_train::run_folder::RunFolder;

use crate::data::{self, Opening, ReadBy};
use crate::exit::{is_no_run, usage, with_advice};
use crate::settings::{OnDevice, Threads};
use crate::terminal::{self, LISTED};
use crate::training;

/// How a run's encoder is run.
#[derive(Args, Clone, Debug)]
pub struct Encoding {
    /// Use the checkpoint that did best on held-out images (by kNN, if they have labels) instead of the newest
    #[arg(long)]
    pub best: bool,

    /// Stop at the first image that cannot be read, instead of skipping it (data.strict)
    #[arg(long)]
    pub strict: bool,

    #[command(flatten)]
    pub threads: Threads,

    #[command(flatten)]
    pub on: OnDevice,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

impl Encoding {
    /// Loads the encoder of a run.
    pub fn load(&self, run: &Path) -> Result<TrainedEncoder> {
        let device = training::device(self.on.device.unwrap_or_default(), self.threads.count())?;
        load_encoder(run, self.best, &device)
    }

    /// Loads the encoder of a run that is to see the images `data`.
    pub fn load_beside(&self, run: &Path, data: &[PathBuf]) -> Result<TrainedEncoder> {
        self.load(run).map_err(|error| perhaps_swapped(error, data))
    }

    /// Whether an image that cannot be read is an error.
    pub fn is_strict(&self, encoder: &TrainedEncoder) -> bool {
        self.strict || encoder.config.data.strict
    }

    /// How to read images for `encoder`.
    pub fn reading(&self, encoder: &TrainedEncoder) -> Reading {
        Reading { threads: encoder.model.device.threads(), strict: self.is_strict(encoder) }
    }
}

/// Adds a hint to the error of opening a run or a fine-tuned network, if one of the images `data` is a run: the two may
/// have been swapped.
pub fn perhaps_swapped(error: Error, data: &[PathBuf]) -> Error {
    let what = match error.downcast_ref() {
        Some(ExchangeError::NotFineTuned { .. }) => "a run",
        _ if is_no_run(&*error) => "one",
        _ => return error,
    };
    match data.iter().find(|path| RunFolder::exists(path)) {
        Some(run) => usage(format!(
            "{}; {} is {what}: were they swapped?",
            with_advice(&*error),
            terminal::quoted_path(run)
        )),
        None => error,
    }
}

/// Loads the encoder of a run folder, and prints a line about it. Damaged checkpoints are skipped with a warning.
pub fn load_encoder(run: &Path, best: bool, device: &Device) -> Result<TrainedEncoder> {
    let which = if best { WhichCheckpoint::Best } else { WhichCheckpoint::Newest };
    let encoder = TrainedEncoder::load(run, which, device)?;
    let (done, epochs) = (terminal::counted(encoder.epoch as usize, "epoch"), encoder.config.train.epochs);
    let history = match encoder.run.imported() {
        Some(from) => format!("imported from {from}"),
        None if encoder.epoch < epochs => format!("{done} of {epochs}"),
        None => done,
    };
    terminal::say(&format!(
        "{}: {} of width {}, {history}, {}",
        run.display(),
        encoder.config.encoder.name,
        encoder.config.encoder.width,
        encoder.model.device,
    ));
    Ok(encoder)
}

/// Prepares the device to train copies of the encoder.
pub fn prepare_to_train(encoder: &TrainedEncoder) -> Result<()> {
    let device = &encoder.model.device;
    if device.is_gpu() {
        encoder.config.prepare(device)?;
    }
    if encoder.model.activations() == DType::F16 {
        terminal::say("a run of fp16: fine-tuned with activations in f32, so that no loss need be scaled");
    }
    Ok(())
}

/// What copies of the encoder keep for the backward pass. The rest is recomputed to the same bits, so the choice
/// depends only on the memory available.
pub fn memory_to_train(encoder: &TrainedEncoder) -> Auto<Memory> {
    match encoder.config.train.memory {
        Auto::Value(Memory::Blocks) => Auto::Value(Memory::Blocks),
        Auto::Value(Memory::Full) | Auto::Auto => Auto::Auto,
    }
}

/// Rejects `--projection` for a run without a projection head.
pub fn check_head(encoder: &TrainedEncoder, run: &Path) -> Result<()> {
    match encoder.config.head.kind {
        HeadKind::None => Err(usage(format!(
            "--projection: {} has no projection head (head.kind is none); leave it out",
            run.display()
        ))),
        HeadKind::Linear | HeadKind::Nonlinear => Ok(()),
    }
}

/// Opens data sets to be decoded as the encoder's training images were. With `strict`, anything unreadable is an error.
pub fn opening_for(encoder: &TrainedEncoder, strict: bool) -> Opening {
    let threads = encoder.model.device.threads();
    Opening::new(&encoder.config.data, threads).with_index(&encoder.run.index()).strict(strict)
}

/// Opens images, to be decoded as the encoder's training images were, and warns if they are dark. With `strict`,
/// anything unreadable is an error.
pub fn open_for(encoder: &TrainedEncoder, data: &[PathBuf], strict: bool) -> Result<Source> {
    let mut opening = opening_for(encoder, strict);
    let source = opening.open(data)?;
    opening.save(&encoder.run.index());
    warn_of_dark(encoder, data::parts(&source));
    Ok(source)
}

/// Warns if an encoder sees little in the images of some data sets, as its training images were stored in another way.
pub fn warn_of_dark<'a>(encoder: &TrainedEncoder, sets: impl IntoIterator<Item = &'a Arc<dyn Dataset>>) {
    data::warn_of_dark("", sets, encoder.config.data.window, ReadBy::Run);
}

/// Warns of the images that could not be read; `fate` says what became of them.
pub fn warn_of_broken(broken: &[Broken], fate: &str) {
    if broken.is_empty() {
        return;
    }
    terminal::warn(&format!("{} could not be read and {fate}:", terminal::counted(broken.len(), "image")));
    for image in broken.iter().take(LISTED) {
        terminal::say(&format!("  {image}"));
    }
    if let Some(more) = broken.len().checked_sub(LISTED + 1) {
        terminal::say(&format!("  and {} more; --json lists all", terminal::grouped(more as u64 + 1)));
    }
}
