//! The random encoder to compare with.

use std::sync::Arc;

use simclr_data::{Dataset, Loader, LoaderConfig, Position, Reading, Share};
use simclr_engine::{Device, Mode, ParameterKind, SingleProcess, Tape, Tensor};
use simclr_nn::Memory;
use simclr_train::{Config, Model};

use crate::EvalError;

/// Keeps the draw apart from that of the run, which may have the same seed.
const ANOTHER_DRAW: u64 = u64::from_le_bytes(*b"baseline");
/// Views in a batch, and batches: an average that keeps 0.9 of itself each time lacks 0.5% of what it tends to after 50.
const BATCH: usize = 128;
const BATCHES: usize = 50;

/// The network of `config` before training: another draw of the same initialisation, with the running averages of its BatchNorms
/// taken over views of `train`.
///
/// A fresh network's running averages are 0 and 1. Evaluating with those would leave every layer at an arbitrary scale and make the
/// baseline look worse than a random network is. So views as pretraining draws them (no labels) go through it until the averages
/// have settled, which is what pretraining with a learning rate of 0 would leave.
///
/// # Errors
/// Images that cannot be read, views that cannot be drawn.
pub fn random_encoder(
    config: &Config,
    train: &Arc<dyn Dataset>,
    device: &Device,
) -> Result<Model, EvalError> {
    let seed = config.train.seed ^ ANOTHER_DRAW;
    let mut model = Model::with_seed(config, device, seed)?;
    for id in model.parameters.ids() {
        if model.parameters.kind(id) == ParameterKind::Buffer {
            // From 1, what is left of the start could exceed a small variance many times; from 0, it is a share of it.
            let zeros = Tensor::zeros(device, model.parameters.get(id).shape())?;
            model.parameters.set(id, zeros)?;
        }
    }
    let views = config.view.families(config.data.image_size)?.to_vec();
    // Half of a small set, so that it may hold a few broken images.
    let batch = (BATCH / views.len()).min(train.len().div_ceil(2));
    let reading = Reading { threads: device.threads(), strict: config.data.strict };
    let loader = LoaderConfig { batch, share: Share::WHOLE, seed, reading, prefetch: 2, views };
    let mut loader = Loader::new(train.clone(), loader, Position::default());
    // Nothing flows back here: all that a tape need keep is what comes into each block.
    let encoder = model.encoder.clone().with_memory(Memory::Blocks);
    for _ in 0..BATCHES {
        let batch = loader.next_batch()?;
        let mut tape = Tape::new(&model.parameters, Mode::Train, &SingleProcess);
        let images = tape.input(model.images(&batch.views)?);
        let h = encoder.forward(&mut tape, &images)?;
        model.head.forward(&mut tape, &h)?;
        drop((images, h));
        let mut averages = tape.into_buffer_updates();
        for (id, average) in averages.drain() {
            model.parameters.set(id, average)?;
        }
        loader.recycle(batch);
    }
    Ok(model)
}
