//! The report of a run folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use simclr_data::Dataset;
use simclr_train::config::{OptimizerName, Stem, Variant};
use simclr_train::file_system::{Disk, write_atomically};
use simclr_train::pretrain::Failure;
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Embedding};
use simclr_words::text::{counted, grouped, percent};

use super::encode::Encoded;
use super::evaluation::{Evaluation, Scores};
use super::maps::{class_maps, maps};
use super::neighbours::{neighbour_rows, unlabelled_rows};
use super::probe::Probe;
use super::splits::Splits;
use super::trained::{TrainedEncoder, encoder_name};
use super::transfer::{Entry, PAPERS_NETWORK, table};
use crate::EvalError;
use crate::report::history::Kind;
use crate::report::kept;
use crate::report::{
    AccuracyRow, ClassAccuracy, ClassMap, Figure, History, NeighbourRow, PerClass, Report, TopAccuracy,
    Transfer,
};

/// The report of a run folder: its metrics log, configuration, evaluations, and skipped images. What does not exist
/// (yet) is left out. `pictures` come from [`pictures`] or [`Pictures::before`], or are empty.
///
/// # Errors
/// [`EvalError::Io`] for a file that exists but cannot be read. Files of `evaluation/` that hold no result are
/// skipped.
pub fn assemble_report(run: &RunFolder, config: &Config, pictures: Pictures) -> Result<Report, EvalError> {
    let Pictures { step, kept, classes, neighbours, maps } = pictures;
    let log = run.metrics();
    let history = History::parse(&read(&log)?.unwrap_or_default());
    if history.damaged() > 0 {
        tracing::warn!("{}: lines that are no record are left out: {}", log.display(), history.damaged());
    }
    let evaluations = evaluations(run)?;
    Ok(Report {
        title: title(run.path()),
        subtitle: subtitle(run, config, &history),
        encoder: encoder_name(run).to_owned(),
        figures: figures(&evaluations, &history),
        accuracy: evaluations.iter().map(|evaluation| row(evaluation, &history)).collect(),
        transfer: transfer(run)?,
        probe: Probe::recorded(run),
        per_class: evaluations.iter().map(per_class).collect(),
        history,
        step,
        kept,
        classes,
        neighbours,
        maps,
        config: settings(run, config)?,
        skipped: run.read_skipped()?,
    })
}

/// The part of a report that shows images.
#[derive(Clone, Debug, Default)]
pub struct Pictures {
    /// Training steps of the encoder.
    step: u64,
    /// The part as HTML, taken over from an earlier page.
    kept: String,
    /// The number of classes; 0 without labels.
    classes: usize,
    /// Some images with their nearest neighbours.
    neighbours: Vec<NeighbourRow>,
    /// Maps of the images.
    maps: Vec<ClassMap>,
}

impl Pictures {
    /// The pictures that an existing page shows, if any; the page of a run is [`RunFolder::report`].
    pub fn before(page: &Path) -> Option<Pictures> {
        let page = std::fs::read_to_string(page).ok()?;
        let (step, kept) = kept::find(&page)?;
        Some(Pictures { step, kept: kept.to_owned(), ..Pictures::default() })
    }

    /// Training steps of their encoder.
    pub fn step(&self) -> u64 {
        self.step
    }
}

/// Pictures of images encoded by `encoder`.
///
/// # Errors
/// Features that are not finite, an image that can no longer be read.
pub fn pictures(encoded: &Encoded, data: &Splits, encoder: &TrainedEncoder) -> Result<Pictures, EvalError> {
    let neighbours = neighbour_rows(encoded, data, encoder.model.image_size())?;
    let (classes, maps) = (data.classes().len(), class_maps(encoded, data.test().as_ref())?);
    Ok(Pictures { step: encoder.step, classes, neighbours, maps, ..Pictures::default() })
}

/// Pictures of `images` without known labels, where `embedding` is the output of `encoder`: some with their neighbours
/// among all others, and maps in one colour.
///
/// # Errors
/// Those of [`pictures`].
pub fn unlabelled_pictures(
    embedding: &Embedding,
    images: &dyn Dataset,
    encoder: &TrainedEncoder,
) -> Result<Pictures, EvalError> {
    let neighbours = unlabelled_rows(embedding, images, encoder.model.image_size())?;
    Ok(Pictures {
        step: encoder.step,
        neighbours,
        maps: maps(embedding, images, &[])?,
        ..Pictures::default()
    })
}

/// Writes the page to a file, whole or not at all; the page of a run is [`RunFolder::report`].
///
/// # Errors
/// [`EvalError::Train`] when it cannot be written.
pub fn write_report(report: &Report, file: &Path) -> Result<(), EvalError> {
    let page = report.render();
    Ok(write_atomically(&Disk, file, |out| out.write_all(page.as_bytes()))?)
}

/// A file's bytes; `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>, EvalError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EvalError::Io { path: path.to_path_buf(), source }),
    }
}

/// The results in `RUN/evaluation/`, in the order of the page.
fn evaluations(run: &RunFolder) -> Result<Vec<Evaluation>, EvalError> {
    let mut found: Vec<Evaluation> = results(&json_files(run, &run.evaluations())?)?;
    found.sort_by_cached_key(|evaluation| evaluation.protocol.place());
    Ok(found)
}

/// The results on other data sets, in the order of the page.
fn transfer(run: &RunFolder) -> Result<Transfer, EvalError> {
    let mut files = json_files(run, &Entry::folder(run))?;
    // The most recently written one comes last.
    files.sort_by_cached_key(|path| path.metadata().and_then(|found| found.modified()).ok());
    let rows = table(&results::<Entry>(&files)?, run)?;
    Ok(Transfer { rows, papers_network: PAPERS_NETWORK.to_owned() })
}

/// The JSON files of a folder, sorted by name; none if it does not exist.
fn json_files(run: &RunFolder, folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let mut paths = match run.files().list(folder) {
        Ok(paths) => paths,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(EvalError::Io { path: folder.to_path_buf(), source }),
    };
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    Ok(paths)
}

/// Reads the results in files; skips files that hold something else.
fn results<T: DeserializeOwned>(paths: &[PathBuf]) -> Result<Vec<T>, EvalError> {
    let mut found = Vec::new();
    for path in paths {
        match serde_json::from_slice(&read(path)?.unwrap_or_default()) {
            Ok(result) => found.push(result),
            Err(error) => tracing::warn!("{}: left out of the report: {error}", path.display()),
        }
    }
    Ok(found)
}

fn title(path: &Path) -> String {
    // `.` and `..` have no file name.
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    full.file_name().map_or("SimCLR".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The configuration, below comments on where the run comes from.
fn settings(run: &RunFolder, config: &Config) -> Result<String, EvalError> {
    let origin: String = run.origin().lines().map(|line| format!("# {line}\n")).collect();
    Ok(format!("{origin}\n{}", config.to_toml()?))
}

fn subtitle(run: &RunFolder, config: &Config, history: &History) -> String {
    let (encoder, size) = (&config.encoder, config.data.image_size);
    let stem = if encoder.stem_at(size) == Stem::ImageNet { "" } else { " with the stem for small images" };
    let d = if encoder.settled_variant() == Variant::D { "-D" } else { "" };
    let selective = if encoder.selective_kernels > 0.0 { " with selective kernels" } else { "" };
    let network = format!(
        "ResNet-{}{d} of width {}{selective}{stem}, {size} x {size} pixels",
        encoder.name.layers(),
        encoder.width
    );
    if let Some(from) = run.imported() {
        return format!("{network}, imported from {from}.");
    }
    let epochs = history.series(Kind::Epoch, "train_loss").len() as u64;
    let done = match (epochs, config.train.epochs) {
        (done, of) if done == of => counted(of as usize, "epoch"),
        (done, of) => format!("{done} of {of} epochs"),
    };
    let end = Failure::of(run).map_or_else(String::new, |failure| format!(" It {failure}."));
    format!(
        "SimCLR, {network}, {done} of batch {}, {}, {}, seed {}.{end}",
        config.train.batch,
        match config.optim.name {
            OptimizerName::Adamw => "AdamW".to_owned(),
            name => name.word().to_uppercase(),
        },
        config.loss,
        config.train.seed,
    )
}

/// Accuracies, then figures of the last epoch.
fn figures(evaluations: &[Evaluation], history: &History) -> Vec<Figure> {
    let mut figures: Vec<Figure> = Vec::new();
    for evaluation in evaluations {
        let scores = &evaluation.trained;
        let interval = scores
            .interval
            .map(|[low, high]| format!("95% interval {:.1} to {}", 100.0 * low, percent(high)));
        let random =
            evaluation.random.as_ref().map(|it| format!("{} {}", evaluation.baseline(), percent(it.top1)));
        // With classes of equal size, the mean per class equals top-1.
        let by_class = scores.per_class.windows(2).any(|pair| pair[0].images != pair[1].images);
        let by_class = by_class.then(|| format!("mean per class {}", percent(scores.mean_per_class)));
        let always = scores.no_better_than();
        let always =
            always.map(|(class, share)| format!("always {class} would be right on {}", percent(share)));
        let judged_by = Some(evaluation.judged_by());
        let notes = [interval, by_class, random, always, judged_by, earlier(evaluation, history)];
        figures.push(Figure {
            label: evaluation.protocol.title(),
            value: percent(evaluation.trained.top1),
            notes: notes.into_iter().flatten().collect(),
        });
    }
    let last = |kind, key| history.series(kind, key).last().map(|&(_, value)| value);
    if let Some(accuracy) = last(Kind::Epoch, "holdout_contrastive_accuracy") {
        figures.push(Figure {
            label: "contrastive accuracy".to_owned(),
            value: percent(accuracy),
            notes: vec!["of held-out images, last epoch".to_owned()],
        });
    }
    if let Some(rank) = last(Kind::Epoch, "rank_me_h") {
        figures.push(Figure {
            label: "effective rank of h".to_owned(),
            value: format!("{rank:.1}"),
            notes: vec!["RankMe, last epoch".to_owned()],
        });
    }
    figures
}

/// Says which step a result is of, if not the last one.
fn earlier(evaluation: &Evaluation, history: &History) -> Option<String> {
    match (evaluation.step, history.last_step()) {
        (Some(step), Some(last)) if step != last => {
            Some(format!("after step {} of {}", grouped(step), grouped(last)))
        }
        _ => None,
    }
}

fn row(evaluation: &Evaluation, history: &History) -> AccuracyRow {
    let top = |scores: &Scores| TopAccuracy { top1: scores.top1, top5: scores.top5 };
    AccuracyRow {
        protocol: evaluation.protocol.title_beside_settings(),
        settings: evaluation.settings(),
        data: [Some(evaluation.judged_by()), earlier(evaluation, history)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", "),
        simclr: Some(top(&evaluation.trained)),
        random: evaluation.random.as_ref().map(top),
    }
}

fn per_class(evaluation: &Evaluation) -> PerClass {
    let random = evaluation.random.as_ref().map(|scores| &scores.per_class);
    let classes = evaluation.trained.per_class.iter().enumerate().filter_map(|(label, class)| {
        let random = random.and_then(|classes| classes.get(label)?.accuracy);
        Some(ClassAccuracy {
            class: class.name.clone(),
            images: class.images,
            simclr: class.accuracy?,
            random,
        })
    });
    let warning = evaluation.trained.only_answer().map_or(String::new(), |class| {
        format!(
            "All test images were classified as {class}: the accuracy is just that class’s share of them."
        )
    });
    PerClass {
        protocol: evaluation.protocol.title(),
        data: evaluation.judged_by(),
        warning,
        classes: classes.collect(),
    }
}
