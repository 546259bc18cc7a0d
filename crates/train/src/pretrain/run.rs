//! The training loop: steps, logging, saving.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use simclr_augment::ViewFamily;
use simclr_data::{Dataset, LoaderConfig, Reading, Skipped};
use simclr_engine::VerdictFigures;
use simclr_engine::ops::ContrastiveFigures;
use simclr_words::text::counted;

use crate::{Config, Schedule, TrainError};

use super::best::BestBy;
use super::plan::{Plan, Prepared};
use super::run_writer::RunWriter;
use super::state::{EpochSums, State};
use super::{
    Batches, CapturedStep, Observer, Outcome, StepFigures, StepRecord, Team, train_step, weight_norm,
};

/// Default number of steps between log lines on a GPU, where each line waits for all started steps.
const GPU_LOG_EVERY: u64 = 10;
/// A search for the fastest GPU kernels that takes at least this long is reported.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// A run in progress.
pub(super) struct Run<'r> {
    pub(super) config: &'r Config,
    pub(super) team: Team<'r>,
    /// Writes the run to its folder; of several workers only the first has one.
    pub(super) writer: Option<RunWriter<'r>>,
    pub(super) plan: Plan,
    pub(super) schedule: Schedule,
    /// Steps between lines of the log.
    log_every: u64,
    pub(super) train: Arc<dyn Dataset>,
    pub(super) holdout: Option<Arc<dyn Dataset>>,
    pub(super) best_by: Option<BestBy>,
    /// The distributions of the views, one per branch.
    pub(super) families: [ViewFamily; 2],
    pub(super) reading: Reading,
    /// Images that could not be used, including those listed before the run was resumed.
    pub(super) skipped: Vec<Skipped>,
    pub(super) state: State,
    /// Whether the state is consistent: the step is complete, and the positions of all workers are known.
    pub(super) consistent: bool,
    /// A step that the logs did not take.
    pub(super) unlogged: Option<StepRecord>,
    /// The captured step, if a GPU trains.
    captured: Option<CapturedStep>,
    /// Steps known to be sound, including those before the run was resumed.
    settled: u64,
    /// The figures of the last step that was examined.
    pub(super) figures: StepFigures,
}

/// What follows a step.
struct AfterStep {
    /// Whether an epoch ends with the step.
    end_of_epoch: bool,
    /// Whether to stop, as agreed by all workers.
    stop: bool,
}

/// How a run ended; only the worker that keeps the run has a checkpoint.
pub(super) struct Ended {
    pub(super) finished: bool,
    step: u64,
    checkpoint: Option<PathBuf>,
    skipped: usize,
}

impl Ended {
    /// The outcome, for the worker that keeps the run.
    pub(super) fn outcome(self) -> Result<Outcome, TrainError> {
        let Ended { finished, step, checkpoint, skipped } = self;
        let nothing = || TrainError::Workers("nobody has kept the run".to_owned());
        Ok(Outcome { finished, step, checkpoint: checkpoint.ok_or_else(nothing)?, skipped })
    }
}

impl<'r> Run<'r> {
    /// Starts or resumes the run that was `prepared`.
    pub(super) fn new(
        prepared: Prepared,
        config: &'r Config,
        writer: Option<(RunWriter<'r>, Vec<Skipped>)>,
        team: Team<'r>,
    ) -> Result<Run<'r>, TrainError> {
        let Prepared { plan, state, train, holdout, families, cache: _ } = prepared;
        let (writer, skipped) =
            writer.map_or((None, Vec::new()), |(writer, skipped)| (Some(writer), skipped));
        let device = &state.model.device;
        let threads = config.data.workers.unwrap_or_else(|| device.threads());
        let log_every =
            config.train.log_every.unwrap_or_else(|| if device.is_gpu() { GPU_LOG_EVERY } else { 1 });
        let captured = match device.is_gpu() {
            true => Some(CapturedStep::new(&state.model, 2 * team.worker.batch_size(config, train.len())?)?),
            false => None,
        };
        let mut run = Run {
            config,
            team,
            schedule: Schedule::new(config, train.len() as u64),
            log_every,
            best_by: BestBy::choose(&config.train, &train, holdout.as_ref()).filter(|_| writer.is_some()),
            writer,
            families,
            reading: Reading { threads, strict: config.data.strict },
            skipped,
            captured,
            settled: state.step,
            consistent: true,
            unlogged: None,
            figures: StepFigures::default(),
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
    pub(super) fn go(mut self, observer: &mut dyn Observer) -> Result<Ended, TrainError> {
        observer.started(&self.plan);
        if let Some(why) = self.state.model.device.forgets_choices()
            && self.writes_run()
            && self.config.train.deterministic
        {
            observer.warn(&format!(
                "{why}: the fastest kernels for this GPU are not remembered, so if the run is taken up again they may be \
                 chosen anew, and its results differ by rounding"
            ));
        }
        let mut batches = self.batches()?;
        let trained = self.train(&mut batches, observer).map_err(|error| self.explain(error));
        trained.inspect_err(|error| self.rescue(error, &batches, observer))?;
        self.conclude()
    }

    /// Takes all steps, with measurements and saving in between.
    fn train(&mut self, batches: &mut Batches, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let mut interval = LogInterval::start();
        let mut stopped = false;
        if self.state.epoch_due {
            self.finish_epoch(batches, observer)?;
            self.save_if_due(false, true, batches, observer)?;
            interval = LogInterval::start();
        }
        while !self.is_finished() && !stopped {
            let after = self.advance(batches, &mut interval, observer)?;
            if after.end_of_epoch {
                self.finish_epoch(batches, observer)?;
                interval = LogInterval::start();
            }
            // Several workers have agreed on stopping; a single one also asks again after measuring.
            stopped = after.stop || self.team.is_alone() && observer.stop();
            self.save_if_due(stopped, after.end_of_epoch, batches, observer)?;
        }
        Ok(())
    }

    /// Does what follows the last step of an epoch, once it is logged.
    fn finish_epoch(&mut self, batches: &Batches, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.note_skipped(batches, observer)?;
        self.share_skipped(observer)?;
        self.end_epoch(observer)
    }

    /// Saves the state if that is due.
    fn save_if_due(
        &mut self,
        stopped: bool,
        end_of_epoch: bool,
        batches: &Batches,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let (last, best) = (stopped || self.is_finished(), end_of_epoch && self.is_best());
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.checkpoint_writer.check_writer()?;
        if last || writer.checkpoint_writer.is_due(self.state.step, end_of_epoch) {
            self.settle()?;
            self.note_skipped(batches, observer)?;
            if let Some(writer) = &mut self.writer {
                writer.save(&self.state, self.config)?;
            }
        } else if best {
            writer.hold(&self.state, self.config)?;
        }
        Ok(())
    }

    /// Whether this worker keeps the run.
    pub(super) fn writes_run(&self) -> bool {
        self.writer.is_some()
    }

    fn is_finished(&self) -> bool {
        self.epochs() >= self.config.train.epochs
    }

    /// Epochs that all workers together have completed.
    pub(super) fn epochs(&self) -> u64 {
        self.state.position().epochs(self.train.len())
    }

    /// Starts making batches.
    fn batches(&self) -> Result<Batches, TrainError> {
        let config = LoaderConfig {
            batch: self.team.worker.batch_size(self.config, self.train.len())?,
            share: self.team.worker.share(),
            seed: self.config.train.seed,
            reading: self.reading,
            views: self.families.to_vec(),
        };
        let (next, device) = (self.state.positions[self.team.worker.rank], &self.state.model.device);
        Batches::start(self.train.clone(), config, next, device, &self.plan.views)
    }

    /// Takes a step on the next batch, and logs it if that is due. Returns whether an epoch ends with it, and whether
    /// to stop. Without a step, if a stop is requested while the batch is waited for.
    fn advance(
        &mut self,
        batches: &mut Batches,
        interval: &mut LogInterval,
        observer: &mut dyn Observer,
    ) -> Result<AfterStep, TrainError> {
        if !self.wait(batches, observer) {
            return Ok(AfterStep { end_of_epoch: false, stop: true });
        }
        let batch = batches.next(self.captured.as_mut().map(CapturedStep::pixels));
        let batch = batch.map_err(|error| self.team.worker.explain(error))?;
        interval.waited += batch.waited;
        interval.views += 2 * batch.indices.len() * self.team.worker.world_size;
        let rate = self.schedule.rate(self.state.step);
        self.step(&batch.views, rate)?;
        self.consistent = false;
        if self.state.step == self.plan.done + 1 {
            self.note_searches(observer);
        }
        let epochs = self.epochs();
        let stop = self.team.take_turn(&mut self.state.positions, batch.position, observer.stop())?;
        batches.recycle(batch);
        let after = AfterStep { end_of_epoch: self.epochs() > epochs, stop };
        self.state.epoch_due = after.end_of_epoch;
        // While the step computes.
        if !self.is_finished() && batches.brings() && self.wait(batches, observer) {
            batches.bring()?;
        }
        if self.state.step.is_multiple_of(self.log_every) || after.end_of_epoch {
            self.settle()?;
            let record = self.step_record(rate, interval)?;
            self.consistent = true;
            if let Some(writer) = &mut self.writer
                && let Err(error) = writer.log(|logs| logs.step(&record))
            {
                self.unlogged = Some(record);
                return Err(error);
            }
            observer.step(&record);
        }
        self.consistent = true;
        Ok(after)
    }

    /// Waits for the next batch; returns false if a stop is requested first, because huge images, or those on a slow
    /// disk, may take minutes. Several workers take the step all the same: each of them stops only with the others.
    fn wait(&self, batches: &mut Batches, observer: &dyn Observer) -> bool {
        !self.team.is_alone() || batches.wait(&|| observer.stop())
    }

    /// Reports the time that the first step on a GPU took to choose kernels, if that was long.
    fn note_searches(&self, observer: &mut dyn Observer) {
        let device = &self.state.model.device;
        let fate = if device.forgets_choices().is_some() { "is not remembered" } else { "is remembered" };
        let searched = device.searched();
        if let Some((searches, time)) = searched.filter(|(_, time)| *time >= WORTH_TELLING) {
            observer.note(&format!(
                "the first step took {:.0} s to choose the fastest of several ways to compute {searches} convolutions and products: \
                 the choice {fate}",
                time.as_secs_f64()
            ));
        }
    }

    /// Makes sure that the state is on the disk, if this worker keeps the run.
    fn conclude(mut self) -> Result<Ended, TrainError> {
        let (finished, step, skipped) = (self.is_finished(), self.state.step, self.skipped.len());
        let Some(writer) = &mut self.writer else {
            return Ok(Ended { finished, step, checkpoint: None, skipped });
        };
        writer.checkpoint_writer.wait()?;
        let checkpoint = match writer.checkpoint_writer.newest() {
            Some(path) => path,
            None => {
                writer.save(&self.state, self.config)?;
                writer.checkpoint_writer.wait()?;
                writer.checkpoint_writer.checkpoints().path(step)
            }
        };
        if finished {
            writer.folder.remove_cache();
        }
        Ok(Ended { finished, step, checkpoint: Some(checkpoint), skipped })
    }

    /// Takes a step on `views`. On a GPU, only starts a step on the views that it has; [`Run::settle`] gets the result.
    fn step(&mut self, views: &[u8], rate: f64) -> Result<(), TrainError> {
        let State { model, optimizer, .. } = &mut self.state;
        let loss = &self.config.loss;
        if let Some(captured) = &mut self.captured {
            captured.step(model, optimizer, loss, self.team.collective, rate)?;
            self.state.step += 1;
            return Ok(());
        }
        let figures = train_step(model, optimizer, loss, self.team.collective, views, rate)?;
        self.figures = figures;
        if !figures.is_finite() {
            return Err(self.not_finite(self.state.step, self.figures_in_words()));
        }
        self.state.step += 1;
        self.state.sums.steps += 1;
        self.state.sums.loss += figures.batch.loss;
        self.state.sums.contrastive_accuracy += figures.batch.contrastive_accuracy;
        Ok(())
    }

    /// Waits for the started steps and takes over their results.
    pub(super) fn settle(&mut self) -> Result<(), TrainError> {
        let Some(captured) = &self.captured else { return Ok(()) };
        let found = captured.figures()?;
        self.team.collective.check()?;
        let VerdictFigures { loss, contrastive_accuracy, entropy, gradient_norm, .. } = found;
        let batch = ContrastiveFigures { loss, contrastive_accuracy, entropy };
        self.figures = StepFigures { batch, gradient_norm };
        let sums = &mut self.state.sums;
        // `found.steps - sums.steps` sound steps followed the last settled one, so this is the first unsound step,
        // if there is one.
        let unsound = self.settled + (found.steps - sums.steps);
        self.settled = self.state.step;
        *sums =
            EpochSums { steps: found.steps, loss: found.loss_sum, contrastive_accuracy: found.accuracy_sum };
        self.state.skipped_steps = found.skipped;
        self.state.loss_scale = captured.loss_scale()?;
        if found.sound { Ok(()) } else { Err(self.not_finite(unsound, self.figures_in_words())) }
    }

    /// The figures of the last step that was examined, for messages.
    fn figures_in_words(&self) -> String {
        format!("loss {} and gradient norm {}", self.figures.batch.loss, self.figures.gradient_norm)
    }

    /// Turns an error between steps into one of the previous step, if that step has made the network non-finite.
    fn explain(&mut self, error: TrainError) -> TrainError {
        let what = match error {
            TrainError::FeaturesNotFinite { .. } => "the features of held-out images".to_owned(),
            TrainError::WeightsNotFinite { tensor } => format!("the values of `{tensor}`"),
            error => return error,
        };
        self.not_finite(self.state.step.saturating_sub(1), what)
    }

    /// The error that `what` was not finite at the step number `step`.
    fn not_finite(&mut self, step: u64, what: String) -> TrainError {
        let last_good = self.writer.as_mut().and_then(|writer| {
            // If the newest could not be written, the one before it is named.
            let _ = writer.checkpoint_writer.wait();
            writer.folder.check_in_place().ok()?;
            writer.checkpoint_writer.checkpoints().latest_good().ok().flatten().map(|found| found.path)
        });
        TrainError::NotFinite { step, rate: self.schedule.rate(step), what, last_good }
    }

    /// Sets the sums on the GPU to those of the state.
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

    /// Sets the loss scale on the GPU to that of the state, if there is one.
    fn set_loss_scale(&mut self) -> Result<(), TrainError> {
        match (&mut self.captured, self.state.loss_scale) {
            (Some(captured), Some(scale)) => captured.set_loss_scale(scale),
            _ => Ok(()),
        }
    }

    fn step_record(&self, rate: f64, interval: &mut LogInterval) -> Result<StepRecord, TrainError> {
        let (past, figures) = (std::mem::replace(interval, LogInterval::start()), &self.figures);
        Ok(StepRecord {
            step: self.state.step,
            epoch: self.state.position().0 as f64 / self.train.len() as f64,
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

    /// Lists newly found broken images in the run folder.
    pub(super) fn note_skipped(
        &mut self,
        batches: &Batches,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        self.list_skipped(batches.skipped(), observer)
    }

    /// Lists the broken images that the other workers have found.
    fn share_skipped(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if self.team.is_alone() {
            return Ok(());
        }
        let met = self.team.gather_skipped(&self.skipped)?;
        self.list_skipped(met, observer)
    }

    /// Lists the broken images in `met` that are not listed yet.
    pub(super) fn list_skipped(
        &mut self,
        met: Vec<Skipped>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let before = self.skipped.len();
        let mut known: HashSet<u32> = self.skipped.iter().map(|known| known.index).collect();
        self.skipped.extend(met.into_iter().filter(|met| known.insert(met.index)));
        let Some(writer) = self.writer.as_ref().filter(|_| self.skipped.len() > before) else {
            return Ok(());
        };
        writer.folder.write_skipped(&self.skipped)?;
        let (images, list) = (counted(self.skipped.len(), "image"), writer.folder.skipped());
        observer.warn(&format!("{images} could not be used, listed in {}", list.display()));
        Ok(())
    }

    /// Whether the state is the best so far.
    fn is_best(&self) -> bool {
        self.state.best.as_ref().is_some_and(|best| best.step() == self.state.step)
    }
}

/// What happened since the previous log line.
struct LogInterval {
    start: Instant,
    waited: Duration,
    views: usize,
}

impl LogInterval {
    fn start() -> LogInterval {
        LogInterval { start: Instant::now(), waited: Duration::ZERO, views: 0 }
    }
}
