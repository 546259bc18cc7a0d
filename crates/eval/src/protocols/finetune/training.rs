//! Fine-tunes and tests one network.

use std::time::Instant;

use serde::Serialize;
use serde_json::json;
use simclr_data::Reading;
use simclr_train::Model;
use simclr_train::checkpoint::NamedTensor;

use super::settings::FineTune;
use crate::protocols::choice::{Edge, FEW_TO_CHOOSE_BY};
use crate::protocols::encode::{encode_images, encode_set};
use crate::protocols::evaluation::{BrokenImage, Counts, Scores};
use crate::protocols::examples::Examples;
use crate::protocols::network::Network;
use crate::protocols::sgd::{Sgd, SgdTraining, unless_diverged};
use crate::protocols::splits::Splits;
use crate::protocols::versus::{Progress, Side};
use crate::{EvalError, Metric};

/// The share of each class's labels held out to choose a rate by.
const VALIDATION: f64 = 0.2;

/// A network to fine-tune, the data, and the settings.
pub(super) struct Training<'t> {
    pub(super) side: Side,
    /// Copied for each training, never changed.
    pub(super) model: &'t Model,
    /// The labelled images to train on, and the test images.
    pub(super) few: &'t Splits,
    pub(super) options: &'t FineTune,
    /// With the lowest of the rates.
    pub(super) sgd: &'t Sgd,
}

/// A fine-tuned network and its results.
pub(super) struct Tuned {
    pub(super) scores: Scores,
    pub(super) counts: Counts,
    pub(super) weights: Vec<NamedTensor>,
    pub(super) steps: u64,
}

/// The labelled images while a rate is chosen: some to train on, some to validate on.
pub(super) struct Parts {
    rest: Examples,
    validation: Examples,
}

/// A rate that was tried.
#[derive(Clone, Copy, Debug, Serialize)]
struct Trial {
    rate: f64,
    /// The fraction of the validation images recognised; `None` if training diverged.
    validation: Option<f64>,
}

impl Parts {
    /// Splits the labelled images of `few`, keeping copies of an image on one side. Images that have not been compared
    /// before ([`Splits::compared`]) are compared on `threads` threads.
    ///
    /// # Errors
    /// [`EvalError::TooFewToSplit`]
    pub(super) fn draw(few: &Splits, seed: u64, threads: usize) -> Result<Parts, EvalError> {
        let (all, purpose) = (Examples::labelled(few.train().clone()), "choose the rate by some of them");
        let same = few.copies(threads);
        let (rest, validation) = all.set_apart(few.classes().len(), &same, VALIDATION, purpose, seed)?;
        Ok(Parts { rest, validation })
    }
}

impl Training<'_> {
    /// Trains at the rate of [`Training::sgd`]; or, given `parts` of the labels, at the rate of `rates` that does best
    /// on them: the lowest among equals, or the next best if training on all labels diverges.
    ///
    /// # Errors
    /// [`EvalError::Diverged`], or [`EvalError::AllDiverged`] if several rates were tried; images that cannot be read.
    pub(super) fn run(
        &self,
        rates: &[f64],
        parts: Option<&Parts>,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<Tuned, EvalError> {
        let start = Instant::now();
        let Some(parts) = parts else { return self.at(self.sgd.rate, start, watch) };
        let mut trials = Vec::new();
        for (number, &rate) in (1..).zip(rates) {
            let validation = unless_diverged(self.validate(rate, parts, watch))?;
            let (side, of) = (self.side, rates.len());
            watch(Progress::Tried { side, number, of, rate, decay: None, score: validation });
            trials.push(Trial { rate, validation });
        }
        let mut best: Vec<(f64, f64)> =
            trials.iter().filter_map(|trial| Some((trial.validation?, trial.rate))).collect();
        // A stable sort, so that the lowest rate comes first among equals.
        best.sort_by(|one, other| other.0.total_cmp(&one.0));
        for (_, rate) in best {
            if let Some(mut tuned) = unless_diverged(self.at(rate, start, watch))? {
                let images = parts.validation.len();
                let details = &mut tuned.scores.details;
                details.extend([
                    ("rates".to_owned(), json!(trials)),
                    ("validation_images".to_owned(), json!(images)),
                    ("few_validation_images".to_owned(), json!(images < FEW_TO_CHOOSE_BY)),
                ]);
                let edge = Edge::of(rate, trials.iter().map(|trial| (trial.rate, trial.validation)));
                details.extend(edge.map(|edge| ("rate_at_edge".to_owned(), json!(edge))));
                return Ok(tuned);
            }
        }
        Err(EvalError::AllDiverged { trainings: rates.len() })
    }

    /// Trains on all labels, and tests.
    fn at(&self, rate: f64, start: Instant, watch: &mut dyn FnMut(Progress)) -> Result<Tuned, EvalError> {
        let sgd = Sgd { rate, ..self.sgd.clone() };
        let (few, mut network) = (self.few, self.network(&sgd)?);
        let part = Examples::labelled(few.train().clone());
        let outcome = SgdTraining::new(self.side, network.model(), &part, self.reading(), &sgd)?
            .run(&mut network, watch)?;
        let test =
            outcome.finite_features(encode_set(self.side, network.model(), "test", few, false, watch))?;
        let scores = outcome.finite_scores(network.scores(&test.h)?)?;
        let mut details = outcome.details(&sgd, start.elapsed().as_secs_f64());
        details.extend([
            ("labels".to_owned(), json!(self.options.labels.to_string())),
            ("head_layers".to_owned(), json!(self.options.head_layers)),
            ("steps".to_owned(), json!(outcome.steps)),
        ]);
        let counts = Counts {
            train: few.train().len() - outcome.skipped.len(),
            test: test.labels.len(),
            broken: BrokenImage::all(&outcome.skipped, &test.skipped),
            unlearnt: outcome.classes_without_images(&part, few.classes()),
        };
        let scores = Scores::of_scores(&scores, &test.labels, few.classes(), details)?;
        Ok(Tuned { scores, counts, weights: network.tensors()?, steps: outcome.steps })
    }

    /// The validation accuracy of a copy trained on the rest of the labels.
    fn validate(
        &self,
        rate: f64,
        Parts { rest, validation }: &Parts,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<f64, EvalError> {
        let sgd = Sgd { rate, batch: self.sgd.batch.min(rest.len()), ..self.sgd.clone() };
        let mut network = self.network(&sgd)?;
        let outcome = SgdTraining::new(self.side, network.model(), rest, self.reading(), &sgd)?
            .run(&mut network, watch)?;
        let (side, reading) = (self.side, self.reading());
        let seen =
            encode_images(side, "validation", network.model(), &validation.images, false, reading, watch);
        let seen = outcome.finite_features(seen)?;
        let scores = outcome.finite_scores(network.scores(&seen.h)?)?;
        Ok(Metric::Top1.of(&scores, &validation.targets.select(&seen.indices), self.few.classes().len())?)
    }

    /// A copy of the model with a new classifier.
    fn network(&self, sgd: &Sgd) -> Result<Network, EvalError> {
        Network::new(self.model, self.few.classes().len(), self.options.head_layers, sgd)
    }

    fn reading(&self) -> Reading {
        self.few.reading(self.model)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use simclr_data::InMemory;

    use super::*;

    #[test]
    fn the_same_image_is_not_on_both_sides() {
        // Forty images of each of two classes; the second half of all repeats the first.
        let image = |index: u8| (8, 8, vec![index % 40; 8 * 8 * 3]);
        let labels = (0..80).map(|index| index % 2).collect::<Vec<u32>>();
        let classes = ["even", "odd"].map(str::to_owned).to_vec();
        let images =
            InMemory::new((0..80).map(image).collect()).unwrap().with_labels(labels, classes).unwrap();
        let few = Splits::new(Arc::new(images.clone()), Arc::new(images)).unwrap();
        let parts = Parts::draw(&few, 3, 2).unwrap();
        let names = |part: &Examples| -> HashSet<usize> {
            let number = |row| part.images.name(row)["image ".len()..].parse::<usize>().unwrap() % 40;
            (0..part.len()).map(number).collect()
        };
        assert_eq!((parts.rest.len(), parts.validation.len()), (64, 16));
        assert!(names(&parts.rest).is_disjoint(&names(&parts.validation)));
    }
}
