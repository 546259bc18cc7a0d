//! One run of a study: its training and its evaluation, as far as they are not done yet.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use simclr_data::Source;
use simclr_engine::Device;
use simclr_eval::EvalError;
use simclr_eval::protocols::{
    self, Evaluation, LogisticOptions, Protocol, Representation, Splits, TrainedEncoder, Versus,
    WhichCheckpoint,
};
use simclr_eval::report::history::{History, Kind};
use simclr_eval::study::{Measure, Trial};
use simclr_exchange::write_encoder;
use simclr_metrics::Knn;
use simclr_train::TrainError;
use simclr_train::pretrain::{Failure, Identity};
use simclr_train::run_folder::RunFolder;

use super::{Ablate, Planned};
use crate::evaluating::warn_of_broken;
use crate::evaluation_progress::EvaluationProgress;
use crate::workers::Rendezvous;
use crate::{terminal, training};

/// The detail of a result that holds the fingerprint of the images it was measured on.
const JUDGED_BY: &str = "judged_by";

/// What all runs of a study share.
pub(super) struct Shared<'s> {
    /// The images to pretrain on.
    pub(super) source: &'s Source,
    /// The images to evaluate on.
    pub(super) splits: &'s Splits,
    pub(super) device: &'s Device,
}

impl Ablate {
    /// Trains and evaluates one variant with one seed, as far as that is not done yet. `None` after Ctrl-C.
    pub(super) fn trial(&self, planned: &Planned, shared: &Shared) -> Result<Option<Trial>> {
        let Shared { source, splits, device } = *shared;
        let Planned { variant, seed, config, folder, .. } = planned;
        let images = source.to_pretrain();
        let identity = Identity::of(images.as_ref());
        let failed = |why: String| Ok(Some(planned.failed(why)));
        let mut training = match RunFolder::exists(folder) {
            true => {
                let (run, _) = RunFolder::open(folder)?;
                // It would fail in the same way.
                if let Some(failure) = Failure::of(&run).filter(|failure| failure.is_of(config, identity)) {
                    return failed(not_converged(failure.step));
                }
                training::resume(folder, |_| Ok(config.clone()))?
            }
            false => training::begin(folder, config.clone())?,
        };
        training.saved().map_or(Ok(()), |meta| identity.check(folder, meta))?;
        if training.is_finished() {
            training.complete()?;
        } else {
            training.record_data(&self.data);
            match training.go(&images, &Rendezvous::ALONE, "the same command") {
                Ok(outcome) if outcome.finished => {
                    write_encoder(&training.folder, &outcome.checkpoint)?;
                }
                Ok(_) => return Ok(None),
                Err(error) => match error.downcast_ref() {
                    // Another attempt would fail in the same way.
                    Some(TrainError::NotFinite { step, .. }) => {
                        terminal::warn(&error.to_string());
                        return failed(not_converged(step + 1));
                    }
                    _ => return Err(error),
                },
            }
        }
        drop(training);
        match self.measure(folder, splits, device) {
            Err(error) if is_useless(&error) => {
                terminal::warn(&error.to_string());
                failed(format!("did not converge: {error}"))
            }
            scores => Ok(Some(Trial { variant: *variant, seed: *seed, scores: scores?, failure: None })),
        }
    }

    /// The scores of the encoder in `folder`, in the order of [`Measure::ALL`].
    fn measure(&self, folder: &Path, splits: &Splits, device: &Device) -> Result<[Option<f64>; 4]> {
        let encoder = TrainedEncoder::load(folder, WhichCheckpoint::Newest, device)?;
        let judged_by = splits.fingerprint();
        let mut wanted = vec![Measure::Knn, Measure::Linear];
        wanted.extend(Some(Measure::LinearOfZ).filter(|_| self.projection));
        let mut scores = [None; 4];
        for &measure in &wanted {
            scores[measure as usize] = measured(&encoder, measure, judged_by, splits.is_strict());
        }
        wanted.retain(|&measure| scores[measure as usize].is_none());
        if !wanted.is_empty() {
            let mut progress = EvaluationProgress::default();
            let mut watch = |report| progress.see(report);
            let with_z = wanted.contains(&Measure::LinearOfZ);
            let encoded =
                protocols::encode(&Versus::alone(encoder.model.clone()), splits, with_z, &mut watch)?;
            let device = &encoder.model.device;
            for measure in wanted {
                let options = LogisticOptions::default();
                let mut evaluation = match measure {
                    Measure::Linear => protocols::logistic(device, &encoded, &options, &mut watch)?,
                    Measure::LinearOfZ => protocols::logistic_z(device, &encoded, &options, &mut watch)?,
                    Measure::Knn | Measure::Contrastive => {
                        protocols::knn(&encoded, &Knn::among(splits.train().len()))?
                    }
                };
                evaluation.trained.details.insert(JUDGED_BY.to_owned(), json!(judged_by));
                evaluation.data = splits.origin().cloned();
                encoder.record(&mut evaluation)?;
                scores[measure as usize] = Some(evaluation.trained.top1);
            }
        }
        let log = encoder.run.metrics();
        let history = History::read(&log).with_context(|| format!("{} cannot be read", log.display()))?;
        let contrastive = history.series(Kind::Epoch, "train_contrastive_accuracy");
        scores[Measure::Contrastive as usize] = contrastive.last().map(|&(_, value)| value);
        Ok(scores)
    }
}

fn not_converged(step: u64) -> String {
    format!("did not converge: loss, gradient or network not finite at step {step}")
}

/// Whether the error says that a network computes nothing that can be evaluated.
fn is_useless(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(EvalError::Train(TrainError::FeaturesNotFinite { .. })))
}

fn protocol_of(measure: Measure) -> Protocol {
    match measure {
        Measure::Linear => Protocol::Logistic(Representation::H),
        Measure::LinearOfZ => Protocol::Logistic(Representation::Z),
        Measure::Knn | Measure::Contrastive => Protocol::Knn,
    }
}

/// The number of images that an evaluated run was tested on. Warns of those that could not be read, which are the same
/// for all runs of a study.
pub(super) fn images_tested(run: &Path) -> Option<usize> {
    let folder = RunFolder::open(run).ok()?.0.evaluations();
    let evaluation = Evaluation::read(&folder, &protocol_of(Measure::Knn))?;
    warn_of_broken(&evaluation, &folder);
    Some(evaluation.test_images)
}

/// The earlier result of this very encoder on these images, if there is one.
fn measured(encoder: &TrainedEncoder, measure: Measure, judged_by: u32, is_strict: bool) -> Option<f64> {
    let found = encoder.recorded(&protocol_of(measure))?;
    let same = found.step == Some(encoder.step)
        && found.trained.details.get(JUDGED_BY) == Some(&json!(judged_by))
        && (found.skipped == 0 || !is_strict);
    same.then_some(found.trained.top1)
}
