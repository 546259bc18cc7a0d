//! `simclr transfer`: how good an encoder is on other data sets.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use simclr_eval::protocols::transfer::{
    Entry, Grid, Outcome, PAPERS_NETWORK, Protocol, Suite, TransferOptions, TransferSet, Tuning, table,
    transfer,
};
use simclr_eval::protocols::{FEW_TO_CHOOSE_BY, TrainedEncoder, kept_in_memory};
use simclr_eval::report::TransferRow;

use crate::copies::{self, Comparing};
use crate::data::ReadBy;
use crate::encoding::{Encoding, memory_to_train, opening_for, prepare_to_train};
use crate::evaluating::{say_edge, warn_of_few_validation_images, warn_of_unlearnt};
use crate::evaluation_progress::EvaluationProgress;
use crate::exit::{Done, usage, with_advice};
use crate::interrupt::Watch;
use crate::settings::{above_zero, at_least_one, seed, zero_or_more};
use crate::{data, out, terminal};

/// What the table's column `random` shows.
const RANDOM: &str = "the same network before training; beside fine-tuning, trained from scratch";

const EXAMPLES: &str = "\
The paper's transfer study. SUITE.toml has a table for each data set. Paths are relative to it; the data may be of any kind that the program reads:

  [[set]]
  name = \"flowers102\"
  train = \"flowers/train\"
  test = \"flowers/test\"            # optional if train has test images of its own
  validation = \"flowers/val\"       # optional: else a tenth of each class of train

  [[set]]
  name = \"own\"
  train = \"own.parquet\"
  metric = \"mean_per_class\"        # or top1, or map11 (below)

  [[set]]
  name = \"voc2007\"
  train = \"voc/trainval.txt\"
  test = \"voc/test.txt\"
  labels = \"voc/labels.csv\"        # for map11, a CSV file: an image's path, then its classes

No image may be in more than one of train, validation and test. Images that VOC2007 itself excludes as difficult are counted like all others.

food101, cifar10, cifar100, birdsnap, sun397, cars, aircraft, voc2007, dtd, pets, caltech101 and flowers102 need no metric, and the \
paper's figures are shown next to theirs.

Protocols:
  linear    L-BFGS on the features of central crops, best of up to 45 L2 penalties
  finetune  SGD on the whole encoder with random crops and flips, best of 7 rates x 8 decays
  scratch   the same from random weights, with the same grid and steps (the paper, whose figures are shown, searched rates up to 1 and \
decays up to 0.03 in 40,000 steps: --rates, --decays and --steps)

The settings are chosen on the validation images. The final model then learns from those too, and the test images are used once. A grid of \
56 trainings of 20,000 steps needs a GPU: --steps, --rates and --decays make it smaller, and --dry-run says how many trainings there \
would be.

Results are written to RUN/evaluation/transfer as they come, those of each learning rate and weight decay included. They are reused as \
long as the checkpoint, what the suite says about the data set, the names and classes of the images, the seed, the steps and the batch \
are the same; results for other steps, batches and seeds are kept as well. Of all learning rates and weight decays that were tried with \
these, also by earlier commands and by others that run at the same time, the best counts.

Examples:
  simclr transfer runs/first suite.toml --dry-run
  simclr transfer runs/first suite.toml --json
  simclr transfer runs/first suite.toml --protocol linear,finetune,scratch \\
      --steps 500 --rates 1e-3,1e-2,1e-1 --decays 0,1e-5";

/// Evaluate an encoder on the data sets listed in a file
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Transfer {
    /// The run folder
    run: PathBuf,

    /// The list of data sets: a TOML file
    #[arg(value_name = "SUITE.toml")]
    suite: PathBuf,

    /// How to evaluate on each of them; several, separated by commas
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',', default_value = "linear")]
    protocol: Vec<Name>,

    /// Steps of each training (finetune, scratch) [default: 20000]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
    steps: Option<u64>,

    /// Images per step (finetune, scratch), at most half of all, since some may be broken [default: 256]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u32>)]
    batch: Option<u32>,

    /// Initial learning rates to choose from (finetune, scratch) [default: 7 from 1e-4 to 1e-1]
    #[arg(long, value_name = "X,...", value_delimiter = ',', value_parser = above_zero)]
    rates: Vec<f64>,

    /// Weight decays to choose from (finetune, scratch); each is divided by the learning rate, and 0 is none
    /// [default: 0 and 7 from 1e-6 to 1e-3]
    #[arg(long, value_name = "X,...", value_delimiter = ',', value_parser = zero_or_more)]
    decays: Vec<f64>,

    /// Do not evaluate a randomly initialised encoder for comparison (linear)
    #[arg(long)]
    no_random: bool,

    /// Open the data sets, print what would be computed and what is there already, and stop
    #[arg(long)]
    dry_run: bool,

    /// Seed for training, and for the choice of the validation split, where the suite names none
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed)]
    seed: u64,

    #[command(flatten)]
    encoding: Encoding,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// A linear classifier on the encoder's frozen features
    Linear,
    /// The whole encoder, fine-tuned
    Finetune,
    /// The same network, trained from random weights
    Scratch,
}

impl From<Name> for Protocol {
    fn from(name: Name) -> Protocol {
        match name {
            Name::Linear => Protocol::Linear,
            Name::Finetune => Protocol::FineTune,
            Name::Scratch => Protocol::Scratch,
        }
    }
}

impl Transfer {
    pub fn run(self) -> Result<Done> {
        self.check()?;
        let suite = Suite::read(&self.suite)?;
        let encoder = self.encoding.load(&self.run)?;
        let options = self.options(&encoder);
        let sets = self.open(&encoder, &suite)?;
        let plan = |set| self.plan(&encoder, set, &options);
        let plans: Vec<Value> = sets.iter().map(plan).collect::<Result<_>>()?;
        if self.dry_run {
            if self.encoding.json {
                terminal::print_json(&json!({ "sets": plans }))?;
            }
            return Ok(Done::Finished);
        }
        // Results are saved as they come, and would be lost in a folder that cannot be written to.
        out::check_folder(&Entry::folder(&encoder.run), "copy the run to where its results can be kept")?;
        if self.protocols().any(Protocol::trains) {
            prepare_to_train(&encoder)?;
        }
        let mut entries = Vec::new();
        let (mut failed, mut first) = (Vec::new(), None);
        // Each set is dropped once it is done, and with it its images in memory.
        for set in sets {
            for protocol in self.protocols() {
                let mut progress = EvaluationProgress::of(&format!("{}, {}", set.spec.name, protocol.word()));
                let signals = Watch::ending("stopping: the same command goes on after what is done");
                let found = transfer(&encoder, &set, protocol, &options, &mut |report| progress.see(report));
                drop((progress, signals));
                match found {
                    Ok(entry) => {
                        warn_of_broken(&entry, &encoder);
                        if let Some((rate, edge)) = entry.rate_at_edge() {
                            say_edge(&format!("{}, {}", entry.set, protocol.word()), rate, edge, "--rates");
                        }
                        // The run folder may hold figures of a random encoder that were not asked for this time.
                        entries.push(Entry { random: entry.random.filter(|_| options.with_random), ..entry });
                    }
                    // The other data sets may still succeed.
                    Err(error) => {
                        let what = format!("{}, {}", of_set(&set.spec.name), protocol.word());
                        terminal::warn(&format!("{what}: {error}"));
                        failed.push(what);
                        first.get_or_insert(error);
                    }
                }
            }
        }
        if !entries.is_empty() {
            self.tell(&entries, &encoder)?;
            terminal::say(&format!("written to {}", Entry::folder(&encoder.run).display()));
        }
        match first {
            Some(error) => Err(Error::from(error).context(format!("no result: {}", failed.join("; ")))),
            None => Ok(Done::Finished),
        }
    }

    fn protocols(&self) -> impl Iterator<Item = Protocol> {
        let asked = |protocol: &Protocol| self.protocol.iter().any(|&name| Protocol::from(name) == *protocol);
        Protocol::ALL.into_iter().filter(asked)
    }

    /// Rejects arguments for training if only a linear classifier is asked for, which would ignore them.
    fn check(&self) -> Result<()> {
        let given = [
            ("--steps", self.steps.is_some()),
            ("--batch", self.batch.is_some()),
            ("--rates", !self.rates.is_empty()),
            ("--decays", !self.decays.is_empty()),
        ];
        match given.into_iter().find(|&(_, given)| given && !self.protocols().any(Protocol::trains)) {
            Some((name, _)) => Err(usage(format!(
                "{name} is for --protocol finetune and scratch: leave it out, or add one of them"
            ))),
            None => Ok(()),
        }
    }

    fn options(&self, encoder: &TrainedEncoder) -> TransferOptions {
        let usual = Tuning::default();
        let given = |given: &[f64], usual: Vec<f64>| match given.is_empty() {
            true => usual,
            false => each_once(given),
        };
        let grid = Grid {
            rates: given(&self.rates, usual.grid.rates),
            decays: given(&self.decays, usual.grid.decays),
        };
        let tuning = Tuning {
            steps: self.steps.unwrap_or(usual.steps),
            batch: self.batch.map_or(usual.batch, |batch| batch as usize),
            grid,
            memory: memory_to_train(encoder),
        };
        let strict = self.encoding.is_strict(encoder);
        TransferOptions { with_random: !self.no_random, strict, seed: self.seed, tuning }
    }

    /// Opens all data sets before anything is computed, so that all faults are reported at once.
    fn open(&self, encoder: &TrainedEncoder, suite: &Suite) -> Result<Vec<TransferSet>> {
        let mut opening = opening_for(encoder, self.encoding.is_strict(encoder));
        let window = encoder.config.data.window;
        let mut open = |path: &Path| {
            let paths = [path.to_owned()];
            let mut source = opening.open(&paths)?;
            let of = format!("{}: ", data::shown(&paths));
            data::warn_of_dark(&of, data::parts(&source), window, ReadBy::Run);
            source.train = kept_in_memory(source.train);
            source.test = source.test.map(kept_in_memory);
            Ok(source)
        };
        let (mut sets, mut faults) = (Vec::new(), Vec::new());
        let threads = encoder.model.device.threads();
        for spec in &suite.sets {
            let comparing = Comparing::default();
            let compared = |done, of| comparing.see(done, of);
            match TransferSet::open(spec, &suite.path, self.seed, threads, &mut open, &compared) {
                Ok(set) => sets.push(set),
                Err(fault) => faults.push((of_set(&spec.name), fault)),
            }
        }
        opening.save(&encoder.run.index());
        let mut all = faults.iter().map(|(set, _)| &set[..]).collect::<Vec<_>>().join("; ");
        if faults.len() > 1 {
            faults.iter().for_each(|(set, fault)| terminal::warn(&format!("{set}: {}", with_advice(fault))));
            all = format!("nothing was evaluated, because of errors in {all}");
        }
        match faults.into_iter().next() {
            Some((_, first)) => Err(Error::from(first).context(all)),
            None => Ok(sets),
        }
    }

    /// Prints what is going to be done on a data set, and returns the same in JSON.
    fn plan(&self, encoder: &TrainedEncoder, set: &TransferSet, options: &TransferOptions) -> Result<Value> {
        let grouped = |images: usize| terminal::grouped(images as u64);
        terminal::say(&format!(
            "{}: {} to learn from, {} to choose settings by, {} to test on, {} classes, {}",
            set.spec.name,
            terminal::counted(set.train.len(), "image"),
            grouped(set.validation.len()),
            grouped(set.test.len()),
            set.classes.len(),
            set.spec.metric.title(),
        ));
        if let Some(shared) = &set.shared {
            copies::warn_of_shared(Some(&set.spec.name), shared, "take them out of one of the two");
        }
        if let Some(shared) = &set.shared_validation {
            copies::warn_of_shared_validation(&set.spec.name, shared);
        }
        if let Some(known) = set.spec.known.filter(|known| !known.has(set.classes.len())) {
            terminal::warn(&format!(
                "{}: {} has {} classes and this has {}: the paper's figure is of other images and does not stand beside it; \
                 give it another name",
                set.spec.name,
                known.title,
                known.classes,
                set.classes.len()
            ));
        }
        let grid = &options.tuning.grid;
        let several = grid.rates.len() * grid.decays.len() > 1;
        if self.protocols().into_iter().any(|protocol| !protocol.trains() || several) {
            warn_of_few_validation_images(&format!("{}: settings are", set.spec.name), set.validation.len());
        }
        let mut protocols = Vec::new();
        for protocol in self.protocols() {
            let lacking = Entry::take_up(encoder, set, protocol, options)?.lacks(options);
            let batch = options.tuning.batch_of(set.train.len());
            let plan = match (lacking, protocol.trains()) {
                (0, _) => "there already".to_owned(),
                (fits, false) => {
                    format!("{} to fit, up to 45 weights of L2", terminal::counted(fits, "classifier"))
                }
                (trainings, true) => format!(
                    "{} of {} of batch {}: {} x {}, then the best on all",
                    terminal::counted(trainings, "training"),
                    terminal::counted(options.tuning.steps as usize, "step"),
                    batch,
                    terminal::counted(options.tuning.grid.rates.len(), "rate"),
                    terminal::counted(options.tuning.grid.decays.len(), "decay"),
                ),
            };
            terminal::say(&format!("  {}: {plan}", protocol.word()));
            let trains = protocol.trains();
            protocols.push(json!({
                "protocol": protocol.word(),
                "lacking": lacking,
                "steps": trains.then_some(options.tuning.steps),
                "batch": trains.then_some(batch),
            }));
        }
        Ok(json!({
            "set": set.spec.name,
            "metric": set.spec.metric.word(),
            "classes": set.classes.len(),
            "train_images": set.train.len(),
            "validation_images": set.validation.len(),
            "few_validation_images": set.validation.len() < FEW_TO_CHOOSE_BY,
            "test_images": set.test.len(),
            "shared_images": set.shared.as_ref().map_or(0, |shared| shared.images),
            "protocols": protocols,
        }))
    }

    fn tell(&self, entries: &[Entry], encoder: &TrainedEncoder) -> Result<()> {
        if self.encoding.json {
            let results: Vec<Value> = entries.iter().map(|entry| summary(entry, entries)).collect();
            terminal::print_json(&json!({ "results": results, "papers_network": PAPERS_NETWORK }))?;
            return Ok(());
        }
        let mut rows = table(entries, &encoder.run)?;
        for row in &mut rows {
            if let Some(step) = row.step {
                row.set += &format!(" at step {step}");
            }
        }
        lines(&rows, encoder.name()).iter().try_for_each(|line| terminal::print(line))?;
        if rows.iter().any(|row| row.random.is_some()) {
            terminal::print(&format!("random: {RANDOM}"))?;
        }
        if rows.iter().any(|row| !row.paper.is_empty()) {
            terminal::print(&format!(
                "paper: its {PAPERS_NETWORK}, by SimCLR, supervised, and beside fine-tuning from scratch; for orientation"
            ))?;
        }
        Ok(())
    }
}

/// The table: a line of titles, and one for each row. `name` is what the encoder is called.
fn lines(rows: &[TransferRow], name: &str) -> Vec<String> {
    let titles = ["data set", "", "", name, "random", "paper"].map(str::to_owned);
    let cells = |row: &TransferRow| {
        let [simclr, random] = [row.simclr, row.random].map(|value| value.map(terminal::percent));
        let figures = [simclr, random, row.published()].map(|figure| figure.unwrap_or("-".to_owned()));
        let [simclr, random, paper] = figures;
        [row.set.clone(), row.protocol.clone(), row.metric.clone(), simclr, random, paper]
    };
    let table: Vec<[String; 6]> = std::iter::once(titles).chain(rows.iter().map(cells)).collect();
    let width = |at: usize| table.iter().map(|cells| cells[at].chars().count()).max().unwrap_or(0);
    let [set, protocol, metric, simclr, random, paper] = std::array::from_fn(width);
    let line = |cells: &[String; 6]| {
        let [a, b, c, d, e, f] = cells;
        format!("{a:<set$}  {b:<protocol$}  {c:<metric$} {d:>simclr$} {e:>random$} {f:>paper$}")
    };
    table.iter().map(line).collect()
}

/// One of `entries` in JSON, with figures as fractions.
fn summary(entry: &Entry, entries: &[Entry]) -> Value {
    let trained = entry.trained.as_ref();
    let scratch =
        entries.iter().find(|other| entry.is_beside(other)).and_then(|other| other.trained.as_ref());
    let random = entry.random.as_ref().or(scratch);
    let of = |images: fn(&Outcome) -> usize| trained.map(images);
    json!({
        "set": entry.set,
        "protocol": entry.protocol.word(),
        "metric": entry.identity.metric.word(),
        "score": trained.map(|outcome| outcome.score),
        "random": random.map(|outcome| outcome.score),
        "step": entry.step,
        "paper": entry.paper(),
        "paper_supervised": entry.paper_supervised(),
        "validation": trained.map(|outcome| outcome.validation),
        "chosen": trained.map(|outcome| &outcome.chosen),
        "classes": entry.classes,
        "train_images": of(|outcome| outcome.train_images),
        "validation_images": of(|outcome| outcome.validation_images),
        "few_validation_images": trained.map(|outcome| outcome.validation_images < FEW_TO_CHOOSE_BY),
        "rate_at_edge": entry.rate_at_edge().map(|(_, edge)| edge),
        "test_images": of(|outcome| outcome.test_images),
        "skipped": of(|outcome| outcome.broken.len()),
        "seconds": trained.map(|outcome| outcome.seconds),
    })
}

/// The values without repetitions, in order.
fn each_once(values: &[f64]) -> Vec<f64> {
    let is_new = |&(at, value): &(usize, &f64)| !values[..at].contains(value);
    values.iter().enumerate().filter(is_new).map(|(_, &value)| value).collect()
}

fn of_set(name: &str) -> String {
    format!("data set {name}")
}

fn warn_of_broken(entry: &Entry, encoder: &TrainedEncoder) {
    let outcome = entry.trained.as_ref();
    warn_of_unlearnt(outcome.map_or(&[], |outcome| &outcome.unlearnt), &format!("{}: ", entry.set));
    let broken = outcome.map_or(0, |outcome| outcome.broken.len());
    if broken > 0 {
        terminal::warn(&format!(
            "{}: the figures are without {} that could not be read, listed in {}",
            entry.set,
            terminal::counted(broken, "image"),
            entry.file(&encoder.run).display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_figures_fit_into_a_terminal() {
        let row = TransferRow {
            set: "Oxford Flowers-102".to_owned(),
            step: None,
            protocol: "fine-tuned".to_owned(),
            metric: "mean per class".to_owned(),
            simclr: Some(1.0),
            random: Some(0.5),
            paper: vec![0.976, 0.98, 0.925],
        };
        let lines = lines(&[row], "SimCLR");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        assert!(lines[1].ends_with(" 100.0%  50.0% 97.6, 98.0, 92.5%"), "{lines:#?}");
    }
}
