//! `simclr transfer`: what an encoder is worth on other data sets.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use simclr_eval::protocols::TrainedEncoder;
use simclr_eval::protocols::transfer::{
    Entry, Outcome, PAPERS_NETWORK, Protocol, SetSpec, Suite, TransferOptions, TransferSet, transfer,
};

use crate::data::Opening;
use crate::encoding::Encoding;
use crate::exit::Done;
use crate::judging::kept;
use crate::settings::seed;
use crate::terminal;
use crate::watching::Watching;

const EXAMPLES: &str = "\
The paper's transfer study. SUITE.toml has a table for each data set; paths are relative to it, and of any kind that the program reads:

  [[set]]
  name = \"flowers102\"
  train = \"flowers/train\"
  test = \"flowers/test\"            # may be left out where train has test images of its own
  validation = \"flowers/val\"       # may be left out: a tenth of each class of train

  [[set]]
  name = \"own\"
  train = \"own.parquet\"
  metric = \"mean_per_class\"        # or top1, or map11 (below)

  [[set]]
  name = \"voc2007\"
  train = \"voc/trainval.txt\"
  test = \"voc/test.txt\"
  labels = \"voc/labels.csv\"        # images that show several classes: a line an image, path,class,class,...

food101, cifar10, cifar100, birdsnap, sun397, cars, aircraft, voc2007, dtd, pets, caltech101 and flowers102 need no metric, and the \
paper's figures stand beside theirs. The linear protocol: L-BFGS on the features of central crops, 45 weights of L2, of which the \
validation images choose one; then validation images are learnt from too, and the test images are looked at once.

Results are written to RUN/evaluation/transfer as they come, and are not computed again while the checkpoint, the names and classes of \
the images, the metric and the seed are the same.

Examples:
  simclr transfer runs/first suite.toml --dry-run
  simclr transfer runs/first suite.toml --json";

/// Measure what an encoder is worth on other data sets, which a file lists
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Transfer {
    /// The run folder
    run: PathBuf,

    /// The data sets: a TOML file
    #[arg(value_name = "SUITE.toml")]
    suite: PathBuf,

    /// Do not measure a randomly initialised encoder beside it
    #[arg(long)]
    no_random: bool,

    /// Open the data sets, say what would be computed and what is there already, and stop
    #[arg(long)]
    dry_run: bool,

    /// Seed of the images that settings are chosen by, where the suite names none
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed)]
    seed: u64,

    #[command(flatten)]
    encoding: Encoding,
}

impl Transfer {
    pub fn run(self) -> Result<Done> {
        let suite = Suite::read(&self.suite)?;
        let encoder = self.encoding.load(&self.run)?;
        let sets = self.open(&encoder, &suite)?;
        for set in &sets {
            terminal::say(&self.plan(&encoder, set)?);
        }
        if self.dry_run {
            return Ok(Done::Finished);
        }
        let mut entries = Vec::new();
        // Each goes when it is done, and with it the images that were kept.
        for set in sets {
            let name = &set.spec.name;
            let entry = self.measure(&encoder, &set).with_context(|| of_set(name))?;
            warn_of_broken(&entry, &encoder);
            entries.push(entry);
        }
        self.tell(&entries)?;
        terminal::say(&format!("written to {}", Entry::folder(&encoder.run).display()));
        Ok(Done::Finished)
    }

    /// Opens all data sets before anything is computed, so that what is wrong with the last is known at once.
    fn open(&self, encoder: &TrainedEncoder, suite: &Suite) -> Result<Vec<TransferSet>> {
        let index = encoder.run.index();
        let mut opening = Opening::with_index(encoder.config.data.decode(), &index);
        let mut open = |path: &Path| {
            let mut source = opening.open(&[path.to_owned()])?;
            source.train = kept(source.train);
            source.test = source.test.map(kept);
            Ok(source)
        };
        let mut each = |spec: &SetSpec| {
            TransferSet::open(spec, &suite.path, self.seed, &mut open).with_context(|| of_set(&spec.name))
        };
        let sets = suite.sets.iter().map(&mut each).collect::<Result<_>>()?;
        opening.save(&index);
        Ok(sets)
    }

    fn plan(&self, encoder: &TrainedEncoder, set: &TransferSet) -> Result<String> {
        let entry = Entry::take_up(encoder, set, Protocol::Linear, self.seed)?;
        let left = match (&entry.trained, &entry.random) {
            (Some(_), Some(_)) => "there already",
            (Some(_), None) if self.no_random => "there already",
            (Some(_), None) => "to compare with a random encoder",
            (None, _) => "to compute",
        };
        let grouped = |images: usize| terminal::grouped(images as u64);
        Ok(format!(
            "{}: {} to learn from, {} to choose settings by, {} to test on, {}, {}: {left}",
            set.spec.name,
            terminal::counted(set.train.len(), "image"),
            grouped(set.validation.len()),
            grouped(set.test.len()),
            format_args!("{} classes", set.classes.len()),
            set.spec.metric.title(),
        ))
    }

    fn measure(&self, encoder: &TrainedEncoder, set: &TransferSet) -> Result<Entry> {
        let options = TransferOptions {
            with_random: !self.no_random,
            strict: self.encoding.is_strict(encoder),
            seed: self.seed,
        };
        let mut watching = Watching::of(&set.spec.name);
        Ok(transfer(encoder, set, Protocol::Linear, &options, &mut |progress| watching.see(progress))?)
    }

    fn tell(&self, entries: &[Entry]) -> Result<()> {
        if self.encoding.json {
            let results: Vec<Value> = entries.iter().map(|entry| self.summary(entry)).collect();
            terminal::print(&json!({ "results": results, "papers_network": PAPERS_NETWORK }).to_string())?;
            return Ok(());
        }
        let width = entries.iter().map(|entry| entry.title().chars().count()).max().unwrap_or(0).max(8);
        terminal::print(&format!(
            "{:<width$}  {:<14} {:>8} {:>14} {:>8}",
            "data set", "", "SimCLR", "random encoder", "paper"
        ))?;
        for entry in entries {
            let cell = |value: Option<f64>| value.map_or("-".to_owned(), terminal::percent);
            let score = |outcome: &Option<Outcome>| cell(outcome.as_ref().map(|outcome| outcome.score));
            terminal::print(&format!(
                "{:<width$}  {:<14} {:>8} {:>14} {:>8}",
                entry.title(),
                entry.identity.metric.title(),
                score(&entry.trained),
                score(self.random(entry)),
                cell(entry.paper()),
            ))?;
        }
        if entries.iter().any(|entry| entry.paper().is_some()) {
            terminal::print(&format!("paper: {PAPERS_NETWORK}, for orientation"))?;
        }
        Ok(())
    }

    /// What the run folder holds of a random encoder is shown where that was asked for.
    fn random<'e>(&self, entry: &'e Entry) -> &'e Option<Outcome> {
        if self.no_random { &None } else { &entry.random }
    }

    fn summary(&self, entry: &Entry) -> Value {
        let trained = entry.trained.as_ref();
        let of = |images: fn(&Outcome) -> usize| trained.map(images);
        json!({
            "set": entry.set,
            "protocol": entry.protocol.word(),
            "metric": entry.identity.metric.word(),
            "score": trained.map(|outcome| outcome.score),
            "random": self.random(entry).as_ref().map(|outcome| outcome.score),
            "paper": entry.paper(),
            "validation": trained.map(|outcome| outcome.validation),
            "chosen": trained.map(|outcome| &outcome.chosen),
            "classes": entry.classes,
            "train_images": of(|outcome| outcome.train_images),
            "validation_images": of(|outcome| outcome.validation_images),
            "test_images": of(|outcome| outcome.test_images),
            "skipped": of(|outcome| outcome.broken.len()),
            "seconds": trained.map(|outcome| outcome.seconds),
        })
    }
}

fn of_set(name: &str) -> String {
    format!("data set {name}")
}

fn warn_of_broken(entry: &Entry, encoder: &TrainedEncoder) {
    let broken = entry.trained.as_ref().map_or(0, |outcome| outcome.broken.len());
    if broken > 0 {
        terminal::warn(&format!(
            "{}: {} could not be read and do not count, listed in {}",
            entry.set,
            terminal::counted(broken, "image"),
            entry.file(&encoder.run).display()
        ));
    }
}
