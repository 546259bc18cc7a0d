//! Starting or resuming a run, and training it to the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Error, Result};
use simclr_cuda::BUILT_IN;
use simclr_data::{DataError, Dataset};
use simclr_engine::{Device, EngineError};
use simclr_exchange::has_encoder;
use simclr_train::checkpoint::{LoadedCheckpoint, Meta};
use simclr_train::config::DeviceName;
use simclr_train::pretrain::{self, Outcome, Resumed, lead};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, TrainError};

use crate::exit::{Done, Rescued, Stopped, usage};
use crate::interrupt::{self, Watch};
use crate::out::is_among;
use crate::progress::{Assisting, Progress, Rescue};
use crate::workers::{ConnectedWorkers, Rendezvous, WorkerRole};
use crate::{terminal, weights};

/// A locked run folder, and what to do in it.
pub struct Training {
    /// The folder of the run.
    pub folder: RunFolder,
    /// The configuration of the run.
    pub config: Config,
    from: Option<LoadedCheckpoint>,
    /// Whether this process has just created the run.
    new: bool,
}

/// Creates the run folder.
pub fn begin(out: &Path, config: Config) -> Result<Training> {
    let folder = RunFolder::create(out, &config)?;
    Ok(Training { folder, config, from: None, new: true })
}

/// Resumes a run from its newest good checkpoint, with warnings about damaged ones. `given` turns the configuration
/// that the run was started with into the one that it continues with.
pub fn resume(out: &Path, given: impl FnOnce(&Resumed) -> Result<Config>) -> Result<Training> {
    let Resumed { folder, config, from, .. } = continued(pretrain::resume(out)?, given)?;
    Ok(Training { folder, config, from, new: false })
}

/// Returns what [`resume`] would continue with and from where, without touching anything.
pub fn inspect(out: &Path, given: impl FnOnce(&Resumed) -> Result<Config>) -> Result<(Config, Option<Meta>)> {
    let Resumed { config, from, .. } = continued(pretrain::inspect(out)?, given)?;
    Ok((config, from.map(|from| from.checkpoint.meta)))
}

/// Decides how a run continues. Prints from where, and warns of what ended it before.
fn continued(resumed: Resumed, given: impl FnOnce(&Resumed) -> Result<Config>) -> Result<Resumed> {
    let given = given(&resumed)?;
    let resumed = resumed.change(&given)?;
    let out = resumed.folder.path();
    match &resumed.from {
        Some(found) if !resumed.is_finished() => {
            let (step, file) = (terminal::grouped(found.checkpoint.meta.step), found.path.display());
            terminal::say(&format!("resuming after step {step}, from {file}"));
        }
        Some(_) => (),
        None => terminal::say(&format!("{} has no checkpoint yet: beginning anew", out.display())),
    }
    if let Some(failure) = &resumed.failed {
        let instead = match resumed.from {
            Some(_) => {
                let out = terminal::quoted_path(out);
                format!("begin another run from its encoder (--from {out}) with other settings")
            }
            None => "set other keys with --set".to_owned(),
        };
        terminal::warn(&format!(
            "the last time, this run {failure}. It will do so again on the same images; {instead}, such as a lower optim.rate, a longer \
             optim.warmup_epochs or a higher loss.temperature"
        ));
    }
    Ok(resumed)
}

impl Training {
    /// The state in which the run was last saved, if it was.
    pub fn saved(&self) -> Option<&Meta> {
        self.from.as_ref().map(|from| &from.checkpoint.meta)
    }

    /// Records the paths of the data in the run, for whoever looks at it later; only warns if it cannot.
    pub fn record_data(&mut self, data: &[PathBuf]) {
        let data: Vec<&Path> = data.iter().map(PathBuf::as_path).collect();
        if let Err(error) = self.folder.record_data(&data) {
            terminal::warn(&format!("what the run is trained on is not recorded in it: {error}"));
        }
    }

    /// Whether all epochs were done before.
    pub fn is_finished(&self) -> bool {
        self.saved().is_some_and(|meta| meta.has_finished(self.config.train.epochs))
    }

    /// Completes a run that was stopped after its last checkpoint, with all epochs done: writes its encoder to a file,
    /// unless that is there, whole and not of an earlier step, and removes the images that were cached for it.
    pub fn complete(&self) -> Result<()> {
        let lacks = |from: &&LoadedCheckpoint| !has_encoder(&self.folder, from.checkpoint.meta.step);
        if let Some(from) = self.from.as_ref().filter(lacks) {
            self.write_encoder(&from.path)?;
        }
        self.folder.remove_cache();
        Ok(())
    }

    /// Writes the encoder of a finished run for other programs.
    pub fn write_encoder(&self, checkpoint: &Path) -> Result<()> {
        let encoder = simclr_exchange::write_encoder(&self.folder, checkpoint)?;
        weights::tell(&self.folder, &self.config, &encoder);
        Ok(())
    }

    /// Trains until done, or until Ctrl-C, alone or with other workers as `rendezvous` says. If the data set turns out
    /// too small, the batch too large, or a device or worker missing, no new folder is left behind. After an
    /// error from outside, `again` is named as the command to continue with.
    pub fn go(&self, dataset: &Arc<dyn Dataset>, rendezvous: &Rendezvous, again: &str) -> Result<Outcome> {
        let (watch, train) = (Watch::start("stopping"), &self.config.train);
        let (role, threads) = (&rendezvous.role, rendezvous.threads(&self.config));
        let device = device_of_worker(train.device, role, threads).inspect_err(|_| self.abandon())?;
        let connected = rendezvous.connect(&self.config).inspect_err(|_| self.abandon())?;
        if interrupt::requested() {
            connected.team().leave("worker 0 was stopped");
            self.abandon();
            return Err(Stopped.into());
        }
        drop(watch);
        let started = Instant::now();
        let watch = Watch::start("stopping: finishing this step and saving");
        let mut progress = Progress::new(self.config.train.epochs);
        let from = self.from.as_ref().map(|from| &from.checkpoint);
        let result =
            lead(dataset, &self.config, &self.folder, from, &connected.team(), &device, &mut progress);
        let rescued = progress.rescued.take();
        let just_told = result.as_ref().is_ok_and(|outcome| progress.has_just_told_of(outcome.skipped));
        drop(progress);
        drop(watch);
        drop(connected);
        if result.as_ref().is_err_and(may_be_before_first_step) {
            self.abandon();
        }
        let outcome = match (result, rescued) {
            (Err(error), Some(rescue)) => {
                let how = how_to_continue(&error, &rescue, again);
                return Err(Error::new(error).context(Rescued(how)));
            }
            (result, _) => result?,
        };
        if outcome.finished {
            let before = self.saved().map_or(0, |meta| meta.step);
            let in_all = match before {
                0 => String::new(),
                _ => format!(", {} in all", terminal::grouped(outcome.step)),
            };
            terminal::say(&format!(
                "{} in {}{in_all}, saved to {}",
                terminal::counted(outcome.step.saturating_sub(before) as usize, "step"),
                terminal::clock(started.elapsed()),
                self.folder.path().display()
            ));
        }
        if !just_told {
            self.say_skipped(outcome.skipped);
        }
        Ok(outcome)
    }

    fn say_skipped(&self, skipped: usize) {
        if skipped > 0 {
            let images = terminal::counted(skipped, "image");
            let list = self.folder.skipped();
            terminal::say(&format!("{images} could not be used, listed in {}", list.display()));
        }
    }

    /// Removes the run if it is new and no step was taken in it.
    fn abandon(&self) {
        let unlogged = self.folder.metrics().metadata().map_or(true, |found| found.len() == 0);
        // Steps that were not logged yet may have been saved.
        let unsaved = || matches!(self.folder.checkpoints(1).list(), Ok(found) if found.is_empty());
        if self.new && unlogged && unsaved() {
            self.folder.discard();
        }
    }
}

/// How to go on after an error from outside: from the checkpoint of `rescue`, with the command `again`.
fn how_to_continue(error: &TrainError, rescue: &Rescue, again: &str) -> String {
    let checkpoint = rescue.checkpoint.display();
    let saved = match rescue.lost {
        0 => format!("saved to {checkpoint}"),
        1 => format!("the newest checkpoint is {checkpoint}; the step after it could not be saved"),
        lost => {
            let lost = terminal::grouped(lost);
            format!("the newest checkpoint is {checkpoint}; the {lost} steps after it could not be saved")
        }
    };
    match error {
        // A run goes on with the files that it began with, so that another in place of a broken one is of no use.
        TrainError::Data(DataError::Image { .. }) => {
            format!(
                "{saved}: to continue without images that cannot be read: {again} --set data.strict=false"
            )
        }
        _ => format!("{saved}: once that is mended, continue with: {again}"),
    }
}

/// Whether a run may have ended with this error before its first step.
fn may_be_before_first_step(error: &TrainError) -> bool {
    error.is_before_first_step()
        || matches!(
            error,
            TrainError::Workers(_)
                | TrainError::SharedGpu { .. }
                | TrainError::Engine(EngineError::Collective(_))
                | TrainError::Data(
                    DataError::TooFewImages { .. } | DataError::Image { .. } | DataError::Lost { .. }
                )
        )
}

/// Works as a member of the `connected` workers in a run that another worker keeps.
pub fn assist(
    dataset: &Arc<dyn Dataset>,
    config: &Config,
    role: &WorkerRole,
    connected: &ConnectedWorkers,
) -> Result<Done> {
    let device = device_of_worker(config.train.device, role, config.train.threads.value().unwrap_or(0))?;
    let finished = pretrain::assist(dataset, config, &connected.team(), &device, &mut Assisting);
    Ok(if finished? { Done::Finished } else { Done::Interrupted })
}

/// Checks that a new run may be created in `out`. Returns whether it is to replace one, which only `force` allows.
pub fn check_new(out: &Path, force: bool) -> Result<bool, TrainError> {
    let replaces = force && RunFolder::exists(out);
    match replaces {
        true => RunFolder::check_removable(out)?,
        false => RunFolder::check_new(out)?,
    }
    Ok(replaces)
}

/// Checks that the run in `out` may be removed for one of `config` on `data`: that begins with neither its encoder nor
/// its files.
pub fn check_unneeded(out: &Path, config: &Config, data: &[PathBuf]) -> Result<()> {
    let lies_there = |path: &Path| is_among(path, &[out.to_path_buf()]);
    if config.train.begins_with().is_some_and(lies_there) {
        return Err(usage(format!("train.from is {}, which --force removes", out.display())));
    }
    match data.iter().find(|path| lies_there(path)) {
        Some(path) => {
            let (path, out) = (path.display(), out.display());
            Err(usage(format!("{path} is in the run {out}, which --force removes; take it elsewhere")))
        }
        None => Ok(()),
    }
}

/// Removes the run in `out` for a new one of `config` on `dataset`, unless that could not take its first step.
pub fn remove(out: &Path, config: &Config, dataset: &Arc<dyn Dataset>) -> Result<()> {
    let alone = Rendezvous::ALONE;
    let (device, _) = open(config.train.device, alone.threads(config), &alone.role)?;
    pretrain::plan(dataset, config, &device, alone.role.worker())?;
    Ok(RunFolder::remove(out)?)
}

/// Opens the device of a configuration; see [`device`].
pub fn device_of(config: &Config) -> Result<Device> {
    device(config.train.device, config.train.threads.value().unwrap_or(0))
}

/// Opens the device `name`, with `threads` threads (0: one per core) for what the processor computes of the network and
/// as many for everything else. Prints which GPU is used or, in a build that supports GPUs, why none is.
pub fn device(name: DeviceName, threads: usize) -> Result<Device> {
    device_of_worker(name, &WorkerRole::Alone, threads)
}

/// Like [`device`], for a worker, whose GPU may differ from the one that all workers were given.
fn device_of_worker(name: DeviceName, role: &WorkerRole, threads: usize) -> Result<Device> {
    let (device, why) = open(name, threads, role)?;
    if let Some(why) = why.filter(|_| BUILT_IN) {
        terminal::say(&format!("computing on the processor: {why}"));
    }
    if device.is_gpu() {
        terminal::say(&format!("computing on {device}"));
    }
    Ok(device)
}

/// Opens a device without a word. Also returns why it is no GPU, if one was looked for.
fn open(name: DeviceName, threads: usize, role: &WorkerRole) -> Result<(Device, Option<EngineError>)> {
    let opened = name.open_with(threads, |first| role.gpu(first));
    let (device, why) = match name {
        DeviceName::Cuda(_) => opened.map_err(|error| no_gpu(name, error))?,
        DeviceName::Auto | DeviceName::Cpu => opened?,
    };
    // Fails if it exists already: a second call in a process asks for the same number of threads.
    if rayon::ThreadPoolBuilder::new().num_threads(device.threads()).build_global().is_err() {
        tracing::debug!("the shared threads are there already");
    }
    Ok((device, why))
}

/// How to install a program that can use GPUs; empty if this one can. Appended to the reason why this one cannot.
pub const GPU_ADVICE: &str =
    if BUILT_IN { "" } else { ": cargo install --locked --path crates/cli --features cuda" };

/// The error for a GPU that was asked for and cannot be used.
pub fn no_gpu(name: DeviceName, error: EngineError) -> anyhow::Error {
    let message = format!("--device {name} (train.device): {error}{GPU_ADVICE}; simclr doctor tells more");
    anyhow::Error::new(error).context(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_done_is_what_is_advised() {
        let after = |error: TrainError, lost| {
            let rescue = Rescue { checkpoint: "RUN/checkpoints/step-7".into(), lost };
            how_to_continue(&error, &rescue, "simclr again --resume")
        };
        let how = |error| after(error, 0);
        let image = DataError::Image { name: "a.jpg".to_owned(), reason: "torn".to_owned() };
        assert!(how(image.into()).ends_with("simclr again --resume --set data.strict=false"));
        let gone = TrainError::RunGone { path: "RUN".into() };
        let mended = "once that is mended, continue with: simclr again --resume";
        assert_eq!(how(gone), format!("saved to RUN/checkpoints/step-7: {mended}"));
        let full = || TrainError::RunGone { path: "RUN".into() };
        let newest = "the newest checkpoint is RUN/checkpoints/step-7; the";
        assert_eq!(after(full(), 1), format!("{newest} step after it could not be saved: {mended}"));
        assert_eq!(
            after(full(), 2600),
            format!("{newest} 2,600 steps after it could not be saved: {mended}")
        );
    }
}
