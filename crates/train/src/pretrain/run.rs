//! The loop: step after step, what is logged, what is saved.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use simclr_augment::ViewFamily;
use simclr_data::{Dataset, LoaderConfig, Reading, Skipped};
use simclr_engine::ops::ContrastiveFigures;
use simclr_engine::{SingleProcess, VerdictFigures};

use crate::checkpoint::Checkpoint;
use crate::metrics_log::MetricsLog;
use crate::run_folder::RunFolder;
use crate::tensorboard::EventLog;
use crate::{Config, Schedule, TrainError};

use super::best::BestBy;
use super::plan::{Plan, Prepared};
use super::records::Logs;
use super::saving::Saver;
use super::state::{EpochSums, State};
use super::{
    Batches, CapturedStep, Identity, Observer, Outcome, StepFigures, StepRecord, train_step, weight_norm,
};

/// Steps of a GPU between lines of the log by default: each waits for what was started before it.
const GPU_LOG_EVERY: u64 = 10;
/// A search for the fastest kernels of a GPU that takes longer than this is told.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// A run under way.
pub(super) struct Run<'r> {
    pub(super) config: &'r Config,
    folder: &'r RunFolder,
    plan: Plan,
    schedule: Schedule,
    /// Steps between lines of the log.
    log_every: u64,
    pub(super) train: Arc<dyn Dataset>,
    pub(super) holdout: Option<Arc<dyn Dataset>>,
    pub(super) best_by: Option<BestBy>,
    identity: Identity,
    /// The laws of the views, one a branch.
    pub(super) families: [ViewFamily; 2],
    pub(super) reading: Reading,
    /// Images that could not be used, those listed before the run was taken up again among them.
    pub(super) skipped: Vec<Skipped>,
    pub(super) state: State,
    /// The steps, where a GPU takes them.
    captured: Option<CapturedStep>,
    /// Steps that are known to be sound, those before the run was taken up again among them.
    settled: u64,
    /// Of the last step that was looked at.
    figures: StepFigures,
    logs: Logs,
    saver: Saver,
}

impl<'r> Run<'r> {
    /// Begins what was `prepared`, or takes it up again where `from` was saved.
    pub(super) fn new(
        prepared: Prepared,
        config: &'r Config,
        folder: &'r RunFolder,
        identity: Identity,
        from: Option<&Checkpoint>,
    ) -> Result<Run<'r>, TrainError> {
        let Prepared { plan, state, train, holdout, families } = prepared;
        let files = folder.files().as_ref();
        let (logs, skipped) = match from {
            Some(Checkpoint { meta, .. }) => {
                let metrics = MetricsLog::resume(files, &folder.metrics(), meta.metrics_bytes)?;
                let events = EventLog::resume(files, folder.path(), meta.events_bytes)?;
                (Logs { metrics, events }, folder.read_skipped()?)
            }
            None => {
                let metrics = MetricsLog::create(files, &folder.metrics())?;
                let events = EventLog::create(files, folder.path())?;
                (Logs { metrics, events }, Vec::new())
            }
        };
        let device = &state.model.device;
        let threads = config.data.workers.unwrap_or_else(|| device.threads());
        let log_every =
            config.train.log_every.unwrap_or_else(|| if device.is_gpu() { GPU_LOG_EVERY } else { 1 });
        let captured = match device.is_gpu() {
            true => Some(CapturedStep::new(&state.model, 2 * config.train.batch)?),
            false => None,
        };
        let mut run = Run {
            config,
            folder,
            schedule: Schedule::new(config, train.len() as u64),
            log_every,
            best_by: BestBy::choose(&config.train, &train, holdout.as_ref()),
            identity,
            families,
            reading: Reading { threads, strict: config.data.strict },
            skipped,
            captured,
            settled: state.step,
            figures: StepFigures::default(),
            logs,
            saver: Saver::new(
                folder.checkpoints(config.train.keep_checkpoints),
                config.train.checkpoint_every,
            ),
            plan,
            state,
            train,
            holdout,
        };
        run.set_sums()?;
        run.set_loss_scale()?;
        Ok(run)
    }

    /// Trains until done, or until `observer` stops it.
    pub(super) fn go(mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        observer.started(&self.plan);
        let mut batches = self.batches()?;
        let mut since = Since::now();
        let mut stopped = false;
        while !self.is_finished() && !stopped {
            let end_of_epoch = self.advance(&mut batches, &mut since, observer)?;
            if end_of_epoch {
                self.note_skipped(&batches, observer)?;
                let record = self.end_epoch(observer)?;
                self.logs.epoch(&record)?;
                observer.epoch(&record);
                since = Since::now();
            }
            stopped = observer.stop();
            self.saver.look()?;
            if stopped || self.is_finished() || self.saver.is_due(self.state.step, end_of_epoch) {
                self.settle()?;
                self.note_skipped(&batches, observer)?;
                self.save()?;
            } else if end_of_epoch && self.is_best() {
                self.hold()?;
            }
        }
        self.conclude()
    }

    fn is_finished(&self) -> bool {
        self.state.position.epoch >= self.config.train.epochs
    }

    /// Starts making batches.
    fn batches(&self) -> Result<Batches, TrainError> {
        let config = LoaderConfig {
            batch: self.config.train.batch,
            seed: self.config.train.seed,
            reading: self.reading,
            prefetch: 2,
            views: self.families.to_vec(),
        };
        let (position, device) = (self.state.position, &self.state.model.device);
        Batches::start(self.train.clone(), config, position, device, &self.plan.views)
    }

    /// Takes the step of the next batch, and logs it where that is due. Returns whether it was the last of its epoch.
    fn advance(
        &mut self,
        batches: &mut Batches,
        since: &mut Since,
        observer: &mut dyn Observer,
    ) -> Result<bool, TrainError> {
        let batch = batches.next(self.captured.as_mut().map(CapturedStep::pixels))?;
        since.waited += batch.waited;
        since.views += 2 * batch.indices.len();
        let rate = self.schedule.rate(self.state.step);
        self.step(&batch.views, rate)?;
        if self.state.step == self.plan.done + 1 {
            self.note_searches(observer);
        }
        self.state.position = batch.position;
        let end_of_epoch = batch.end_of_epoch;
        batches.recycle(batch);
        // While the step computes.
        if !self.is_finished() {
            batches.bring()?;
        }
        if self.state.step.is_multiple_of(self.log_every) || end_of_epoch {
            self.settle()?;
            let record = self.step_record(rate, since)?;
            self.logs.step(&record)?;
            observer.step(&record);
        }
        Ok(end_of_epoch)
    }

    /// Tells what the first step on a GPU spent on choosing, where that was long.
    fn note_searches(&self, observer: &mut dyn Observer) {
        let searched = self.state.model.device.searched();
        if let Some((searches, time)) = searched.filter(|(_, time)| *time >= WORTH_TELLING) {
            observer.note(&format!(
                "the first step took {:.0} s to choose the fastest of several ways to compute {searches} convolutions and products: \
                 the choice is remembered",
                time.as_secs_f64()
            ));
        }
    }

    /// Leaves the state on the disk.
    fn conclude(mut self) -> Result<Outcome, TrainError> {
        self.saver.wait()?;
        let checkpoint = match self.saver.newest() {
            Some(path) => path,
            None => {
                self.save()?;
                self.saver.wait()?;
                self.saver.checkpoints().path(self.state.step)
            }
        };
        let finished = self.is_finished();
        if finished {
            // Nothing will be read again. What cannot be removed only takes room.
            let _ = self.folder.files().remove(&self.folder.cache());
        }
        Ok(Outcome { finished, step: self.state.step, checkpoint, skipped: self.skipped.len() })
    }

    /// Takes a step on `views`, or on those that a GPU has; or starts it where [`Run::settle`] is to learn what came of it.
    fn step(&mut self, views: &[u8], rate: f64) -> Result<(), TrainError> {
        let State { model, optimizer, .. } = &mut self.state;
        let loss = &self.config.loss;
        if let Some(captured) = &mut self.captured {
            captured.step(model, optimizer, loss, rate)?;
            self.state.step += 1;
            return Ok(());
        }
        let (figures, taken) = train_step(model, optimizer, loss, &SingleProcess, views, rate)?;
        self.figures = figures;
        if !taken {
            return Err(self.not_finite(self.state.step));
        }
        self.state.step += 1;
        self.state.sums.steps += 1;
        self.state.sums.loss += figures.batch.loss;
        self.state.sums.contrastive_accuracy += figures.batch.contrastive_accuracy;
        Ok(())
    }

    /// Learns what came of the steps that were started.
    fn settle(&mut self) -> Result<(), TrainError> {
        let Some(captured) = &self.captured else { return Ok(()) };
        let found = captured.figures()?;
        let VerdictFigures { loss, contrastive_accuracy, entropy, gradient_norm, .. } = found;
        let batch = ContrastiveFigures { loss, contrastive_accuracy, entropy };
        self.figures = StepFigures { batch, gradient_norm };
        let sums = &mut self.state.sums;
        // The sums are those of the epoch, whose first step is known by how many were counted when they were last looked at.
        let unsound = self.settled + (found.steps - sums.steps);
        self.settled = self.state.step;
        *sums =
            EpochSums { steps: found.steps, loss: found.loss_sum, contrastive_accuracy: found.accuracy_sum };
        self.state.skipped_steps = found.skipped;
        self.state.loss_scale = captured.loss_scale()?;
        if found.sound { Ok(()) } else { Err(self.not_finite(unsound)) }
    }

    /// Step number `step` was not finite.
    fn not_finite(&mut self, step: u64) -> TrainError {
        // One that could not be written is not there: the one before it is named.
        let _ = self.saver.wait();
        let last_good = self.saver.checkpoints().latest_good().ok().flatten().map(|found| found.path);
        TrainError::NotFinite {
            step,
            rate: self.schedule.rate(step),
            loss: self.figures.batch.loss,
            gradient_norm: self.figures.gradient_norm,
            last_good,
        }
    }

    /// Tells the GPU from which sums to go on.
    pub(super) fn set_sums(&mut self) -> Result<(), TrainError> {
        let EpochSums { steps, loss, contrastive_accuracy } = self.state.sums;
        let Some(captured) = &mut self.captured else { return Ok(()) };
        captured.set_figures(&VerdictFigures {
            sound: true,
            steps,
            loss_sum: loss,
            accuracy_sum: contrastive_accuracy,
            skipped: self.state.skipped_steps,
            ..VerdictFigures::default()
        })
    }

    /// Goes on with the scale of a loss that was scaled before.
    fn set_loss_scale(&mut self) -> Result<(), TrainError> {
        match (&mut self.captured, self.state.loss_scale) {
            (Some(captured), Some(scale)) => captured.set_loss_scale(scale),
            _ => Ok(()),
        }
    }

    fn step_record(&self, rate: f64, since: &mut Since) -> Result<StepRecord, TrainError> {
        let (past, figures) = (std::mem::replace(since, Since::now()), &self.figures);
        Ok(StepRecord {
            step: self.state.step,
            epoch: self.state.step as f64 / self.plan.steps_per_epoch as f64,
            loss: figures.batch.loss,
            contrastive_accuracy: figures.batch.contrastive_accuracy,
            entropy: figures.batch.entropy,
            rate,
            gradient_norm: figures.gradient_norm,
            weight_norm: weight_norm(&self.state.model)?,
            loss_scale: self.state.loss_scale.map(|figures| figures.scale.into()),
            skipped_steps: self.state.loss_scale.map(|_| self.state.skipped_steps),
            views_per_s: past.views as f64 / past.start.elapsed().as_secs_f64(),
            waited_s: past.waited.as_secs_f64(),
        })
    }

    /// Lists newly met broken images in the run folder.
    fn note_skipped(&mut self, batches: &Batches, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let before = self.skipped.len();
        let known: HashSet<u32> = self.skipped.iter().map(|known| known.index).collect();
        self.skipped.extend(batches.skipped().into_iter().filter(|met| !known.contains(&met.index)));
        if self.skipped.len() > before {
            self.folder.write_skipped(&self.skipped)?;
            let (count, list) = (self.skipped.len(), self.folder.skipped());
            let images = if count == 1 { "image" } else { "images" };
            observer.warn(&format!("{count} {images} could not be used, listed in {}", list.display()));
        }
        Ok(())
    }

    /// Whether the state is the best so far.
    fn is_best(&self) -> bool {
        self.state.best.as_ref().is_some_and(|best| best.step() == self.state.step)
    }

    /// Keeps the state, the best so far, until the next one is saved.
    fn hold(&mut self) -> Result<(), TrainError> {
        let (metrics, events) = (self.logs.metrics.length(), self.logs.events.length());
        let Run { state, config, identity, saver, .. } = self;
        saver.hold(|| state.checkpoint(config, *identity, metrics, events))
    }

    /// Starts to save the state; the logs are on the disk before it.
    fn save(&mut self) -> Result<(), TrainError> {
        let Run { state, logs, config, identity, saver, .. } = self;
        saver.save(|| {
            let (metrics, events) = (logs.metrics.sync()?, logs.events.sync()?);
            state.checkpoint(config, *identity, metrics, events)
        })
    }
}

/// What happened since the line before.
struct Since {
    start: Instant,
    waited: Duration,
    views: usize,
}

impl Since {
    fn now() -> Since {
        Since { start: Instant::now(), waited: Duration::ZERO, views: 0 }
    }
}
