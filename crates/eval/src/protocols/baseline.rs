//! The random encoder to compare against.

use std::collections::HashMap;
use std::sync::Arc;

use simclr_data::{DataError, Dataset, Loader, LoaderConfig, Position, Reading, Share};
use simclr_engine::{Device, Mode, ParameterId, SingleProcess, Tape, Tensor};
use simclr_nn::Memory;
use simclr_train::{Config, Model};

use super::versus::Progress;
use crate::EvalError;

/// Keeps the draws apart from those of the run, which may have the same seed.
const SEED_TAG: u64 = u64::from_le_bytes(*b"baseline");
/// Views per batch.
const BATCH: usize = 128;
/// The fewest and the most batches over which the averages are taken, and within these limits at most how many passes
/// over the images: large photos take longer to decode than to encode.
const BATCHES: [usize; 2] = [8, 16];
const PASSES: usize = 4;

/// The network of `config` before training: another draw of the same initialisation, with BatchNorm's running averages
/// taken over views of `train`.
///
/// A fresh network's running averages are 0 and 1. Evaluated with those, every layer would have an arbitrary scale and
/// the baseline would look worse than a random network is. So views drawn as in pretraining (no labels) run through
/// the network, and the averages become the means over their batches: the values that pretraining with a learning rate
/// of 0 would tend to.
///
/// # Errors
/// Images that cannot be read, view settings that are invalid.
pub fn random_encoder(
    config: &Config,
    train: &Arc<dyn Dataset>,
    device: &Device,
    watch: &mut dyn FnMut(Progress),
) -> Result<Model, EvalError> {
    let seed = config.train.seed ^ SEED_TAG;
    let mut model = Model::with_seed(config, device, seed)?;
    let views = config.view.families(config.data.image_size)?.to_vec();
    let reading = Reading { threads: device.threads(), strict: config.data.strict };
    // At most half of a small set, so that a few of its images may be broken.
    let batch = (BATCH / views.len()).min(train.len().div_ceil(2));
    let loader = |batch| LoaderConfig { batch, share: Share::WHOLE, seed, reading, views: views.clone() };
    let means = match means(&model, train, loader(batch), watch) {
        // So many are broken that the rest makes no batch.
        Err(EvalError::Data(DataError::TooFewImages { usable: usable @ 1.., .. })) => {
            means(&model, train, loader(usable.div_ceil(2)), watch)
        }
        found => found,
    }?;
    for (id, mean) in means {
        let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
        let tensor = Tensor::from_vec(device, model.parameters.get(id).shape(), mean)?;
        model.parameters.set(id, tensor)?;
    }
    Ok(model)
}

/// The mean of the batches' statistics over views of `train`, for each running average of `model`, which is unchanged.
fn means(
    model: &Model,
    train: &Arc<dyn Dataset>,
    loader: LoaderConfig,
    watch: &mut dyn FnMut(Progress),
) -> Result<HashMap<ParameterId, Vec<f64>>, EvalError> {
    let batches = (PASSES * train.len() / loader.batch.max(1)).clamp(BATCHES[0], BATCHES[1]);
    let mut loader = Loader::new(train.clone(), loader, Position::default());
    // There is no backward pass, so the tape keeps as little as it can: the inputs of the blocks. With a decay of 0
    // the running averages are those of the batch alone.
    let encoder = model.encoder.clone().with_memory(Memory::Blocks).with_norm_decay(0.0);
    let head = model.head.clone().with_norm_decay(0.0);
    let mut means: HashMap<ParameterId, Vec<f64>> = HashMap::new();
    for done in 0..batches {
        watch(Progress::Averaging { done, batches });
        let batch = loader.next_batch()?;
        let mut tape = Tape::new(&model.parameters, Mode::Train, &SingleProcess);
        let images = tape.input(model.images(&batch.views)?);
        let h = encoder.forward(&mut tape, &images)?;
        head.forward(&mut tape, &h)?;
        drop((images, h));
        for (id, of_batch) in tape.into_buffer_updates().drain() {
            let of_batch = of_batch.to_vec()?;
            let mean = means.entry(id).or_insert_with(|| vec![0.0; of_batch.len()]);
            mean.iter_mut()
                .zip(&of_batch)
                .for_each(|(mean, &value)| *mean += f64::from(value) / batches as f64);
        }
        loader.recycle(batch);
    }
    Ok(means)
}
