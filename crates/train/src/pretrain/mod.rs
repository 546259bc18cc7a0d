//! Pretraining: the loop that turns images into an encoder.

mod batches;
mod best;
mod captured;
mod health;
mod identity;
mod records;
mod saving;
mod state;
mod step;
mod views;
mod views_on;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use simclr_data::{Cached, Dataset, LoaderConfig, Reading, Skipped, Subset};
use simclr_engine::ops::NtXentFigures;
use simclr_engine::{Device, SingleProcess, VerdictFigures};

use crate::checkpoint::Checkpoint;
use crate::config::Cache;
use crate::metrics_log::MetricsLog;
use crate::run_folder::RunFolder;
use crate::tensorboard::EventLog;
use crate::{Config, Schedule, TrainError, memory};

pub use batches::Batches;
pub use captured::CapturedStep;
pub(crate) use health::PAIRS;
pub use health::{Health, features, health, holdout_knn};
pub use identity::Identity;
pub use records::{EpochRecord, HealthFields, StepRecord};
pub(crate) use step::forward_backward;
pub use step::{StepFigures, train_step, weight_norm};
pub use views::RunViews;
pub use views_on::ViewsPlace;

use best::BestBy;
use records::Logs;
use saving::Saver;
use state::{EpochSums, State};

/// Fewer held-out images than this say nothing: they are trained on instead.
const LEAST_HOLDOUT: usize = 8;
/// What is kept on disk unless more or less is asked for, in bytes.
const DISK_CACHE: u64 = 20 << 30;
/// Steps of a GPU between lines of the log by default: each waits for what was started before it.
const GPU_LOG_EVERY: u64 = 10;
/// Below this spread of normalised z (1 in health) the run is collapsing.
const COLLAPSE: f64 = 0.2;

/// A search for the fastest kernels of a GPU that took so long is told.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// Somebody who watches a run, and may stop it.
pub trait Observer {
    /// The run is about to take its first step.
    fn started(&mut self, plan: &Plan);
    /// A step was logged.
    fn step(&mut self, record: &StepRecord);
    /// An epoch has ended.
    fn epoch(&mut self, record: &EpochRecord);
    /// Something is worth a line.
    fn warn(&mut self, message: &str);
    /// Something that is as it should be may be wondered at.
    fn note(&mut self, _message: &str) {}
    /// Whether to stop after this step. What was done is saved first.
    fn stop(&self) -> bool;
}

/// What a run is going to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Images trained on.
    pub images: usize,
    /// Images held out.
    pub holdout: usize,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps done already.
    pub done: u64,
    /// Steps in an epoch.
    pub steps_per_epoch: u64,
    /// Values trained, of encoder and head together.
    pub parameters: usize,
    /// Where it runs.
    pub device: String,
    /// Whether that is a GPU.
    pub on_gpu: bool,
    /// Operators that are left out of the views, because the images are grey and they would change nothing.
    pub left_out: Vec<&'static str>,
    /// Where the views are made.
    pub views: ViewsPlace,
    /// What is kept for the backward pass, and the memory that the run takes.
    pub memory: memory::Choice,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether all epochs are done; otherwise an observer stopped the run.
    pub finished: bool,
    /// Steps done.
    pub step: u64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// Images that could not be used.
    pub skipped: usize,
}

/// Trains on `dataset` as `config` says, in `run`, from `from` or from the start, until done or stopped.
///
/// The same configuration on the same data gives the same bits for any number of threads, and however often the run
/// is interrupted and taken up again; on a GPU, unless `train.deterministic` is false.
pub fn pretrain(
    dataset: &Arc<dyn Dataset>,
    config: &Config,
    run: &RunFolder,
    from: Option<&Checkpoint>,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    config.prepare(device)?;
    let images = dataset.len();
    let held_out = holdout_of(config, images);
    if images - held_out < config.train.batch {
        return Err(TrainError::BatchTooLarge {
            batch: config.train.batch,
            images: images - held_out,
            holdout: held_out,
        });
    }
    let identity = Identity::of(dataset.as_ref());
    let mut state = match from {
        Some(checkpoint) => {
            if let Some(problem) = identity.problem(&checkpoint.meta) {
                return Err(TrainError::CannotResume { path: run.path().to_path_buf(), problem });
            }
            State::restore(checkpoint, config, device)?
        }
        None => State::new(config, device)?,
    };
    let sizes = memory::Images::of(config, device, dataset.as_ref());
    let mut memory = memory::choose((&state.model, &state.optimizer), config, &sizes)?;
    state.model = state.model.with_memory(memory.memory);
    let Parts { train, holdout } = split(kept(dataset, config, run, device, &memory)?, config, held_out)?;
    let views = RunViews::new(config, &*train)?;
    let place = ViewsPlace::decide(config, device, &views.families, &*train, &memory)?;
    memory.needs.images += place.to_keep(&sizes);
    let files = run.files().as_ref();
    let logs = match from {
        Some(checkpoint) => Logs {
            metrics: MetricsLog::resume(files, &run.metrics(), checkpoint.meta.metrics_bytes)?,
            events: EventLog::resume(files, run.path(), checkpoint.meta.events_bytes)?,
        },
        None => Logs {
            metrics: MetricsLog::create(files, &run.metrics())?,
            events: EventLog::create(files, run.path())?,
        },
    };
    let threads = config.data.workers.unwrap_or_else(|| device.threads());
    let skipped = match from {
        Some(_) => run.read_skipped()?,
        None => Vec::new(),
    };
    let schedule = Schedule::new(config, train.len() as u64);
    let captured = match device.is_gpu() {
        true => Some(CapturedStep::new(&state.model, 2 * config.train.batch)?),
        false => None,
    };
    let mut run = Run {
        config,
        run,
        schedule,
        steps_per_epoch: (train.len() / config.train.batch) as u64,
        log_every: config.train.log_every.unwrap_or_else(|| if device.is_gpu() { GPU_LOG_EVERY } else { 1 }),
        best_by: BestBy::choose(&config.train, &train, holdout.as_ref()),
        train,
        holdout,
        identity,
        views,
        place,
        reading: Reading { threads, strict: config.data.strict },
        skipped,
        captured,
        settled: state.step,
        figures: StepFigures::default(),
        state,
        memory,
        logs,
        saver: Saver::new(run.checkpoints(config.train.keep_checkpoints), config.train.checkpoint_every),
    };
    run.set_sums()?;
    run.set_loss_scale()?;
    run.go(observer)
}

/// The images of a run.
struct Parts {
    train: Arc<dyn Dataset>,
    holdout: Option<Arc<dyn Dataset>>,
}

/// Images of `images` that are held out.
pub fn holdout_of(config: &Config, images: usize) -> usize {
    Some(config.data.holdout_of(images)).filter(|&count| count >= LEAST_HOLDOUT).unwrap_or(0)
}

/// Sets `held_out` of the images apart.
fn split(whole: Arc<dyn Dataset>, config: &Config, held_out: usize) -> Result<Parts, TrainError> {
    if held_out == 0 {
        return Ok(Parts { train: whole, holdout: None });
    }
    let (train, holdout) = Subset::split_off_holdout(whole, held_out, config.train.seed)?;
    Ok(Parts { train: Arc::new(train), holdout: Some(Arc::new(holdout)) })
}

/// The data set with what is decoded once kept, where the configuration says and within its limit: by choice only where the run leaves
/// room.
fn kept(
    dataset: &Arc<dyn Dataset>,
    config: &Config,
    run: &RunFolder,
    device: &Device,
    memory: &memory::Choice,
) -> Result<Arc<dyn Dataset>, TrainError> {
    let limit = config.data.cache_bytes();
    let in_memory = |bytes| Arc::new(Cached::in_memory(dataset.clone(), bytes));
    Ok(match config.data.cache {
        Cache::None => dataset.clone(),
        Cache::Auto => {
            // Images are kept in the system's memory, where a GPU's network is not.
            let (available, taken) = match (device.is_gpu(), memory.available) {
                (false, Some(available)) => (available, memory.needs.total()),
                (false, None) => (memory::available_bytes(), memory.needs.total()),
                (true, _) => (memory::available_bytes(), 0),
            };
            let room = available.saturating_sub(taken);
            in_memory(room.min(limit.unwrap_or(available / 4)))
        }
        Cache::Ram => in_memory(limit.unwrap_or(u64::MAX)),
        Cache::Disk => {
            let (decode, limit) = (config.data.decode(), limit.unwrap_or(DISK_CACHE));
            Arc::new(Cached::on_disk(dataset.clone(), &decode, limit, &run.cache())?)
        }
    })
}

struct Run<'r> {
    config: &'r Config,
    run: &'r RunFolder,
    schedule: Schedule,
    steps_per_epoch: u64,
    /// Steps between lines of the log.
    log_every: u64,
    train: Arc<dyn Dataset>,
    holdout: Option<Arc<dyn Dataset>>,
    best_by: Option<BestBy>,
    identity: Identity,
    views: RunViews,
    place: ViewsPlace,
    reading: Reading,
    /// Images that could not be used, those listed before the run was taken up again among them.
    skipped: Vec<Skipped>,
    state: State,
    /// The steps, where a GPU takes them.
    captured: Option<CapturedStep>,
    /// Steps that are known to be sound, those before the run was taken up again among them.
    settled: u64,
    /// Of the last step that was looked at.
    figures: StepFigures,
    memory: memory::Choice,
    logs: Logs,
    saver: Saver,
}

impl Run<'_> {
    fn go(mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        let epochs = self.config.train.epochs;
        observer.started(&Plan {
            images: self.train.len(),
            holdout: self.holdout.as_ref().map_or(0, |h| h.len()),
            steps: self.steps_per_epoch * epochs,
            done: self.state.step,
            steps_per_epoch: self.steps_per_epoch,
            parameters: self.state.model.parameters.trained_values(),
            device: self.state.model.device.to_string(),
            on_gpu: self.state.model.device.is_gpu(),
            left_out: self.views.left_out.clone(),
            views: self.place.clone(),
            memory: self.memory,
        });
        let loader = LoaderConfig {
            batch: self.config.train.batch,
            seed: self.config.train.seed,
            reading: self.reading,
            prefetch: 2,
            views: self.views.families.to_vec(),
        };
        let device = self.state.model.device.clone();
        let mut batches =
            Batches::start(self.train.clone(), loader, self.state.position, &device, &self.place)?;
        let mut since = Since::now();
        let (mut stopped, mut first) = (false, true);
        while self.state.position.epoch < epochs && !stopped {
            let batch = batches.next(self.captured.as_mut().map(CapturedStep::pixels))?;
            since.waited += batch.waited;
            since.views += 2 * batch.indices.len();
            let rate = self.schedule.rate(self.state.step);
            self.step(&batch.views, rate)?;
            if std::mem::take(&mut first)
                && let Some((searches, time)) = device.searched()
                && time >= WORTH_TELLING
            {
                observer.note(&format!(
                    "the first step took {:.0} s to choose the fastest of several ways to compute {searches} convolutions and products: \
                     the choice is remembered",
                    time.as_secs_f64()
                ));
            }
            self.state.position = batch.position;
            let end_of_epoch = batch.end_of_epoch;
            batches.recycle(batch);
            // While the step computes.
            if self.state.position.epoch < epochs {
                batches.bring()?;
            }
            if self.state.step.is_multiple_of(self.log_every) || end_of_epoch {
                self.settle()?;
                let record = self.step_record(rate, &mut since)?;
                self.logs.step(&record)?;
                observer.step(&record);
            }
            if end_of_epoch {
                self.note_skipped(&batches, observer)?;
                let record = self.end_epoch(observer)?;
                self.logs.epoch(&record)?;
                observer.epoch(&record);
                since = Since::now();
            }
            stopped = observer.stop();
            self.saver.look()?;
            let last = stopped || self.state.position.epoch >= epochs;
            if last || self.saver.is_due(self.state.step, end_of_epoch) {
                self.settle()?;
                self.note_skipped(&batches, observer)?;
                self.save()?;
            } else if end_of_epoch && self.is_best() {
                let (metrics, events) = (self.logs.metrics.length(), self.logs.events.length());
                let Run { state, config, identity, saver, .. } = &mut self;
                saver.hold(|| state.checkpoint(config, *identity, metrics, events))?;
            }
        }
        self.saver.wait()?;
        let checkpoint = match self.saver.newest() {
            Some(path) => path,
            None => {
                self.save()?;
                self.saver.wait()?;
                self.saver.checkpoints().path(self.state.step)
            }
        };
        let finished = self.state.position.epoch >= epochs;
        if finished {
            // Nothing will be read again. What cannot be removed only takes room.
            let _ = self.run.files().remove(&self.run.cache());
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
        let batch = NtXentFigures { loss, contrastive_accuracy, entropy };
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
    fn set_sums(&mut self) -> Result<(), TrainError> {
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
            epoch: self.state.step as f64 / self.steps_per_epoch as f64,
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
            self.run.write_skipped(&self.skipped)?;
            let (count, list) = (self.skipped.len(), self.run.skipped());
            let images = if count == 1 { "image" } else { "images" };
            observer.warn(&format!("{count} {images} could not be used, listed in {}", list.display()));
        }
        Ok(())
    }

    fn end_epoch(&mut self, observer: &mut dyn Observer) -> Result<EpochRecord, TrainError> {
        let sums = std::mem::take(&mut self.state.sums);
        self.set_sums()?;
        let epoch = self.state.position.epoch;
        let turn =
            |every: u64| every > 0 && (epoch.is_multiple_of(every) || epoch == self.config.train.epochs);
        let model = &self.state.model;
        let (mut figures, mut knn) = (None, None);
        if let Some(holdout) = &self.holdout {
            if turn(self.config.train.health_every) {
                let found = health(model, &self.config.loss, holdout, &self.views.families, self.reading)?;
                if found.spread < COLLAPSE {
                    observer.warn(&format!(
                        "the projections are collapsing: their spread is {:.2} of what is healthy; \
                         lower optim.rate or raise loss.temperature",
                        found.spread
                    ));
                }
                figures = Some(HealthFields::from(found));
            }
            if turn(self.config.train.knn_every) {
                knn = holdout_knn(model, &self.train, holdout, self.reading)?;
            }
        }
        let EpochSums { steps, loss, contrastive_accuracy } = sums;
        let mean = |sum: f64| sum / steps.max(1) as f64;
        let record = EpochRecord {
            epoch,
            step: self.state.step,
            train_loss: mean(loss),
            train_contrastive_accuracy: mean(contrastive_accuracy),
            health: figures,
            knn_top1: knn,
            skipped: self.skipped.len(),
        };
        if let Some(by) = self.best_by {
            self.state.best = by.better(self.state.best.take(), &record);
        }
        Ok(record)
    }

    /// Whether the state is the best so far.
    fn is_best(&self) -> bool {
        self.state.best.as_ref().is_some_and(|best| best.step() == self.state.step)
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
