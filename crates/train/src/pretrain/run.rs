//! The loop: step after step, what is logged, what is saved.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use simclr_augment::ViewFamily;
use simclr_data::{Dataset, LoaderConfig, Reading, Skipped};
use simclr_engine::VerdictFigures;
use simclr_engine::ops::ContrastiveFigures;

use crate::{Config, Schedule, TrainError};

use super::best::BestBy;
use super::epoch::Guessing;
use super::keeper::Keeper;
use super::plan::{Plan, Prepared};
use super::state::{EpochSums, State};
use super::{
    Batches, CapturedStep, Observer, Outcome, StepFigures, StepRecord, Team, train_step, weight_norm,
};

/// Steps of a GPU between lines of the log by default: each waits for what was started before it.
const GPU_LOG_EVERY: u64 = 10;
/// A search for the fastest kernels of a GPU that takes longer than this is told.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// A run under way.
pub(super) struct Run<'r> {
    pub(super) config: &'r Config,
    pub(super) team: Team<'r>,
    /// What keeps it; of several workers the first alone does.
    pub(super) keeper: Option<Keeper<'r>>,
    pub(super) plan: Plan,
    pub(super) schedule: Schedule,
    /// Whether the projections were narrow when they were last looked at.
    pub(super) narrow: bool,
    pub(super) guessing: Guessing,
    /// Steps between lines of the log.
    log_every: u64,
    pub(super) train: Arc<dyn Dataset>,
    pub(super) holdout: Option<Arc<dyn Dataset>>,
    pub(super) best_by: Option<BestBy>,
    /// The laws of the views, one a branch.
    pub(super) families: [ViewFamily; 2],
    pub(super) reading: Reading,
    /// Images that could not be used, those listed before the run was taken up again among them.
    pub(super) skipped: Vec<Skipped>,
    pub(super) state: State,
    /// Whether the state is that after a step, as all workers know it.
    pub(super) whole: bool,
    /// The steps, where a GPU takes them.
    captured: Option<CapturedStep>,
    /// Steps that are known to be sound, those before the run was taken up again among them.
    settled: u64,
    /// Of the last step that was looked at.
    pub(super) figures: StepFigures,
}

/// What follows a step.
struct Turn {
    /// Whether an epoch ends with it.
    end_of_epoch: bool,
    /// Whether to stop, as all workers know.
    stop: bool,
}

/// How a run ended, for a worker that may keep it.
pub(super) struct Ended {
    pub(super) finished: bool,
    step: u64,
    checkpoint: Option<PathBuf>,
    skipped: usize,
}

impl Ended {
    /// For the worker that keeps the run.
    pub(super) fn outcome(self) -> Result<Outcome, TrainError> {
        let Ended { finished, step, checkpoint, skipped } = self;
        let nothing = || TrainError::Workers("nobody has kept the run".to_owned());
        Ok(Outcome { finished, step, checkpoint: checkpoint.ok_or_else(nothing)?, skipped })
    }
}

impl<'r> Run<'r> {
    /// Begins what was `prepared`, or takes it up again where `keeper` says so.
    pub(super) fn new(
        prepared: Prepared,
        config: &'r Config,
        keeper: Option<(Keeper<'r>, Vec<Skipped>)>,
        team: Team<'r>,
    ) -> Result<Run<'r>, TrainError> {
        let Prepared { plan, state, train, holdout, families, cache: _ } = prepared;
        let (keeper, skipped) =
            keeper.map_or((None, Vec::new()), |(keeper, skipped)| (Some(keeper), skipped));
        let device = &state.model.device;
        let threads = config.data.workers.unwrap_or_else(|| device.threads());
        let log_every =
            config.train.log_every.unwrap_or_else(|| if device.is_gpu() { GPU_LOG_EVERY } else { 1 });
        let captured = match device.is_gpu() {
            true => Some(CapturedStep::new(&state.model, 2 * team.part.batch(config)?)?),
            false => None,
        };
        let mut run = Run {
            config,
            team,
            schedule: Schedule::new(config, train.len() as u64),
            log_every,
            narrow: false,
            guessing: Guessing::default(),
            best_by: BestBy::choose(&config.train, &train, holdout.as_ref()).filter(|_| keeper.is_some()),
            keeper,
            families,
            reading: Reading { threads, strict: config.data.strict },
            skipped,
            captured,
            settled: state.step,
            whole: true,
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
        let mut batches = self.batches()?;
        let trained = self.train(&mut batches, observer).map_err(|error| self.explain(error));
        trained.inspect_err(|error| self.rescue(error, observer))?;
        self.conclude()
    }

    /// Takes step after step, and what comes between them.
    fn train(&mut self, batches: &mut Batches, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let mut since = Since::now();
        let mut stopped = false;
        while !self.is_finished() && !stopped {
            let turn = self.advance(batches, &mut since, observer)?;
            if turn.end_of_epoch {
                self.note_skipped(batches, observer)?;
                self.share_skipped(observer)?;
                let record = self.end_epoch(observer)?;
                if let Some(keeper) = &mut self.keeper {
                    keeper.logs.epoch(&record)?;
                }
                observer.epoch(&record);
                since = Since::now();
            }
            // Several have agreed on it; one may be asked while it measures.
            stopped = turn.stop || self.team.is_alone() && observer.stop();
            self.keep(stopped, turn.end_of_epoch, batches, observer)?;
        }
        Ok(())
    }

    /// Saves the state where that is due.
    fn keep(
        &mut self,
        stopped: bool,
        end_of_epoch: bool,
        batches: &Batches,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let (last, best) = (stopped || self.is_finished(), end_of_epoch && self.is_best());
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        keeper.saver.look()?;
        if last || keeper.saver.is_due(self.state.step, end_of_epoch) {
            self.settle()?;
            self.note_skipped(batches, observer)?;
            if let Some(keeper) = &mut self.keeper {
                keeper.save(&self.state, self.config)?;
            }
        } else if best {
            keeper.hold(&self.state, self.config)?;
        }
        Ok(())
    }

    /// Whether this worker keeps the run.
    pub(super) fn keeps(&self) -> bool {
        self.keeper.is_some()
    }

    fn is_finished(&self) -> bool {
        self.epochs() >= self.config.train.epochs
    }

    /// Epochs that are behind all workers together.
    pub(super) fn epochs(&self) -> u64 {
        self.state.behind().epochs(self.train.len())
    }

    /// Starts making batches.
    fn batches(&self) -> Result<Batches, TrainError> {
        let config = LoaderConfig {
            batch: self.team.part.batch(self.config)?,
            share: self.team.part.share(),
            seed: self.config.train.seed,
            reading: self.reading,
            views: self.families.to_vec(),
        };
        let (next, device) = (self.state.places[self.team.part.rank], &self.state.model.device);
        Batches::start(self.train.clone(), config, next, device, &self.plan.views)
    }

    /// Takes the step of the next batch, and logs it where that is due. Returns whether an epoch ends with it, and
    /// whether to stop.
    fn advance(
        &mut self,
        batches: &mut Batches,
        since: &mut Since,
        observer: &mut dyn Observer,
    ) -> Result<Turn, TrainError> {
        let batch = batches.next(self.captured.as_mut().map(CapturedStep::pixels));
        let batch = batch.map_err(|error| self.team.part.explain(error))?;
        since.waited += batch.waited;
        since.views += 2 * batch.indices.len() * self.team.part.of;
        let rate = self.schedule.rate(self.state.step);
        self.step(&batch.views, rate)?;
        self.whole = false;
        if self.state.step == self.plan.done + 1 {
            self.note_searches(observer);
        }
        let epochs = self.epochs();
        let stop = self.team.take_turn(&mut self.state.places, batch.position, observer.stop())?;
        self.whole = true;
        batches.recycle(batch);
        let turn = Turn { end_of_epoch: self.epochs() > epochs, stop };
        // While the step computes.
        if !self.is_finished() {
            batches.bring()?;
        }
        if self.state.step.is_multiple_of(self.log_every) || turn.end_of_epoch {
            self.settle()?;
            let record = self.step_record(rate, since)?;
            if let Some(keeper) = &mut self.keeper {
                keeper.logs.step(&record)?;
            }
            observer.step(&record);
        }
        Ok(turn)
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

    /// Leaves the state on the disk, where this worker keeps it.
    fn conclude(mut self) -> Result<Ended, TrainError> {
        let (finished, step, skipped) = (self.is_finished(), self.state.step, self.skipped.len());
        let Some(keeper) = &mut self.keeper else {
            return Ok(Ended { finished, step, checkpoint: None, skipped });
        };
        keeper.saver.wait()?;
        let checkpoint = match keeper.saver.newest() {
            Some(path) => path,
            None => {
                keeper.save(&self.state, self.config)?;
                keeper.saver.wait()?;
                keeper.saver.checkpoints().path(step)
            }
        };
        if finished {
            keeper.folder.remove_cache();
        }
        Ok(Ended { finished, step, checkpoint: Some(checkpoint), skipped })
    }

    /// Takes a step on `views`, or on those that a GPU has; or starts it where [`Run::settle`] is to learn what
    /// came of it.
    fn step(&mut self, views: &[u8], rate: f64) -> Result<(), TrainError> {
        let State { model, optimizer, .. } = &mut self.state;
        let loss = &self.config.loss;
        if let Some(captured) = &mut self.captured {
            captured.step(model, optimizer, loss, self.team.collective, rate)?;
            self.state.step += 1;
            return Ok(());
        }
        let (figures, taken) = train_step(model, optimizer, loss, self.team.collective, views, rate)?;
        self.figures = figures;
        if !taken {
            return Err(self.not_finite(self.state.step, self.figures_in_words()));
        }
        self.state.step += 1;
        self.state.sums.steps += 1;
        self.state.sums.loss += figures.batch.loss;
        self.state.sums.contrastive_accuracy += figures.batch.contrastive_accuracy;
        Ok(())
    }

    /// Learns what came of the steps that were started.
    pub(super) fn settle(&mut self) -> Result<(), TrainError> {
        let Some(captured) = &self.captured else { return Ok(()) };
        let found = captured.figures()?;
        self.team.collective.check()?;
        let VerdictFigures { loss, contrastive_accuracy, entropy, gradient_norm, .. } = found;
        let batch = ContrastiveFigures { loss, contrastive_accuracy, entropy };
        self.figures = StepFigures { batch, gradient_norm };
        let sums = &mut self.state.sums;
        // The sums are those of the epoch, whose first step is known by how many were counted when they were last
        // looked at.
        let unsound = self.settled + (found.steps - sums.steps);
        self.settled = self.state.step;
        *sums =
            EpochSums { steps: found.steps, loss: found.loss_sum, contrastive_accuracy: found.accuracy_sum };
        self.state.skipped_steps = found.skipped;
        self.state.loss_scale = captured.loss_scale()?;
        if found.sound { Ok(()) } else { Err(self.not_finite(unsound, self.figures_in_words())) }
    }

    /// What was found of the last step that was looked at.
    fn figures_in_words(&self) -> String {
        format!("loss {} and gradient norm {}", self.figures.batch.loss, self.figures.gradient_norm)
    }

    /// An error of what comes between steps, as one of the step before it where that has spoiled the network.
    fn explain(&mut self, error: TrainError) -> TrainError {
        let what = match error {
            TrainError::FeaturesNotFinite { .. } => "the features of held-out images".to_owned(),
            TrainError::WeightsNotFinite { tensor } => format!("the values of `{tensor}`"),
            error => return error,
        };
        self.not_finite(self.state.step.saturating_sub(1), what)
    }

    /// With step number `step`, `what` was not finite.
    fn not_finite(&mut self, step: u64, what: String) -> TrainError {
        let last_good = self.keeper.as_mut().and_then(|keeper| {
            // One that could not be written is not there: the one before it is named.
            let _ = keeper.saver.wait();
            keeper.saver.checkpoints().latest_good().ok().flatten().map(|found| found.path)
        });
        TrainError::NotFinite { step, rate: self.schedule.rate(step), what, last_good }
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
            epoch: self.state.behind().0 as f64 / self.train.len() as f64,
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
        self.list_skipped(batches.skipped(), observer)
    }

    /// Does so with those that the other workers have met.
    fn share_skipped(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        if self.team.is_alone() {
            return Ok(());
        }
        let met = self.team.gather_skipped(&self.skipped)?;
        self.list_skipped(met, observer)
    }

    /// Lists those of the broken images `met` that are not listed yet.
    pub(super) fn list_skipped(
        &mut self,
        met: Vec<Skipped>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let before = self.skipped.len();
        let mut known: HashSet<u32> = self.skipped.iter().map(|known| known.index).collect();
        self.skipped.extend(met.into_iter().filter(|met| known.insert(met.index)));
        let Some(keeper) = self.keeper.as_ref().filter(|_| self.skipped.len() > before) else {
            return Ok(());
        };
        keeper.folder.write_skipped(&self.skipped)?;
        let (count, list) = (self.skipped.len(), keeper.folder.skipped());
        let images = if count == 1 { "image" } else { "images" };
        observer.warn(&format!("{count} {images} could not be used, listed in {}", list.display()));
        Ok(())
    }

    /// Whether the state is the best so far.
    fn is_best(&self) -> bool {
        self.state.best.as_ref().is_some_and(|best| best.step() == self.state.step)
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
