//! What the evaluation commands share: the encoder of a run, the images to judge it by, and the printing of results.

use std::path::{Path, PathBuf};
use std::slice;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use simclr_data::DataError;
use simclr_eval::protocols::{
    self, Edge, Evaluation, FEW_TO_CHOOSE_BY, Opened, Paired, Scores, Splits, TrainedEncoder, Versus,
    random_encoder,
};
use simclr_train::Model;
use simclr_train::run_folder::result_file;
use simclr_words::text::short;

use crate::copies::{self, Comparing};
use crate::data;
use crate::encoding::{Encoding, opening_for, warn_of_dark};
use crate::evaluation_progress::EvaluationProgress;
use crate::out;
use crate::sheet::grid::shortened;
use crate::terminal::{self, LISTED};

/// The reply to Ctrl-C before there is a result.
pub const NOTHING_WRITTEN: &str = "stopping: nothing will be written";
/// The share of each class set apart to test on where there are no test images.
const SET_APART: f64 = 0.2;
/// The most letters shown of a class's name. The result's file has the whole name.
const MAX_NAME_LEN: usize = 40;

/// An encoder and labelled images.
#[derive(Args, Clone, Debug)]
pub struct EvaluationArgs {
    /// The run folder
    pub run: PathBuf,

    /// Labelled images to learn from; a folder with train/ and test/ provides both
    #[arg(long, value_name = "DATA")]
    pub train: PathBuf,

    /// Labelled images to test on [default: the test images of --train, or a fifth of its images]
    #[arg(long, value_name = "DATA")]
    pub test: Option<PathBuf>,

    /// Do not evaluate a randomly initialised encoder for comparison
    #[arg(long)]
    pub no_random: bool,

    #[command(flatten)]
    pub results: Results,

    #[command(flatten)]
    pub encoding: Encoding,
}

/// Where results go.
#[derive(Args, Clone, Debug)]
pub struct Results {
    /// Write results to this folder and leave the run and its report as they are [default: evaluation/ in the run
    /// folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Results {
    /// The folder for an encoder's results.
    pub fn folder(&self, encoder: &TrainedEncoder) -> PathBuf {
        self.out.clone().unwrap_or_else(|| encoder.run.evaluations())
    }

    /// Rejects a folder that cannot be written to, before any work is done.
    pub fn check(&self, encoder: &TrainedEncoder) -> Result<()> {
        let instead = if self.out.is_none() { "give another: --out DIR" } else { "give another" };
        out::check_folder(&self.folder(encoder), instead)
    }
}

impl EvaluationArgs {
    /// Loads the encoder and opens the images; rejects an unwritable folder for results before any work is done.
    pub fn load(&self) -> Result<(TrainedEncoder, Splits)> {
        let encoder = self.encoding.load_beside(&self.run, slice::from_ref(&self.train))?;
        self.results.check(&encoder)?;
        let strict = self.encoding.is_strict(&encoder);
        let splits = splits(&encoder, &self.train, self.test.as_deref(), strict)?;
        Ok((encoder, splits.strict(strict)))
    }

    /// The encoder, and beside it a random one unless `--no-random` is given.
    pub fn encoders(
        &self,
        encoder: &TrainedEncoder,
        splits: &Splits,
        progress: &mut EvaluationProgress,
    ) -> Result<Versus<Model>> {
        let trained = encoder.model.clone();
        if self.no_random {
            return Ok(Versus::alone(trained));
        }
        let random = random_encoder(&encoder.config, splits.train(), &encoder.model.device, &mut |report| {
            progress.see(report)
        })?;
        Ok(Versus { trained, random: Some(random) })
    }

    /// Writes a result to its folder and prints it. Each is done even if the other fails.
    pub fn write_and_print(
        &self,
        (encoder, splits): (&TrainedEncoder, &Splits),
        mut evaluation: Evaluation,
    ) -> Result<()> {
        let folder = self.results.folder(encoder);
        evaluation.data = splits.origin().cloned();
        warn_of_broken(&evaluation, &folder);
        warn_of_single_prediction(&evaluation, encoder.name());
        let before = Evaluation::read(&folder, &evaluation.protocol);
        let file = encoder.record_in(&folder, &mut evaluation);
        self.print(&evaluation, encoder.name())?;
        terminal::say(&format!("written to {}", file?.display()));
        if let Some(before) = before.filter(|before| !before.is_like(&evaluation)) {
            terminal::say(&format!("  in place of {}", in_words(&before)));
        }
        Ok(())
    }

    /// Prints a result as it was asked for; `name` is what the encoder is called.
    pub fn print(&self, evaluation: &Evaluation, name: &str) -> Result<()> {
        if self.encoding.json {
            return terminal::print_json(&summary(evaluation));
        }
        Ok(table(evaluation, name).iter().try_for_each(|line| terminal::print(line))?)
    }
}

/// Warns of images that could not be read, and of classes without others to learn from; `folder` is that of the result.
pub fn warn_of_broken(evaluation: &Evaluation, folder: &Path) {
    if evaluation.skipped > 0 {
        terminal::warn(&format!(
            "the figures are without {} that could not be read, listed in {}",
            terminal::counted(evaluation.skipped, "image"),
            result_file(folder, &evaluation.protocol.to_string()).display()
        ));
    }
    warn_of_unlearnt(&evaluation.unlearnt, "");
}

/// Warns of classes of which no training image could be read. `of` precedes the message and names the data set.
pub fn warn_of_unlearnt(classes: &[String], of: &str) {
    let (which, whose) = match classes {
        [] => return,
        [class] => (format!("class {class:?}"), "its"),
        [first, ..] => {
            (format!("{} classes, such as {first:?},", terminal::grouped(classes.len() as u64)), "their")
        }
    };
    terminal::warn(&format!("{of}no training image of {which} could be read, yet {whose} test images count"));
}

/// Warns of settings that few images chose: `what` were.
pub fn warn_of_few_validation_images(what: &str, images: usize) {
    if images < FEW_TO_CHOOSE_BY {
        terminal::warn(&format!(
            "{what} chosen on {}: a matter of chance with fewer than {FEW_TO_CHOOSE_BY}",
            terminal::counted(images, "validation image")
        ));
    }
}

/// [`warn_of_few_validation_images`], if validation images chose a setting of the evaluation.
pub fn warn_of_chosen(what: &str, evaluation: &Evaluation) {
    if let Some(images) = evaluation.trained.validation_images() {
        warn_of_few_validation_images(what, images);
    }
}

/// Says that the rate of a network, chosen among those given by `option`, is the lowest or the highest of them.
pub fn say_edge(network: &str, rate: f64, edge: Edge, option: &str) {
    let beyond = edge.beyond();
    terminal::say(&format!(
        "{network}: the best rate, {}, is the {edge} of those tried; a {beyond} one may do better ({option})",
        short(rate)
    ));
}

/// Warns if all test images were predicted to be of one class.
fn warn_of_single_prediction(evaluation: &Evaluation, name: &str) {
    let sides =
        [Some((name, &evaluation.trained)), evaluation.random.as_ref().map(|it| (evaluation.baseline(), it))];
    for (name, scores) in sides.into_iter().flatten() {
        let Some(class) = scores.only_answer() else { continue };
        let is_wide = scores.details.get("k").and_then(Value::as_u64).is_some_and(|k| k > 1);
        let advice = if is_wide { "; a smaller --k may tell more" } else { "" };
        terminal::warn(&format!(
            "{name}: all {} test images were classified as {class:?}, so the accuracy is just that class's share of them{advice}",
            terminal::grouped(evaluation.test_images as u64)
        ));
    }
}

/// A result in a few words: "56.4% of 600 test images of A at step 7 (k = 200)".
pub fn in_words(evaluation: &Evaluation) -> String {
    let top1 = terminal::percent(evaluation.trained.top1);
    let step = evaluation.step.map_or(String::new(), |step| format!(" at step {}", terminal::grouped(step)));
    let settings = match evaluation.settings() {
        none if none.is_empty() => none,
        some => format!(" ({some})"),
    };
    format!("{top1} of {}{step}{settings}", evaluation.judged_by())
}

/// Opens labelled images to learn from and to test on, to be decoded as the encoder's were. With `strict`, anything
/// unreadable is an error.
pub fn splits(encoder: &TrainedEncoder, train: &Path, test: Option<&Path>, strict: bool) -> Result<Splits> {
    let mut opening = opening_for(encoder, strict);
    let mut open = |path: &Path| {
        let paths = vec![path.to_owned()];
        Ok::<_, DataError>(Opened { source: opening.open(&paths)?, paths })
    };
    let (train, test) = (open(train)?, test.map(open).transpose()?);
    opening.save(&encoder.run.index());
    let sources = [Some(&train), test.as_ref()].into_iter().flatten();
    warn_of_dark(encoder, sources.flat_map(|opened| data::parts(&opened.source)));
    let splits = pair(train, test, encoder.model.device.threads())?;
    let set_apart = splits.origin().is_some_and(|origin| origin.set_apart);
    if set_apart && encoder.chosen_by.as_deref() == Some("knn_top1") {
        terminal::warn(
            "--best: this checkpoint was chosen by the labels of images held out from training, and some of those are \
             likely to be among the ones set apart here: the figures may be a little too good; leave --best out, or give \
             other images to --test",
        );
    }
    Ok(splits)
}

/// Pairs images to learn from with images to test on by [`protocols::pair`], with `threads` threads. Warns of images
/// that are in both and of contradicting labels, and says if some images are set apart to test on.
pub fn pair(train: Opened, test: Option<Opened>, threads: usize) -> Result<Splits> {
    let comparing = Comparing::default();
    let paired = protocols::pair(train, test, SET_APART, threads, &|done, of| comparing.see(done, of));
    drop(comparing);
    let Paired { splits, images, contradicting, shared, kept_together } = paired?;
    copies::warn_of_contradicting(&*images, &contradicting);
    if let Some(shared) = &shared {
        copies::warn_of_shared(None, shared, "give others to --test");
    }
    if splits.origin().is_some_and(|origin| origin.set_apart) {
        let together = match kept_together {
            0 => String::new(),
            1 => "; the 1 that is a copy of another stays with it".to_owned(),
            count => {
                format!("; the {} that are copies of others stay with them", terminal::grouped(count as u64))
            }
        };
        terminal::say(&format!(
            "no test images: {} of {}, the same share of each class, are set apart{together}",
            terminal::grouped(splits.test().len() as u64),
            terminal::grouped((splits.test().len() + splits.train().len()) as u64),
        ));
    }
    Ok(splits)
}

/// A result as one JSON object, with accuracies as fractions.
pub fn summary(evaluation: &Evaluation) -> Value {
    let Evaluation { trained, random, .. } = evaluation;
    let largest = trained.largest_class();
    json!({
        "protocol": evaluation.protocol,
        "top1": trained.top1,
        "interval": trained.interval,
        "top5": trained.top5,
        "mean_per_class": trained.mean_per_class,
        "random_top1": random.as_ref().map(|random| random.top1),
        "random_interval": random.as_ref().and_then(|random| random.interval),
        "random_top5": random.as_ref().and_then(|random| random.top5),
        "random_mean_per_class": random.as_ref().map(|random| random.mean_per_class),
        "largest_class": largest.map(|(name, share)| json!({ "name": name, "share": share })),
        "per_class": trained.per_class,
        "confusion": trained.confusion,
        "settings": trained.details,
        "random_settings": random.as_ref().map(|random| &random.details),
        "data": evaluation.data,
        "train_images": evaluation.train_images,
        "test_images": evaluation.test_images,
        "classes": evaluation.classes,
        "skipped": evaluation.skipped,
        "seconds": evaluation.seconds,
    })
}

/// The lines that show a result to a person. `name` is what the encoder is called.
fn table(evaluation: &Evaluation, name: &str) -> Vec<String> {
    let mut what = evaluation.protocol.title_beside_settings();
    let settings = evaluation.settings();
    if !settings.is_empty() {
        what += &format!(", {settings}");
    }
    let mut lines = vec![format!(
        "{what}: trained on {}, tested on {}, {} classes",
        terminal::counted(evaluation.train_images, "image"),
        terminal::grouped(evaluation.test_images as u64),
        evaluation.classes
    )];
    let classes = &evaluation.trained.per_class;
    let listed = if classes.len() <= LISTED { &classes[..] } else { &[] };
    let names: Vec<String> =
        listed.iter().map(|class| shortened(&terminal::inert(&class.name), MAX_NAME_LEN)).collect();
    let width = names.iter().map(|name| name.chars().count() + 2).max().unwrap_or(0).max(16);
    let score_line = |name: &str, scores: &Scores| {
        let top5 = scores.top5.map_or("-".to_owned(), terminal::percent);
        let interval = scores.interval.map_or(String::new(), |[low, high]| {
            format!("{:.1} to {}", 100.0 * low, terminal::percent(high))
        });
        let [top1, by_class] = [scores.top1, scores.mean_per_class].map(terminal::percent);
        format!("{name:<width$} {top1:>8} {top5:>8} {by_class:>15} {interval:>17}")
    };
    let heads = ["top-1", "top-5", "mean per class", "95% of top-1"];
    lines.push(format!("{:<width$} {:>8} {:>8} {:>15} {:>17}", "", heads[0], heads[1], heads[2], heads[3]));
    lines.push(score_line(name, &evaluation.trained));
    lines.extend(evaluation.random.as_ref().map(|random| score_line(evaluation.baseline(), random)));
    lines.extend(evaluation.trained.no_better_than().map(|(class, share)| {
        format!("always {:?} would be right on {}", terminal::inert(class), terminal::percent(share))
    }));
    if !listed.is_empty() {
        lines.push(format!("{name} by class"));
    }
    for (class, name) in listed.iter().zip(names) {
        let accuracy = class.accuracy.map_or("-".to_owned(), terminal::percent);
        let images = terminal::counted(class.images as usize, "test image");
        lines.push(format!("  {name:<width$} {accuracy:>8}  of {images}", width = width - 2));
    }
    lines
}
