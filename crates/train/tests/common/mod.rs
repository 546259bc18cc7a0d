//! Helpers shared by the tests of training.

#![allow(dead_code, reason = "not every test that includes this uses it")]

use std::path::Path;
use std::sync::Arc;

use simclr_data::{DataError, Dataset, DecodeScratch, Decoded, Region, Synthetic};
use simclr_train::checkpoint::Checkpoint;
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Layers, TrainError};

/// The defaults with these settings.
pub fn with_sets(sets: &[&str]) -> Result<Config, TrainError> {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    Config::resolve(&Layers { sets: &sets, ..Layers::default() })
}

/// The preset "small" with the `usual` settings of a test, and then `sets`.
pub fn small(usual: &[&str], sets: &[&str]) -> Result<Config, TrainError> {
    let sets: Vec<String> = usual.iter().chain(sets).map(|&set| set.to_owned()).collect();
    Config::resolve(&Layers { preset: Some("small"), sets: &sets, ..Layers::default() })
}

/// Two epochs on 16 x 16 pixels in batches of 16, every step logged, with a test's `own` settings, and then `sets`.
pub fn usual(own: &[&str], sets: &[&str]) -> Config {
    let usual = [
        "data.image_size=16",
        "data.holdout=16",
        "encoder.width=0.0625",
        "train.batch=16",
        "train.epochs=2",
        "optim.warmup_epochs=0.5",
        "train.log_every=1",
    ];
    small(&[&usual, own].concat(), sets).unwrap()
}

/// The run in `folder`: resumed if it goes on `from` a checkpoint, created otherwise.
pub fn run_in(folder: &Path, config: &Config, from: Option<&Checkpoint>) -> Result<RunFolder, TrainError> {
    match from {
        Some(_) => Ok(RunFolder::resume(folder)?.0),
        None => RunFolder::create(folder, config),
    }
}

/// The bits of every tensor, with its name.
pub fn bits(checkpoint: &Checkpoint) -> Vec<(String, Vec<u32>)> {
    let tensors = checkpoint.tensors.iter();
    tensors.map(|t| (t.name.clone(), t.data.iter().map(|v| v.to_bits()).collect())).collect()
}

/// Images of which those with these indices cannot be read.
pub fn broken(images: Synthetic, broken: impl IntoIterator<Item = usize>) -> Arc<dyn Dataset> {
    let broken: Vec<usize> = broken.into_iter().collect();
    Arc::new(Disturbed {
        images,
        before: move |index| if broken.contains(&index) { Err("torn") } else { Ok(()) },
    })
}

/// Images before each of which something happens: it may take time, or be the reason why the image cannot be read.
pub struct Disturbed<F> {
    pub images: Synthetic,
    pub before: F,
}

impl<F: Fn(usize) -> Result<(), &'static str> + Send + Sync> Dataset for Disturbed<F> {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> &[String] {
        self.images.classes()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.images.label(index)
    }

    fn name(&self, index: usize) -> String {
        self.images.name(index)
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        part: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        let unreadable =
            |reason: &str| DataError::Image { name: self.name(index), reason: reason.to_owned() };
        (self.before)(index).map_err(unreadable)?;
        self.images.read_part(index, part, scratch)
    }
}
