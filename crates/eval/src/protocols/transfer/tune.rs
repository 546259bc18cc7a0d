//! Fine-tunes on a data set of a suite; the validation images choose rate and decay.

use std::time::Instant;

use serde_json::{Map, json};
use simclr_data::Reading;
use simclr_train::Model;

use super::outcome::{Entry, Outcome};
use super::set::TransferSet;
use super::tuning::{GridPoint, Tuning, norm_decay};
use crate::protocols::encode::encode_images;
use crate::protocols::evaluation::BrokenImage;
use crate::protocols::examples::Examples;
use crate::protocols::network::{Network, trainable};
use crate::protocols::sgd::{Sgd, SgdTraining, unless_diverged};
use crate::protocols::versus::{Progress, Side};
use crate::{EvalError, Targets};

/// Trains copies of a network on one data set.
pub(super) struct Tuner<'t> {
    pub(super) side: Side,
    /// Copied for each training, never changed.
    pub(super) model: &'t Model,
    pub(super) set: &'t TransferSet,
    pub(super) tuning: &'t Tuning,
    pub(super) seed: u64,
    pub(super) strict: bool,
}

/// A trained network's scores for images.
struct Scored {
    scores: Vec<f32>,
    targets: Targets,
    broken: Vec<BrokenImage>,
    /// Classes without a readable training image.
    unlearnt: Vec<String>,
}

impl Tuner<'_> {
    /// Tries the missing points of the grid: trains on the training images and scores on the validation images. Then
    /// trains on both with the best point of all tried so far, or the next best if that diverges, and tests. Calls
    /// `save` after each change of `entry`; it may merge the results of other processes.
    ///
    /// # Errors
    /// [`EvalError::BatchDoesNotFit`], [`EvalError::AllDiverged`], images that cannot be read, and those of `save`.
    pub(super) fn complete(
        &self,
        entry: &mut Entry,
        save: &mut dyn FnMut(&mut Entry) -> Result<(), EvalError>,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(), EvalError> {
        let grid = &self.tuning.grid;
        let of = grid.points().count();
        for (number, (rate, decay)) in (1..).zip(grid.points()) {
            if entry.point(rate, decay).is_some() {
                continue;
            }
            let start = Instant::now();
            let validation = ("validation", &self.set.validation);
            let scored =
                unless_diverged(self.train_and_score(&self.set.train, rate, decay, validation, watch))?;
            let validation = scored.as_ref().map(|(_, scored)| self.score(scored)).transpose()?;
            let validation_images = scored.map_or(0, |(_, scored)| scored.targets.rows());
            watch(Progress::Tried {
                side: self.side,
                number,
                of,
                rate,
                decay: Some(decay),
                score: validation,
            });
            let seconds = start.elapsed().as_secs_f64();
            let fails_on_all = false;
            entry.grid.push(GridPoint { rate, decay, validation, validation_images, fails_on_all, seconds });
            save(entry)?;
        }
        // A rate that suits a part of the images may diverge on all of them.
        let mut refitted = Vec::new();
        while let Some(best) = entry.best() {
            // Whatever `save` makes of the entry, no point is trained on all images twice.
            if entry.is_of(best) || refitted.contains(&(best.rate, best.decay)) {
                return Ok(());
            }
            let outcome = self.refit(best, watch)?;
            match outcome {
                Some(_) => refitted.push((best.rate, best.decay)),
                None => entry.fails_on_all(best),
            }
            entry.trained = outcome.or(entry.trained.take());
            save(entry)?;
        }
        Err(EvalError::AllDiverged { trainings: of })
    }

    /// Trains on all images with a chosen point, and tests; `None` if training diverges.
    fn refit(&self, best: GridPoint, watch: &mut dyn FnMut(Progress)) -> Result<Option<Outcome>, EvalError> {
        let start = Instant::now();
        let GridPoint { rate, decay, .. } = best;
        let test = ("test", &self.set.test);
        let outcome = unless_diverged(self.train_and_score(&self.set.both, rate, decay, test, watch))?;
        let Some((mut broken, scored)) = outcome else { return Ok(None) };
        let score = self.score(&scored)?;
        let train_images = self.set.both.len() - broken.len();
        broken.extend(scored.broken);
        Ok(Some(Outcome {
            score,
            validation: best.validation.unwrap_or_default(),
            chosen: Map::from_iter([("rate".to_owned(), json!(rate)), ("decay".to_owned(), json!(decay))]),
            train_images,
            validation_images: best.validation_images,
            test_images: scored.targets.rows(),
            broken,
            unlearnt: scored.unlearnt,
            seconds: start.elapsed().as_secs_f64(),
        }))
    }

    /// Trains a copy on `part` and scores `others`. Also returns the images of `part` that could not be read.
    fn train_and_score(
        &self,
        part: &Examples,
        rate: f64,
        decay: f64,
        (name, others): (&'static str, &Examples),
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(Vec<BrokenImage>, Scored), EvalError> {
        let batch = self.tuning.batch_of(self.set.train.len());
        let sgd = self.tuning.sgd(batch, rate, decay, self.seed);
        let mut network = self.network(part, &sgd)?;
        let reading = Reading { threads: network.model().device.threads(), strict: self.strict };
        let outcome =
            SgdTraining::new(self.side, network.model(), part, reading, &sgd)?.run(&mut network, watch)?;
        let seen = encode_images(self.side, name, network.model(), &others.images, false, reading, watch);
        let seen = outcome.finite_features(seen)?;
        let scored = Scored {
            scores: outcome.finite_scores(network.scores(&seen.h)?)?,
            targets: others.targets.select(&seen.indices),
            broken: BrokenImage::of(name, &seen.skipped),
            unlearnt: outcome.classes_without_images(part, &self.set.classes),
        };
        Ok((BrokenImage::of("training", &outcome.skipped), scored))
    }

    /// A copy with a new classifier, to be trained on `part`.
    fn network(&self, part: &Examples, sgd: &Sgd) -> Result<Network, EvalError> {
        let mut model = trainable(self.model);
        model.encoder = model.encoder.with_norm_decay(norm_decay(part.len(), sgd.batch));
        let network = Network::new(&model, self.set.classes.len(), 0, sgd)?;
        let choice = network.choose_memory(self.tuning.memory, sgd.batch)?;
        Ok(network.with_memory(choice.memory))
    }

    fn score(&self, scored: &Scored) -> Result<f64, EvalError> {
        Ok(self.set.spec.metric.of(&scored.scores, &scored.targets, self.set.classes.len())?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use simclr_data::{Source, synthetic};
    use simclr_engine::Device;
    use simclr_train::Config;

    use super::*;
    use crate::protocols::transfer::Suite;

    #[test]
    fn averages_of_batch_norms_are_as_long_as_the_images_ask() {
        let mut config = Config::default();
        (config.data.image_size, config.encoder.width) = (16, 0.125);
        let model = Model::new(&config, &Device::cpu(1).unwrap()).unwrap();
        let suite = "[[set]]\nname = \"own\"\ntrain = \"a\"\ntest = \"b\"\nmetric = \"top1\"";
        let suite = Suite::parse(suite, Path::new("suite.toml")).unwrap();
        let mut open = |_: &Path| Ok(Source { test: None, ..synthetic(120, 0, 16, 0) });
        let set = TransferSet::open(&suite.sets[0], &suite.path, 0, 1, &mut open, &|_, _| ()).unwrap();
        let tuning = Tuning { steps: 1, batch: 1, ..Tuning::default() };
        let tuner =
            Tuner { side: Side::Trained, model: &model, set: &set, tuning: &tuning, seed: 0, strict: false };
        let sgd = tuning.sgd(1, 0.1, 0.0, 0);
        for part in [&set.train, &set.both] {
            let network = tuner.network(part, &sgd).unwrap();
            let encoder = &network.model().encoder;
            let convolutions =
                encoder.stem().layers.iter().chain(encoder.blocks().iter().flat_map(|b| &b.layers));
            let shortcuts =
                encoder.blocks().iter().filter_map(|block| Some(&block.downsample.as_ref()?.norm));
            let decays: Vec<f32> =
                convolutions.map(|(_, norm)| norm).chain(shortcuts).map(|norm| norm.decay).collect();
            let expected = norm_decay(part.len(), 1);
            assert!(expected > 0.9 && decays.len() == 20, "{expected} {}", decays.len());
            assert!(decays.iter().all(|&decay| decay == expected), "{decays:?}, not {expected}");
        }
    }
}
