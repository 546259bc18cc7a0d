//! The settings of the protocol, and the defaults of those not given.

use simclr_train::config::{Auto, Memory};
use simclr_train::{Model, memory};

use super::labels::Labels;
use super::rate::{Rate, digits};
use super::training::Parts;
use crate::EvalError;
use crate::protocols::Splits;
use crate::protocols::network::{Network, trainable};
use crate::protocols::protocol::{FineTuning, Protocol, Setting};
use crate::protocols::sgd::Sgd;

/// The largest batch by default: the paper's.
const BATCH: usize = 4096;
/// Steps per epoch with all labels: those of ImageNet's 1,281,167 images in batches of 4096. A share of the labels
/// gets that share of the steps.
const STEPS: usize = 312;
/// The smallest batch by default, if there are at least twice as many images: BatchNorm normalises by the batch.
const LEAST_BATCH: usize = 32;

/// Settings of [`finetune`](super::finetune). `None` stands for the paper's value (arXiv:2002.05709, B.5), scaled to
/// the data set.
#[derive(Clone, Debug, PartialEq)]
pub struct FineTune {
    /// The number of labels.
    pub labels: Labels,
    /// Passes over the images. In the paper 60 with less than 10% of the labels, otherwise 30.
    pub epochs: Option<u64>,
    /// Images per step. The paper's is 4096; the default makes as many steps per epoch as on ImageNet: all images /
    /// 312, at least 32, at most 4096, half of the subset, and what fits into memory.
    pub batch: Option<usize>,
    /// The rate of the first step, or how each network gets its own.
    pub rate: Rate,
    /// Weight decay of weights: 0 in the paper.
    pub weight_decay: f64,
    /// Layers of the projection head kept below the classifier: 0 in the paper, 1 in SimCLR v2 (arXiv:2006.10029).
    pub head_layers: usize,
    /// What is kept for the backward pass; it does not change the result's bits.
    pub memory: Auto<Memory>,
    /// Seed of the subset, the classifier's weights, the order of the images and the views.
    pub seed: u64,
}

impl FineTune {
    /// The paper's protocol.
    pub fn new(labels: Labels) -> FineTune {
        FineTune {
            labels,
            epochs: None,
            batch: None,
            rate: Rate::Paper,
            weight_decay: 0.0,
            head_layers: 0,
            memory: Auto::Auto,
            seed: 0,
        }
    }

    /// The protocol of the result, where the settings resolved to `sgd` for `images` of `of` images.
    pub(super) fn protocol(&self, sgd: &Sgd, images: usize, of: usize) -> Protocol {
        let plain = FineTune::new(self.labels);
        let usual = plain.with_batch(sgd.batch, of);
        let is_usual_batch = self.batch.is_none_or(|batch| batch == plain.sgd(images, of).batch);
        let is_usual_rate = self.rate.rates(sgd.batch) == plain.rate.rates(sgd.batch);
        let settings = [
            (Setting::Head, self.head_layers == 0, self.head_layers.to_string()),
            (Setting::Epochs, sgd.epochs == usual.epochs, sgd.epochs.to_string()),
            (Setting::Batch, is_usual_batch, sgd.batch.to_string()),
            (Setting::Rate, is_usual_rate, self.rate.to_string()),
            (Setting::Decay, sgd.weight_decay == 0.0, digits(sgd.weight_decay)),
            (Setting::Seed, sgd.seed == 0, sgd.seed.to_string()),
        ];
        let unusual = settings.into_iter().filter(|&(_, is_usual, _)| !is_usual);
        let unusual = unusual.map(|(setting, _, value)| (setting, value)).collect();
        Protocol::FineTune(FineTuning { labels: self.labels, unusual })
    }

    /// The resolved settings for `images` labelled images of `of`, ignoring memory; with the lowest rate if several
    /// are tried.
    pub fn sgd(&self, images: usize, of: usize) -> Sgd {
        let usual = (of / STEPS).clamp(LEAST_BATCH, BATCH).min(images / 2).max(1);
        self.with_batch(self.batch.unwrap_or(usual), of)
    }

    fn with_batch(&self, batch: usize, of: usize) -> Sgd {
        let epochs = if self.labels.percent(of) < 10.0 { 60 } else { 30 };
        Sgd {
            epochs: self.epochs.unwrap_or(epochs),
            steps: None,
            batch,
            rate: self.rate.rates(batch).first().copied().unwrap_or(f64::NAN),
            weight_decay: self.weight_decay,
            seed: self.seed,
        }
    }

    /// Checks whether fine-tuning can run with a model on the training images of `data`. Returns the protocol of its
    /// result.
    ///
    /// # Errors
    /// Those of [`finetune`](super::finetune) that can be found without training.
    pub fn check(&self, model: &Model, data: &Splits) -> Result<Protocol, EvalError> {
        let few = data.labelled(self.labels, self.seed)?;
        let (images, of) = (few.train().len(), data.train().len());
        let (sgd, _) = self.settle(model, few.classes().len(), images, of)?;
        self.parts(&few, model.device.threads())?;
        Ok(self.protocol(&sgd, images, of))
    }

    /// Splits the labels of `few` to choose a rate by; `None` if the rate is fixed. Images that have not been compared
    /// before are compared on `threads` threads.
    pub(super) fn parts(&self, few: &Splits, threads: usize) -> Result<Option<Parts>, EvalError> {
        let chooses = matches!(self.rate, Rate::Tuned | Rate::BestOf(_));
        chooses.then(|| Parts::draw(few, self.seed, threads)).transpose()
    }

    /// The resolved settings, with a batch that fits into memory, and what to keep for the backward pass.
    pub(super) fn settle(
        &self,
        model: &Model,
        classes: usize,
        images: usize,
        of: usize,
    ) -> Result<(Sgd, memory::Choice), EvalError> {
        let layers = model.head.layers().len();
        if self.head_layers > layers {
            return Err(EvalError::HeadLayers { asked: self.head_layers, layers });
        }
        let sgd = self.sgd(images, of);
        sgd.check(images)?;
        for rate in self.rate.rates(sgd.batch) {
            Sgd { rate, ..sgd.clone() }.check(images)?;
        }
        let network = Network::new(&trainable(model), classes, self.head_layers, &sgd)?;
        match network.choose_memory(self.memory, sgd.batch) {
            Ok(choice) => Ok((sgd, choice)),
            Err(EvalError::BatchDoesNotFit { largest: Some(batch), .. }) if self.batch.is_none() => {
                Ok((self.with_batch(batch, of), network.choose_memory(self.memory, batch)?))
            }
            Err(other) => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_what_is_not_as_usual() {
        let plain = FineTune::new(Labels::Percent(10.0));
        // 500 of 5000 images are used, in batches of 32.
        let name = |options: FineTune| options.protocol(&options.sgd(500, 5000), 500, 5000).to_string();
        assert_eq!(name(plain.clone()), "finetune-10%");
        let given = FineTune { epochs: Some(30), batch: Some(32), rate: Rate::Is(0.00625), ..plain.clone() };
        assert_eq!(name(given), "finetune-10%");
        assert_eq!(
            name(FineTune { rate: Rate::Is(1.0), seed: 3, ..plain.clone() }),
            "finetune-10%-rate-1-seed-3"
        );
        assert_eq!(name(FineTune { rate: Rate::Tuned, ..plain.clone() }), "finetune-10%-rate-tuned");
        let of_two = FineTune { rate: Rate::BestOf(vec![0.1, 1.0]), seed: 1, ..plain.clone() };
        assert_eq!(name(of_two), "finetune-10%-rate-0.1+1-seed-1");
        // The usual rate follows the batch.
        assert_eq!(name(FineTune { batch: Some(64), ..plain.clone() }), "finetune-10%-batch-64");
        let all = FineTune {
            epochs: Some(2),
            rate: Rate::Is(1e-30),
            weight_decay: 1e-4,
            head_layers: 1,
            ..plain.clone()
        };
        assert_eq!(name(all), "finetune-10%-head-1-epochs-2-rate-1e-30-decay-0.0001");
        // A batch that was reduced to fit into memory is not a choice of the user.
        assert_eq!(plain.protocol(&plain.with_batch(16, 5000), 500, 5000).to_string(), "finetune-10%");
    }
}
