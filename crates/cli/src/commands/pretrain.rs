//! `simclr pretrain`: images in, a run folder with an encoder out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use simclr_data::{DataError, Source, SourceKind};
use simclr_train::config::Auto;
use simclr_train::pretrain::{Identity, held_out, plan};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, TrainError};

use crate::data::Opening;
use crate::exit::{Done, usage};
use crate::interrupt::Watch;
use crate::out::check_folder;
use crate::settings::{OnDevice, Settings, Threads};
use crate::training::{self, Training};
use crate::weights::warn_of_other_networks;
use crate::workers::{ConnectedWorkers, Rendezvous, Spawn, WorkerArgs, WorkerRole};
use crate::{data, progress, terminal};

const EXAMPLES: &str = "\
Examples:
  simclr pretrain photos/ --out runs/first --preset photos
  simclr pretrain --out runs/first --resume
  simclr pretrain photos/ --out runs/mine --preset photos --from runs/imagenet
  simclr pretrain 'shards/train-{000..146}.tar' more.zip \\
      --out runs/large --preset imagenet
  simclr pretrain photos/ --out runs/first --workers 2
  simclr pretrain photos/ --out runs/first --workers 4 --worker 0 \\
      --meet node0:29500    # and --worker 1, 2, 3 on other machines
  simclr pretrain cifar/ --dry-run --preset cifar10 \\
      --set optim.rate=0.5 train.epochs=100

The run folder holds config.toml (every key, enough to repeat the run), metrics.jsonl, TensorBoard \
events, checkpoints/, and at the end encoder.safetensors under torchvision's names.";

/// Train an encoder on images; no labels are used
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", data::FORMS))]
pub struct Pretrain {
    /// The images; several are read as one [default with --resume: those that the run was begun with]
    #[arg(required_unless_present = "resume")]
    data: Vec<PathBuf>,

    /// Whether the images are those that the run records.
    #[arg(skip)]
    recorded: bool,

    /// The run folder, new or empty; of several processes only process 0 needs it
    #[arg(long, value_name = "RUN", required_unless_present_any = ["dry_run", "meet"])]
    out: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    on: OnDevice,

    #[command(flatten)]
    worker_args: WorkerArgs,

    /// Continue training from the encoder of another run, trained or imported, instead of random weights; the
    /// encoder.* keys and data.image_size are then taken from it, unless set (train.from)
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    from: Option<PathBuf>,

    /// Replace the run in the folder, if there is one
    #[arg(long, conflicts_with = "resume")]
    force: bool,

    /// Continue the run in the folder, from its newest good checkpoint
    #[arg(long)]
    resume: bool,

    /// Stop at the first image that cannot be read, instead of skipping it (data.strict)
    #[arg(long)]
    strict: bool,

    /// Print the resolved configuration and the plan, and stop
    #[arg(long)]
    dry_run: bool,
}

impl Pretrain {
    pub fn run(mut self) -> Result<Done> {
        let role = self.worker_args.role()?;
        let from = self.from.as_deref().map(absolute_run).transpose()?;
        let strict = self.strict.then(|| ("--strict".to_owned(), "data.strict", "true".to_owned()));
        let from =
            from.map(|path| (format!("--from {path}"), "train.from", toml::Value::from(path).to_string()));
        let others = strict.into_iter().chain(from);
        // The settings are those of worker 0.
        if !matches!(role, WorkerRole::Member { rank: 1.., .. }) {
            self.settings.check_options(self.threads, self.on, others.clone())?;
        }
        self.settings.sets.extend(others.map(|(_, key, value)| format!("{key}={value}")));
        self.settings.sets.extend(self.on.device.map(|device| format!("train.device={device}")));
        if let WorkerRole::Member { rank: rank @ 1.., world_size, address, .. } = &role {
            return self.assist(&role, (*rank, *world_size), address);
        }
        if self.data.is_empty() {
            (self.data, self.recorded) = (self.recorded_data()?, true);
        }
        if self.dry_run {
            return self.plan(&role);
        }
        let Some(out) = self.out.as_deref() else {
            return Err(usage("--worker 0: it keeps the run; give --out RUN"));
        };
        let opened = if self.resume { self.take_up(out)? } else { Some(self.begin(out, &role)?) };
        let Some((training, source)) = opened else { return Ok(Done::Finished) };
        let spawn = Some(Spawn { data: &self.data, out, on: self.on });
        let again = resume_command(&self.data, out) + &self.worker_args.again();
        let trained = training.go(&source.to_pretrain(), &Rendezvous { role, spawn }, &again);
        let outcome = trained.map_err(|error| match error.downcast_ref() {
            Some(TrainError::Data(DataError::Image { .. })) => {
                error.context(format!("an image of {} cannot be read (data.strict)", data::shown(&self.data)))
            }
            _ => error,
        })?;
        if !outcome.finished {
            let (step, saved) = (terminal::grouped(outcome.step), outcome.checkpoint.display());
            terminal::say(&format!("stopped after step {step}, saved to {saved}"));
            terminal::say(&format!("continue with: {again}"));
            return Ok(Done::Interrupted);
        }
        self.conclude(out, &training, &source, &outcome.checkpoint)?;
        Ok(Done::Finished)
    }

    /// Creates the run folder, once the images and the configuration are known to be good.
    fn begin(&self, out: &Path, role: &WorkerRole) -> Result<(Training, Source)> {
        // Reported before the configuration is resolved: the existing run may be why its keys are not given again.
        let replaces = training::check_new(out, self.force)?;
        check_folder(out, "give another: --out RUN")?;
        let decoding = self.settings.data()?;
        let mut opening = Opening::new(&decoding, self.threads.count());
        let source = opening.open(&self.data)?;
        data::look_at(&*source.to_pretrain(), decoding.window)?;
        let config = self.settings.resolve_shared(&source, self.threads, role.worker().world_size)?;
        let images = source.to_pretrain().len();
        role.worker().batch_size(&config, images - held_out(&config, images)?)?;
        self.advise(&config)?;
        if replaces {
            // Whether others come, and with the same images, shows only when the old run would be gone.
            if !matches!(role, WorkerRole::Alone) {
                return Err(usage(format!(
                    "--force: several workers replace no run; remove {} first",
                    out.display()
                )));
            }
            training::check_unneeded(out, &config, &self.data)?;
            training::remove(out, &config, &source.to_pretrain())?;
        }
        let mut training = training::begin(out, config)?;
        training.record_data(&self.data);
        opening.save(&training.folder.index());
        Ok((training, source))
    }

    /// Resumes the run; `None` if it is finished.
    fn take_up(&self, out: &Path) -> Result<Option<(Training, Source)>> {
        let resumed = training::resume(out, |resumed| self.settings.resolve_resumed(resumed, self.threads));
        let mut training = resumed.map_err(|error| self.longer(self.settings.named(error), out))?;
        if training.is_finished() {
            training.complete()?;
            say_finished(out, &training.config);
            return Ok(None);
        }
        let index = training.folder.index();
        let mut opening = Opening::new(&training.config.data, self.threads.count()).with_index(&index);
        let source = self.open(&mut opening, out)?;
        let images = source.to_pretrain();
        training.saved().map_or(Ok(()), |meta| Identity::of(images.as_ref()).check(out, meta))?;
        training.record_data(&self.data);
        opening.save(&index);
        Ok(Some((training, source)))
    }

    /// The data that the run records.
    fn recorded_data(&self) -> Result<Vec<PathBuf>> {
        let out = self.out.as_deref().ok_or_else(|| usage("--resume: which run? give --out RUN"))?;
        let (run, _) = RunFolder::open(out)?;
        run.check_trained_here()?;
        let data = run.data();
        match data.is_empty() {
            true => Err(usage(format!(
                "{} does not record its images; give them: DATA (a run of quickstart goes on with: simclr quickstart \
                 --out {} --resume)",
                out.display(),
                terminal::quoted_path(out)
            ))),
            false => Ok(data),
        }
    }

    /// Opens the data of the run in `out`.
    fn open(&self, opening: &mut Opening, out: &Path) -> Result<Source> {
        opening.open(&self.data).map_err(|error| match error {
            DataError::NotFound(_) if self.recorded => usage(format!(
                "{error}; {} was begun with these images: give the place where they are now, as DATA",
                out.display()
            )),
            error => error.into(),
        })
    }

    /// Writes the encoder of a finished run for other programs, and prints how to evaluate it.
    fn conclude(&self, out: &Path, training: &Training, source: &Source, checkpoint: &Path) -> Result<()> {
        training.write_encoder(checkpoint)?;
        warn_of_other_networks(&training.config.encoder);
        let run = terminal::quoted_path(out);
        match self.labelled(source) {
            Some(labelled) => {
                let labelled = terminal::quoted_path(labelled);
                terminal::say(&format!("next: simclr knn {run} --train {labelled} (how good is it?)"));
            }
            None => {
                let first = self.data.first().filter(|_| source.kind != SourceKind::Images);
                let data = first.map_or("DATA".to_owned(), |path| terminal::quoted_path(path));
                terminal::say(&format!("next: simclr report {run} --train {data} (neighbours, maps)"));
                terminal::say(&format!("with labels: simclr knn {run} --train LABELLED"));
            }
        }
        Ok(())
    }

    /// The first path of DATA whose images have labels of at least two classes.
    fn labelled(&self, source: &Source) -> Option<&PathBuf> {
        let images = &source.train;
        let mut found: Vec<Option<u32>> = vec![None; self.data.len()];
        // The first of equal paths counts.
        let places: HashMap<&Path, usize> =
            self.data.iter().enumerate().rev().map(|(place, path)| (path.as_path(), place)).collect();
        for (index, label) in (0..images.len()).filter_map(|index| Some((index, images.label(index)?))) {
            // With several data sets, images are named by their whole paths.
            let place = match found.len() {
                1 => Some(0),
                _ => {
                    Path::new(&images.name(index)).ancestors().filter_map(|at| places.get(at).copied()).min()
                }
            };
            let Some(place) = place else { continue };
            if *found[place].get_or_insert(label) != label {
                return Some(&self.data[place]);
            }
        }
        None
    }

    /// Works as a worker in a run that worker 0 keeps and configures.
    fn assist(&self, role: &WorkerRole, (rank, world_size): (usize, usize), address: &str) -> Result<Done> {
        // Launchers give all processes the same arguments. Those that configure the run are for worker 0, which sends
        // the configuration to the others.
        if self.dry_run {
            return Ok(Done::Finished);
        }
        let watch = Watch::start("stopping: all workers finish this step");
        terminal::hush(self.worker_args.is_started());
        let (connected, mut config) = ConnectedWorkers::join(rank, world_size, address)?;
        let mut work = || {
            config.train.threads = self.threads.threads.map_or(Auto::Auto, Auto::Value);
            config.train.device = self.on.device.unwrap_or(config.train.device);
            // What worker 0 found in the data, if its folder is within reach.
            let index = self.out.as_deref().map(RunFolder::index_of).unwrap_or_default();
            let data = match self.data.is_empty() {
                true => self.recorded_data().context("give each worker its images: DATA")?,
                false => self.data.clone(),
            };
            let source = Opening::new(&config.data, self.threads.count()).with_index(&index).open(&data)?;
            training::assist(&source.to_pretrain(), &config, role, &connected)
        };
        let done = work().inspect_err(|error| connected.team().leave(&error.to_string()));
        drop(watch);
        match done {
            Ok(done) => Ok(done),
            // Worker 0 reports the error.
            Err(_) if self.worker_args.is_started() => Ok(Done::Interrupted),
            Err(error) => Err(error),
        }
    }

    /// Prints what would be done: the configuration on standard output, so that it can be saved as a file, and the rest
    /// on standard error. Fails where training would.
    fn plan(&self, role: &WorkerRole) -> Result<Done> {
        let (config, source) = match (self.out.as_deref(), self.resume) {
            (None, true) => return Err(usage("--resume: which run? give --out RUN")),
            (Some(out), true) => {
                let looked =
                    training::inspect(out, |resumed| self.settings.resolve_resumed(resumed, self.threads));
                let (config, saved) = looked.map_err(|error| self.longer(self.settings.named(error), out))?;
                if saved.as_ref().is_some_and(|meta| meta.has_finished(config.train.epochs)) {
                    say_finished(out, &config);
                    return Ok(Done::Finished);
                }
                let source = self.open(&mut Opening::new(&config.data, self.threads.count()), out)?;
                let images = source.to_pretrain();
                saved.map_or(Ok(()), |meta| Identity::of(images.as_ref()).check(out, &meta))?;
                (config, source)
            }
            (out, false) => {
                let mut replaces = false;
                if let Some(out) = out {
                    replaces = training::check_new(out, self.force)?;
                    check_folder(out, "give another: --out RUN")?;
                }
                let decoding = self.settings.data()?;
                let source = Opening::new(&decoding, self.threads.count()).open(&self.data)?;
                data::look_at(&*source.to_pretrain(), decoding.window)?;
                let config = self.settings.resolve_shared(&source, self.threads, role.worker().world_size)?;
                self.advise(&config)?;
                if let Some(out) = out.filter(|_| replaces) {
                    training::check_unneeded(out, &config, &self.data)?;
                }
                (config, source)
            }
        };
        let device = training::device_of(&config)?;
        let plan = plan(&source.to_pretrain(), &config, &device, role.worker())?;
        progress::tell("would train", &plan, config.train.epochs);
        terminal::print(config.to_toml()?.trim_end())?;
        Ok(Done::Finished)
    }

    /// Turns the error of resuming the run in `out` for more epochs into advice on what to do instead.
    fn longer(&self, error: anyhow::Error, out: &Path) -> anyhow::Error {
        let is_of_epochs =
            matches!(error.downcast_ref(), Some(TrainError::Conflict { key, .. }) if key == "train.epochs");
        if !is_of_epochs {
            return error;
        }
        let sets: String =
            self.settings.sets.iter().map(|set| format!(" --set {}", terminal::quoted(set))).collect();
        usage(format!(
            "{error}, which can continue from this one's encoder, with a schedule of its own: simclr pretrain {} --from {} --config {}{sets} --out NEW",
            data_argument(&self.data),
            terminal::quoted_path(out),
            terminal::quoted_path(&out.join("config.toml"))
        ))
    }

    fn advise(&self, config: &Config) -> Result<()> {
        self.settings.say_unsized(config);
        self.settings.warn_of_stem(config)?;
        self.settings.warn_of_idle(config)
    }
}

fn say_finished(out: &Path, config: &Config) {
    let epochs = terminal::counted(config.train.epochs as usize, "epoch");
    terminal::say(&format!("{} is finished, after {epochs}", out.display()));
}

/// More paths than this are hardly typed by hand.
const MOST_TYPED: usize = 16;

/// The whole path of the run that `--from` names: a run may be resumed from another working directory.
fn absolute_run(from: &Path) -> Result<String> {
    if from.is_file() {
        // A run's encoder lies in its folder, a checkpoint in a folder of that.
        let its_run = from.ancestors().skip(1).take(2).find(|folder| RunFolder::exists(folder));
        let advice = match its_run {
            Some(run) => format!("give its run: --from {}", terminal::quoted_path(run)),
            None => format!(
                "make a run of it first, and give that: simclr import {} --out RUN",
                terminal::quoted_path(from)
            ),
        };
        return Err(usage(format!("--from: {} is a file; {advice}", from.display())));
    }
    RunFolder::open(from).map_err(|error| usage(format!("--from: {error}")))?;
    let path = std::path::absolute(from).unwrap_or_else(|_| from.to_path_buf());
    let path = path.to_str().ok_or_else(|| usage("--from: the path is not UTF-8; rename the folder"))?;
    Ok(path.to_owned())
}

fn resume_command(data: &[PathBuf], out: &Path) -> String {
    let is_recorded = || RunFolder::open(out).is_ok_and(|(run, _)| !run.data().is_empty());
    let data = match data.len() > MOST_TYPED && is_recorded() {
        true => String::new(),
        false => data_argument(data) + " ",
    };
    format!("simclr pretrain {data}--out {} --resume", terminal::quoted_path(out))
}

/// The data as the argument of a command: its paths, or, where they are many, the name of the argument.
fn data_argument(data: &[PathBuf]) -> String {
    match data.len() > MOST_TYPED {
        true => "DATA".to_owned(),
        false => data.iter().map(|path| terminal::quoted_path(path)).collect::<Vec<_>>().join(" "),
    }
}
