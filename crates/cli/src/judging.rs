//! What the measuring commands share: the encoder of a run, the images to judge it by, and how results are told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use simclr_data::{Cached, Dataset};
use simclr_eval::protocols::{Evaluation, Scores, Splits, TrainedEncoder, Versus, random_encoder};
use simclr_train::{Model, memory};

use crate::data::Opening;
use crate::encoding::Encoding;
use crate::terminal;

/// The share of each class set apart to test on where there are no test images.
const SET_APART: f64 = 0.2;
/// With more classes than this, only the file lists them all.
const LISTED: usize = 20;

/// An encoder and labelled images.
#[derive(Args, Clone, Debug)]
pub struct Judged {
    /// The run folder
    pub run: PathBuf,

    /// Labelled images to learn from; with train/ and test/ inside, it serves for both
    #[arg(long, value_name = "DATA")]
    pub train: PathBuf,

    /// Labelled images to test on [default: those of --train, or a fifth of them set apart]
    #[arg(long, value_name = "DATA")]
    pub test: Option<PathBuf>,

    /// Do not measure a randomly initialised encoder beside it
    #[arg(long)]
    pub no_random: bool,

    #[command(flatten)]
    pub encoding: Encoding,
}

impl Judged {
    /// Loads the encoder and opens the images.
    pub fn load(&self) -> Result<(TrainedEncoder, Splits)> {
        let encoder = self.encoding.load(&self.run)?;
        let splits = splits(&encoder, &self.train, self.test.as_deref())?;
        let strict = self.encoding.is_strict(&encoder);
        Ok((encoder, splits.strict(strict)))
    }

    /// The encoder beside a random one.
    pub fn versus(&self, encoder: &TrainedEncoder, splits: &Splits) -> Result<Versus<Model>> {
        let trained = encoder.model.clone();
        if self.no_random {
            return Ok(Versus::alone(trained));
        }
        let random = random_encoder(&encoder.config, splits.train(), &encoder.model.device)?;
        Ok(Versus { trained, random: Some(random) })
    }

    /// Tells a result and writes it to the run folder; where that cannot be, it was told all the same.
    pub fn conclude(&self, encoder: &TrainedEncoder, mut evaluation: Evaluation) -> Result<()> {
        if evaluation.skipped > 0 {
            terminal::warn(&format!(
                "{} could not be read and do not count, listed in {}",
                terminal::counted(evaluation.skipped, "image"),
                encoder.run.evaluation(&evaluation.protocol).display()
            ));
        }
        if self.encoding.json {
            terminal::print(&summary(&evaluation).to_string())?;
        } else {
            for line in table(&evaluation) {
                terminal::print(&line)?;
            }
        }
        let file = encoder.record(&mut evaluation)?;
        terminal::say(&format!("written to {}", file.display()));
        Ok(())
    }
}

/// Labelled images to learn from and to test on, decoded as the encoder's were.
pub fn splits(encoder: &TrainedEncoder, train: &Path, test: Option<&Path>) -> Result<Splits> {
    let index = encoder.run.index();
    let mut opening = Opening::with_index(encoder.config.data.decode(), &index);
    let source = opening.open(&[train.to_owned()])?;
    let test = match test {
        Some(path) => {
            let source = opening.open(&[path.to_owned()])?;
            Some(source.test.unwrap_or(source.train))
        }
        None => source.test,
    };
    opening.save(&index);
    pair(kept(source.train), test)
}

/// Images to learn from and to test on; without the latter a part of the former is set apart.
pub fn pair(train: Arc<dyn Dataset>, test: Option<Arc<dyn Dataset>>) -> Result<Splits> {
    if let Some(test) = test {
        return Ok(Splits::new(train, kept(test))?);
    }
    let splits = Splits::hold_out(train, SET_APART, 0)?;
    terminal::say(&format!(
        "no test images: {} of {}, the same share of each class, are set apart",
        terminal::grouped(splits.test().len() as u64),
        terminal::grouped((splits.test().len() + splits.train().len()) as u64),
    ));
    Ok(splits)
}

/// Images are gone through more than once: small ones stay in memory.
pub fn kept(dataset: Arc<dyn Dataset>) -> Arc<dyn Dataset> {
    Arc::new(Cached::in_memory(dataset, memory::available_bytes() / 8))
}

/// A result in one JSON object, accuracies as fractions.
pub fn summary(evaluation: &Evaluation) -> Value {
    let Evaluation { trained, random, .. } = evaluation;
    json!({
        "protocol": evaluation.protocol,
        "top1": trained.top1,
        "top5": trained.top5,
        "mean_per_class": trained.mean_per_class,
        "random_top1": random.as_ref().map(|random| random.top1),
        "random_top5": random.as_ref().and_then(|random| random.top5),
        "train_images": evaluation.train_images,
        "test_images": evaluation.test_images,
        "classes": evaluation.classes,
        "skipped": evaluation.skipped,
        "seconds": evaluation.seconds,
    })
}

/// A result for a person.
fn table(evaluation: &Evaluation) -> Vec<String> {
    let mut lines = vec![format!(
        "{}, {} images learnt from, {} tested on, {} classes",
        evaluation.title(),
        terminal::grouped(evaluation.train_images as u64),
        terminal::grouped(evaluation.test_images as u64),
        evaluation.classes
    )];
    lines.push(format!("{:<16} {:>8} {:>8}", "", "top-1", "top-5"));
    lines.push(score_line("SimCLR", &evaluation.trained));
    lines.extend(evaluation.random.as_ref().map(|random| score_line(evaluation.baseline(), random)));
    let classes = &evaluation.trained.per_class;
    if classes.len() <= LISTED {
        let width = classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max(16);
        for class in classes {
            let accuracy = class.accuracy.map_or("no images".to_owned(), terminal::percent);
            lines.push(format!(
                "  {:<width$} {accuracy:>8}",
                terminal::inert(&class.name),
                width = width - 2
            ));
        }
    }
    lines
}

fn score_line(name: &str, scores: &Scores) -> String {
    let top5 = scores.top5.map_or("-".to_owned(), terminal::percent);
    format!("{name:<16} {:>8} {top5:>8}", terminal::percent(scores.top1))
}
