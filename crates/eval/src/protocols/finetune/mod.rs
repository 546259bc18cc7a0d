//! The semi-supervised protocol: fine-tunes the whole encoder on a few labels (arXiv:2002.05709, section 6 and B.5).

mod labels;
mod rate;
mod saved;
mod settings;
mod training;

use std::time::Instant;

use simclr_train::Model;
use simclr_train::checkpoint::NamedTensor;

pub use labels::{BadLabels, Labels};
pub(super) use rate::BEST_OF;
pub use rate::{BadRate, Rate};
pub use saved::{SavedNetwork, network_file, network_of_other_data, saved_networks};
pub use settings::FineTune;

use super::evaluation::Evaluation;
use super::network::trainable;
use super::sgd::Sgd;
use super::splits::Splits;
use super::versus::{Progress, Versus};
use crate::EvalError;
use training::{Training, Tuned};

/// A fine-tuned network and its accuracy.
#[derive(Clone, Debug)]
pub struct FineTuned {
    /// Of the pretrained network, beside the same network trained from random weights on the same images for as many
    /// steps.
    pub evaluation: Evaluation,
    /// The pretrained network after fine-tuning: the encoder under torchvision's names, the kept layers of the
    /// projection head under `head.`, and the classifier, `fc.weight` and `fc.bias`, all in PyTorch's layouts.
    pub weights: Vec<NamedTensor>,
    /// Steps of fine-tuning.
    pub steps: u64,
    /// The names of the classes, in the order of the classifier's outputs.
    pub classes: Vec<String>,
}

/// Puts a linear classifier on the encoder, or on a layer of its projection head, trains the whole network with
/// softmax cross-entropy on random crops and flips of a balanced subset of the training images, and tests it on
/// central crops. `models` are not changed.
///
/// In training, BatchNorm normalises by the batch and updates its running averages; testing uses the averages.
/// Activations are stored in the models' precision, except that f16 becomes f32, so that the loss needs no scaling.
/// The same seed gives the same bits, for any number of threads.
///
/// # Errors
/// Options out of range, a subset that leaves a class without images ([`EvalError::Labels`]) or no class with a second
/// image to choose a rate by ([`EvalError::TooFewToSplit`]), [`EvalError::BatchDoesNotFit`], a batch larger than the
/// subset, [`EvalError::Diverged`], [`EvalError::AllDiverged`], images that cannot be read.
pub fn finetune(
    models: &Versus<Model>,
    data: &Splits,
    options: &FineTune,
    watch: &mut dyn FnMut(Progress),
) -> Result<FineTuned, EvalError> {
    let start = Instant::now();
    let of = data.train().len();
    let few = data.labelled(options.labels, options.seed)?;
    let images = few.train().len();
    let (sgd, memory) = options.settle(&models.trained, few.classes().len(), images, of)?;
    let parts = options.parts(&few, models.trained.device.threads())?;
    let rates = options.rate.rates(sgd.batch);
    let Sgd { epochs, batch, rate, .. } = sgd;
    watch(Progress::Planned { images, of, epochs, batch, rate, rates: rates.len(), memory });
    let both = models.try_map(|side, model| {
        let model = &trainable(model).with_memory(memory.memory);
        Training { side, model, few: &few, options, sgd: &sgd }.run(&rates, parts.as_ref(), watch)
    })?;
    let Tuned { counts, weights, steps, .. } = both.trained;
    let scores = Versus { trained: both.trained.scores, random: both.random.map(|random| random.scores) };
    let seconds = start.elapsed().as_secs_f64();
    let evaluation = Evaluation::new(options.protocol(&sgd, images, of), counts, scores, seconds);
    Ok(FineTuned { evaluation, weights, steps, classes: few.classes().to_vec() })
}
