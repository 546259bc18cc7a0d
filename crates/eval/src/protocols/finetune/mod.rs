//! The semi-supervised protocol: the whole encoder is fine-tuned on a few labels (arXiv:2002.05709, section 6 and B.5).

mod labels;
mod settings;

use std::time::Instant;

use serde_json::json;
use simclr_train::Model;
use simclr_train::checkpoint::NamedTensor;

pub use labels::{BadLabels, Labels};
pub use settings::FineTune;

use super::encode::encode_set;
use super::evaluation::{BrokenImage, Counts, Evaluation, Scores};
use super::examples::Examples;
use super::network::{Network, trainable};
use super::sgd::{Lessons, Sgd};
use super::splits::Splits;
use super::versus::{Progress, Side, Versus};
use crate::EvalError;

/// A fine-tuned network and how good it is.
#[derive(Clone, Debug)]
pub struct FineTuned {
    /// Of the pretrained network, and beside it of the same one trained from random weights on the same images in
    /// the same steps.
    pub evaluation: Evaluation,
    /// The pretrained one as it is now: the encoder under torchvision's names, what was kept of the projection head
    /// under `head.`, and the classifier, `fc.weight` and `fc.bias`, all in PyTorch's layouts.
    pub weights: Vec<NamedTensor>,
    /// Steps of fine-tuning.
    pub steps: u64,
    /// The names of the classes, in the order of the classifier's outputs.
    pub classes: Vec<String>,
}

/// Puts a linear classifier on the encoder, or on a layer of its projection head, trains all of it with softmax
/// cross-entropy on random crops and flips of a balanced subset of the training images, and tests it on central
/// crops. The models themselves stay as they are.
///
/// While it trains, BatchNorm normalises by the batch and its running averages follow; tests use the averages.
/// Activations are stored as the models' are, but those in f16 as f32, so that no loss need be scaled. The same
/// seed gives the same bits, for any number of threads.
///
/// # Errors
/// Options out of range, a subset that leaves a class without images ([`EvalError::Labels`]),
/// [`EvalError::BatchDoesNotFit`], a batch larger than the subset, [`EvalError::Diverged`], images that cannot be read.
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
    let Sgd { epochs, batch, rate, .. } = sgd;
    watch(Progress::Planned { images, of, epochs, batch, rate, memory });
    let both = models.try_map(|side, model| {
        let model = trainable(model).with_memory(memory.memory);
        let mut network = Network::new(&model, few.classes().len(), options.head_layers, &sgd)?;
        Tuned::of(side, &mut network, &few, options, &sgd, watch)
    })?;
    let Tuned { counts, weights, steps, .. } = both.trained;
    let scores = Versus { trained: both.trained.scores, random: both.random.map(|random| random.scores) };
    let seconds = start.elapsed().as_secs_f64();
    let evaluation = Evaluation::new(&options.protocol(&sgd, images, of), counts, scores, seconds);
    Ok(FineTuned { evaluation, weights, steps, classes: few.classes().to_vec() })
}

/// One side's outcome.
struct Tuned {
    scores: Scores,
    counts: Counts,
    weights: Vec<NamedTensor>,
    steps: u64,
}

impl Tuned {
    fn of(
        side: Side,
        network: &mut Network,
        few: &Splits,
        options: &FineTune,
        sgd: &Sgd,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<Tuned, EvalError> {
        let start = Instant::now();
        let (part, reading) = (Examples::labelled(few.train().clone()), few.reading(network.model()));
        let learnt = Lessons::new(side, network.model(), &part, reading, sgd)?.teach(network, watch)?;
        let test = encode_set(side, network.model(), "test", few, false, watch)?;
        let scores = learnt.tested(network.scores(&test.h)?)?;
        let mut details = learnt.details(sgd, start.elapsed().as_secs_f64());
        details.extend([
            ("labels".to_owned(), json!(options.labels.to_string())),
            ("head_layers".to_owned(), json!(options.head_layers)),
            ("steps".to_owned(), json!(learnt.steps)),
        ]);
        let counts = Counts {
            train: few.train().len() - learnt.skipped.len(),
            test: test.labels.len(),
            broken: BrokenImage::all(&learnt.skipped, &test.skipped),
            unlearnt: learnt.unlearnt(&part, few.classes()),
        };
        let scores = Scores::of_scores(&scores, &test.labels, few.classes(), details)?;
        Ok(Tuned { scores, counts, weights: network.tensors()?, steps: learnt.steps })
    }
}
