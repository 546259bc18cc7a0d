//! `simclr ablate`: trains one recipe again and again, with one thing changed at a time.

mod folder;
mod table;
mod trial;
mod warnings;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::{Value, json};
use simclr_data::{DataError, Source};
use simclr_engine::Device;
use simclr_eval::EvalError;
use simclr_eval::protocols::{Opened, Splits};
use simclr_eval::report::study_page;
use simclr_eval::study::{Study, Trial, Variant, rows};
use simclr_train::file_system::{Disk, write_atomically};
use simclr_train::pretrain::{Failure, Identity, Worker, held_out, plan};
use simclr_train::run_folder::{REPORT, RunFolder};
use simclr_train::{Config, TrainError};

use crate::data::{Opening, ReadBy};
use crate::evaluating::pair;
use crate::exit::{Done, Rescued, Stopped, in_a_line, is_usage, usage};
use crate::settings::{OnDevice, Settings, Threads, from_to, suggesting};
use crate::{data, terminal, training};
use trial::{Shared, images_tested};

pub use folder::is_study;

const EXAMPLES: &str = "\
STUDY is one of the paper's, or a TOML file:
  losses        NT-Xent, NT-Logistic and margin triplet (table 4)
  temperature   0.05 to 1, and z not normalised (table 5)
  head          none, linear, nonlinear (figure 8)
  head-size     32 to 2048 values of z (figure 8)
  batch         256 to 8192, as far as there are as many images (figure 9)
  color         strengths of colour distortion, AutoAugment (table 1)
  views         augmentations of one of the two views: alone, and after cropping (13 of the 49 cells of figure 5)

  title = \"Width\"
  set = [\"train.epochs=20\"]      # optional: for all variants; --set overrides it
  [[variant]]
  name = \"quarter\"
  set = [\"encoder.width=0.25\"]
  [[variant]]
  name = \"half\"
  set = [\"encoder.width=0.5\"]
  paper = 60.1                 # optional: a published accuracy to compare with, in per cent
  paper_contrastive = 87.8     # optional: of the contrastive accuracy

What all variants have in common comes from --preset, --config and --set, the settings of listed operators too where the study does not \
give them. --set cannot give a key that each variant sets itself. Each training is a run folder in DIR, which other commands accept; \
DIR/report.html compares those that are finished; another study needs a DIR of its own. A variant that fails or does not converge does not stop the others: it is reported at the end, with \
exit code 1. With the same arguments, a second run reuses finished results and continues interrupted \
ones.

Examples:
  simclr ablate temperature cifar/ --out studies/tau --preset small
  simclr ablate my-study.toml photos/ --train labelled/ \\
      --out studies/mine --preset photos --seeds 3";

/// Pretrain and evaluate variants of a recipe: the paper's ablations, or your own
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", data::FORMS))]
pub struct Ablate {
    /// What to vary: a study of the paper, or a TOML file
    #[arg(value_parser = suggesting(Study::built_in()), hide_possible_values = true)]
    study: String,

    /// The images to pretrain on; several are read as one
    #[arg(required = true)]
    data: Vec<PathBuf>,

    /// The folder for the study's runs and report
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    out: Option<PathBuf>,

    /// Labelled images for evaluation [default: DATA]
    #[arg(long, value_name = "DATA")]
    train: Option<PathBuf>,

    /// Labelled images to test on [default: the test images of --train, or a fifth of its images]
    #[arg(long, value_name = "DATA")]
    test: Option<PathBuf>,

    /// Train each variant with N seeds, from train.seed on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = from_to(1_u64, 100))]
    seeds: u64,

    /// Evaluate z by a linear classifier, too
    #[arg(long)]
    projection: bool,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    on: OnDevice,

    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,

    /// Check all variants, print what would be done, and stop
    #[arg(long)]
    dry_run: bool,
}

/// A run of a study.
struct Planned {
    variant: usize,
    seed: u64,
    config: Config,
    /// The steps of its training.
    steps: u64,
    folder: PathBuf,
}

impl Planned {
    /// A trial that failed.
    fn failed(&self, why: String) -> Trial {
        Trial { variant: self.variant, seed: self.seed, scores: [None; 4], failure: Some(why) }
    }
}

impl Ablate {
    pub fn run(mut self) -> Result<Done> {
        let mut study = Study::find(&self.study)?;
        check_sets(&self.settings.sets, &study)?;
        if let Some(out) = &self.out {
            let data: Vec<PathBuf> = self.data.iter().chain(&self.train).chain(&self.test).cloned().collect();
            folder::check(out, &study, &data)?;
        }
        self.settings.check_options(self.threads, self.on, None)?;
        self.settings.sets.splice(..0, study.set.clone());
        self.settings.sets.extend(self.on.device.map(|device| format!("train.device={device}")));
        let mut opening = Opening::new(&self.settings.data()?, self.threads.count());
        let source = opening.open(&self.data)?;
        let base = self.settings.resolve(&source, self.threads)?;
        self.settings.say_unsized(&base);
        data::warn_of_dark("", data::parts(&source), base.data.window, ReadBy::Command);
        let device = training::device_of(&base)?;
        self.leave_out(&mut study, &base, &source)?;
        let planned = self.plan(&study, &base, &source, &device)?;
        if let Some(out) = &self.out {
            let runs = planned.iter().map(|planned| (planned.folder.as_path(), &planned.config));
            folder::check_runs(out, runs, Identity::of(source.to_pretrain().as_ref()))?;
        }
        let Some(out) = self.out.clone().filter(|_| !self.dry_run) else {
            self.tell_progress(&study, &planned, &source)?;
            return Ok(Done::Finished);
        };
        let splits = self.splits(&mut opening, &source)?.strict(base.data.strict);
        fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
        folder::mark(&out, &study)?;

        let shared = Shared { source: &source, splits: &splits, device: &device };
        let Some((trials, tested)) = self.try_all(&out, &study, &planned, &shared, &base)? else {
            return Ok(Done::Interrupted);
        };
        let rows = rows(&study, &trials);
        match self.json {
            true => table::tell_json(&study, self.seeds, tested, &rows)?,
            false => table::tell(&study, tested, &rows)?,
        }
        terminal::say(&format!("report: {}", out.join(REPORT).display()));
        let failures = trials.iter().filter_map(|trial| Some((trial, trial.failure.clone()?)));
        let (failed, why): (Vec<String>, Vec<String>) = failures
            .map(|(trial, why)| (format!("{}, seed {}", study.variants[trial.variant].name, trial.seed), why))
            .unzip();
        match why.into_iter().next() {
            Some(first) => Err(anyhow!(first).context(format!("no result: {}", failed.join("; ")))),
            None => Ok(Done::Finished),
        }
    }

    /// Says how much of a study is done; as JSON what it will do, too.
    fn tell_progress(&self, study: &Study, planned: &[Planned], source: &Source) -> Result<()> {
        let steps: u64 = planned.iter().map(|planned| planned.steps).sum();
        let (trained, left) = self.progress(planned, source)?;
        if left < steps {
            terminal::say(&format!(
                "{trained} of {} are there already, {} left",
                terminal::counted(planned.len(), "run"),
                terminal::counted(left as usize, "step"),
            ));
        }
        if self.json {
            let variants: Vec<Value> = study.variants.iter().map(table::described).collect();
            let object = json!({
                "study": study.title, "source": study.source, "set": study.set, "seeds": self.seeds,
                "steps": steps, "trained": trained, "steps_left": left, "variants": variants,
                "left_out": study.left_out,
            });
            terminal::print_json(&object)?;
        }
        Ok(())
    }

    /// All trials, in the order in which they are planned, and the number of images that they were tested on. `None`
    /// after Ctrl-C.
    fn try_all(
        &self,
        out: &Path,
        study: &Study,
        planned: &[Planned],
        shared: &Shared,
        base: &Config,
    ) -> Result<Option<(Vec<Trial>, usize)>> {
        let mut trials: Vec<Trial> = Vec::new();
        let mut tested = None;
        for (number, planned) in planned.iter().enumerate() {
            let name = format!("{}, seed {}", study.variants[planned.variant].name, planned.seed);
            let of = study.variants.len() as u64 * self.seeds;
            terminal::say(&format!("{} of {of}: {name}", number + 1));
            let trial = match self.trial(planned, shared) {
                // Ctrl-C before the first step.
                Err(error) if error.is::<Stopped>() => None,
                // Wrong usage makes the other runs fail, too. So does an outside cause, which costs no step once it is
                // removed, and an image to evaluate with that cannot be read (data.strict).
                Err(error) if is_usage(&error) || error.is::<Rescued>() || is_of_an_image(&error) => {
                    return Err(error);
                }
                Err(error) => {
                    let failure = in_a_line(&error);
                    terminal::warn(&format!("{name}: {failure}"));
                    Some(planned.failed(failure))
                }
                Ok(trial) => trial,
            };
            let Some(trial) = trial else {
                terminal::say("continue with the same command");
                return Ok(None);
            };
            if tested.is_none() && trial.failure.is_none() {
                tested = images_tested(&planned.folder);
            }
            trials.push(trial);
            self.write_page(out, study, &trials, tested.unwrap_or(shared.splits.test().len()), base)?;
        }
        Ok(Some((trials, tested.unwrap_or(shared.splits.test().len()))))
    }

    /// Leaves out the variants whose own batch is larger than the images to train on, with a warning. Too few are left
    /// if there is nothing to compare.
    fn leave_out(&self, study: &mut Study, base: &Config, source: &Source) -> Result<()> {
        let (count, images) = (study.variants.len(), source.to_pretrain().len());
        let (mut kept, mut too_large): (Vec<Variant>, Vec<(usize, String)>) = Default::default();
        for variant in study.variants.drain(..) {
            // What else is wrong with it is told when it is planned.
            let config = self.settings.resolve_variant(base, &variant.set, self.threads).ok();
            match config.map(|config| held_out(&config, images)) {
                Some(Err(TrainError::BatchTooLarge { images, .. })) if variant.sets("train.batch") => {
                    too_large.push((images, variant.name));
                }
                _ => kept.push(variant),
            }
        }
        study.variants = kept;
        if let (Some(&(images, _)), 0 | 1) = (too_large.first(), study.variants.len()) {
            return Err(usage(format!(
                "the batch of {} of {count} variants is larger than the {} to train on, which leaves nothing to compare; give a \
                 study of your own with smaller batches, such as train.batch={} (--help shows one)",
                too_large.len(),
                terminal::counted(images, "image"),
                (images / 2).max(1)
            )));
        }
        let said = too_large.iter().map(|(images, name)| (*images, name.as_str()));
        for (images, names) in warnings::grouped(said) {
            terminal::warn(&format!(
                "{}: left out, since train.batch is larger than the {} to train on",
                warnings::naming(&names),
                terminal::counted(images, "image")
            ));
        }
        study.left_out = too_large.into_iter().map(|(_, name)| name).collect();
        Ok(())
    }

    /// Plans and prints all runs; errors come before the first run begins. All variants of one seed come before the
    /// next seed, so that they can soon be compared.
    fn plan(&self, study: &Study, base: &Config, source: &Source, device: &Device) -> Result<Vec<Planned>> {
        let images = source.to_pretrain();
        let mut planned: Vec<Planned> = Vec::new();
        for seed in base.train.seed..base.train.seed + self.seeds {
            for (variant, spec) in study.variants.iter().enumerate() {
                let seeded = Settings { seed: Some(seed), ..self.settings.clone() };
                let of_variant = || format!("variant {:?}", spec.name);
                let config =
                    seeded.resolve_variant(base, &spec.set, self.threads).with_context(of_variant)?;
                if config.data.decode() != base.data.decode() {
                    return Err(usage(format!(
                        "variant {:?}: all share their images; how these are decoded (data.window, background, shrink) is for --set",
                        spec.name
                    )));
                }
                // The seed changes neither the memory nor the number of steps.
                let steps = match planned.get(variant) {
                    Some(first) => first.steps,
                    None => plan(&images, &config, device, Worker::ALONE).with_context(of_variant)?.steps,
                };
                let name = format!("{}-seed{seed}", spec.folder());
                let folder = self.out.as_deref().unwrap_or(Path::new("")).join(name);
                planned.push(Planned { variant, seed, config, steps, folder });
            }
        }
        let variants: Vec<(&Variant, &Config)> =
            study.variants.iter().zip(planned.iter().map(|planned| &planned.config)).collect();
        warnings::of_idle(&self.settings, &variants)?;
        warnings::of_same(base, &variants);
        warnings::of_unscaled(variants.iter().map(|&(_, config)| config));
        let steps: u64 = planned.iter().map(|planned| planned.steps).sum();
        terminal::say(&format!(
            "{}: {} x {}, {} in all",
            study.title,
            terminal::counted(study.variants.len(), "variant"),
            terminal::counted(self.seeds as usize, "seed"),
            terminal::counted(steps as usize, "step"),
        ));
        let shared = study.keys().map(|key| Ok(base.value(key)?.map(|value| format!("{key}={value}"))));
        let shared: Vec<String> = shared.filter_map(Result::transpose).collect::<Result<_>>()?;
        if !shared.is_empty() {
            terminal::say(&format!("  all: {}", shared.join(", ")));
        }
        for (variant, config) in variants {
            let changes: Vec<String> = warnings::differences(base, config)
                .iter()
                .map(|change| format!("{}={}", change.key, change.theirs))
                .collect();
            let changes =
                if changes.is_empty() { "the recipe as it is".to_owned() } else { changes.join(", ") };
            terminal::say(&format!("  {}: {changes}", variant.name));
        }
        Ok(planned)
    }

    /// How many runs are done, trained or not converged, and how many steps the others still need. A run that could not
    /// be continued is an error.
    fn progress(&self, planned: &[Planned], source: &Source) -> Result<(usize, u64)> {
        let identity = Identity::of(source.to_pretrain().as_ref());
        let (mut trained, mut left) = (0, 0);
        for Planned { config, steps, folder, .. } in planned {
            let mut done = 0;
            // Without --out there are no folders.
            if self.out.is_some() && RunFolder::exists(folder) {
                let (run, _) = RunFolder::open(folder)?;
                if Failure::of(&run).is_some_and(|failure| failure.is_of(config, identity)) {
                    done = *steps;
                } else if let (_, Some(meta)) = training::inspect(folder, |_| Ok(config.clone()))? {
                    // What the last epoch still has to measure counts as a step.
                    let finished = meta.has_finished(config.train.epochs);
                    done = if finished { *steps } else { meta.step.min(steps.saturating_sub(1)) };
                }
            }
            trained += usize::from(done == *steps);
            left += *steps - done;
        }
        Ok((trained, left))
    }

    /// The images that all variants are evaluated on.
    fn splits(&self, opening: &mut Opening, source: &Source) -> Result<Splits> {
        let mut open = |path: &PathBuf| {
            let paths = vec![path.clone()];
            Ok::<_, DataError>(Opened { source: opening.open(&paths)?, paths })
        };
        let train = match &self.train {
            Some(path) => open(path)?,
            None => Opened { source: source.clone(), paths: self.data.clone() },
        };
        pair(train, self.test.as_ref().map(open).transpose()?, self.threads.counted())
    }

    fn write_page(
        &self,
        out: &Path,
        study: &Study,
        trials: &[Trial],
        test_images: usize,
        base: &Config,
    ) -> Result<()> {
        let seeds = self.seeds as usize;
        let page = study_page(study, &rows(study, trials), seeds, test_images, &base.to_toml()?);
        write_atomically(&Disk, &out.join(REPORT), |file| file.write_all(page.as_bytes()))?;
        Ok(())
    }
}

/// Rejects settings for all variants that none of them would have.
fn check_sets(sets: &[String], study: &Study) -> Result<()> {
    for set in sets {
        if let Some((key, _)) = set.split_once('=')
            && study.varies(key.trim())
        {
            return Err(usage(format!(
                "--set {set}: would be without effect, as the study varies this key: each variant sets it; leave it out, or give \
                 a study of your own (--help shows one)"
            )));
        }
    }
    Ok(())
}

/// Whether the error is that of an image that cannot be read.
fn is_of_an_image(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(
            EvalError::Data(DataError::Image { .. })
                | EvalError::Train(TrainError::Data(DataError::Image { .. }))
        )
    )
}
