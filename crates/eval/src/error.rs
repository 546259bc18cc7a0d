//! The crate's one error type.

use std::io;
use std::path::{Path, PathBuf};

use simclr_data::{DataError, not_a_file};
use simclr_train::pretrain::Failure;
use simclr_words::text::{Gigabytes, counted, grouped, short};

use crate::embedding::Split;
use crate::protocols::Labels;
use crate::report::PictureError;

/// Why an evaluation failed. Every message says what is wrong and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A data set without labels where a classifier needs them for training or testing.
    #[error(
        "the {set} images have no labels, and without labels there is no accuracy; put the images of each class \
         into a sub-folder of its own, right below the folder that is given, at least two of these and one of them with \
         more than one image; or list them in a .csv file with the columns path and label"
    )]
    NoLabels {
        /// "training", "test" or "validation".
        set: &'static str,
    },
    /// A class of the validation or test images which the training images do not have.
    #[error(
        "class {class:?} of the {set} images is not among the {count} classes of the training images ({known})"
    )]
    UnknownClass {
        /// "test" or "validation".
        set: &'static str,
        /// The class.
        class: String,
        /// Classes of the training images.
        count: usize,
        /// Their names, or the first few.
        known: String,
    },
    /// All training images are of a single class.
    #[error(
        "there is nothing to tell apart: the training images are all of one class, {class:?}; give images of at least two classes"
    )]
    OneClass {
        /// The class.
        class: String,
    },
    /// A data set of which no image can be read.
    #[error("none of the {images} {set} images can be read{}", first_reason(first.as_deref()))]
    NoImages {
        /// "training", "test", "validation" or "given".
        set: &'static str,
        /// Images listed.
        images: usize,
        /// Why the first cannot be read.
        first: Option<String>,
    },
    /// Too few images for a probe.
    #[error(
        "{images} of the images can be read, too few to tell what an encoder knows; give at least {least}"
    )]
    TooFewToProbe {
        /// Images that can be read.
        images: usize,
        /// The fewest that are accepted.
        least: usize,
    },
    /// Too few images to set aside a part of each class.
    #[error("too few images to {purpose}: no class has two; give more images a class")]
    TooFewToSplit {
        /// The purpose of that part.
        purpose: &'static str,
    },
    /// An option out of range.
    #[error("{name} is {found}, expected {expected}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A number of labels that does not suit the training images.
    #[error("{}", labels_problem(*labels, problem))]
    Labels {
        /// What was asked for.
        labels: Labels,
        /// What is wrong with it.
        problem: DataError,
    },
    /// More layers of the projection head asked for than it has.
    #[error("head layers are {asked}, but the projection head of this run has {layers}; give at most that")]
    HeadLayers {
        /// Layers asked for.
        asked: usize,
        /// Layers that the head has.
        layers: usize,
    },
    /// A step of fine-tuning that needs more memory than is available.
    #[error(
        "a batch of {batch} images takes about {} of memory, of which {} are available; {}",
        Gigabytes(*needed), Gigabytes(*available), smaller_batch(*largest)
    )]
    BatchDoesNotFit {
        /// Images in a batch.
        batch: usize,
        /// Bytes it would take.
        needed: u64,
        /// Bytes available.
        available: u64,
        /// The largest batch that fits, if one does.
        largest: Option<usize>,
    },
    /// Training a classifier diverged: its loss or the gradient of its loss is not finite.
    #[error("{} in epoch {epoch} at rate {}; lower the rate", not_finite(*loss), short(*rate))]
    Diverged {
        /// The epoch, from 1.
        epoch: u64,
        /// The rate.
        rate: f64,
        /// The loss.
        loss: f64,
    },
    /// Training diverged with every setting of a grid.
    #[error("the loss became NaN or infinite{}; give lower rates", in_each_of(*trainings))]
    AllDiverged {
        /// Trainings tried.
        trainings: usize,
    },
    /// A run without a checkpoint: it is not trained yet, or its import was interrupted.
    #[error("{} has no checkpoint yet; {}", run.display(), first_step(imported.as_deref(), failure.as_deref()))]
    NoCheckpoint {
        /// The run folder.
        run: PathBuf,
        /// The file it was to be imported from, if it is an import.
        imported: Option<String>,
        /// What ended its training, if it failed.
        failure: Option<Box<Failure>>,
    },
    /// An error of the run folder, of a checkpoint or of the encoder.
    #[error(transparent)]
    Train(#[from] simclr_train::TrainError),
    /// An error of the data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A metric that cannot be computed.
    #[error(transparent)]
    Metrics(#[from] simclr_metrics::MetricsError),
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] simclr_engine::EngineError),
    /// An error of a network.
    #[error(transparent)]
    Nn(#[from] simclr_nn::NnError),
    /// Invalid view settings.
    #[error(transparent)]
    Views(#[from] simclr_augment::AugmentError),
    /// A picture that cannot be encoded.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A split which the data set does not have.
    #[error("there are no {split} images apart from others{}; take all of them", parts(there))]
    NoSplit {
        /// The split asked for.
        split: Split,
        /// The splits it has; empty for a data set that is not divided.
        there: Vec<&'static str>,
    },
    /// The caller asked to stop before the end.
    #[error("stopped before the end; nothing was written")]
    Stopped,
    /// An output file whose extension is that of no known format.
    #[error("{}: expected a file that ends in .parquet, .npy or .safetensors", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A file without features that can be searched, or with those of another encoder.
    #[error("{}: {reason}", path.display())]
    NoFeatures {
        /// The file.
        path: PathBuf,
        /// What it holds instead, and what would be right.
        reason: String,
    },
    /// A path given by the user which does not exist or is no file.
    #[error("{}: {found}; give {expected}", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// An existing file that would be overwritten although it was not written with features.
    #[error(
        "{}: is there already, and is no {what}; move it away, or write elsewhere",
        path.display()
    )]
    Taken {
        /// The file.
        path: PathBuf,
        /// What it would have to be.
        what: &'static str,
    },
    /// A file that cannot be written.
    #[error("cannot write {}: {source}{}", path.display(), write_advice(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl EvalError {
    /// Returns whether the request is at fault (an argument, a setting, or the data), rather than the machine or a
    /// damaged file.
    pub fn is_misuse(&self) -> bool {
        match self {
            Self::Train(error) => error.is_misuse(),
            Self::Data(error) => error.is_misuse(),
            Self::NoLabels { .. }
            | Self::UnknownClass { .. }
            | Self::OneClass { .. }
            | Self::TooFewToProbe { .. }
            | Self::TooFewToSplit { .. }
            | Self::Option { .. }
            | Self::Labels { .. }
            | Self::HeadLayers { .. }
            | Self::BatchDoesNotFit { .. }
            | Self::NoCheckpoint { .. }
            | Self::NoSplit { .. }
            | Self::UnknownFormat { .. }
            | Self::NoFeatures { .. }
            | Self::NotAFile { .. }
            | Self::Taken { .. }
            | Self::Views(_) => true,
            Self::NoImages { .. }
            | Self::Diverged { .. }
            | Self::AllDiverged { .. }
            | Self::Metrics(_)
            | Self::Engine(_)
            | Self::Nn(_)
            | Self::Picture(_)
            | Self::Stopped
            | Self::Io { .. }
            | Self::Write { .. } => false,
        }
    }

    /// Reads a file named by the user, which should be `expected`; reports a path that is no file without opening it.
    pub(crate) fn read<'p, T>(
        path: &'p Path,
        expected: &'static str,
        read: impl FnOnce(&'p Path) -> io::Result<T>,
    ) -> Result<T, EvalError> {
        match not_a_file(path) {
            Some(found) => Err(EvalError::NotAFile { path: path.to_path_buf(), found, expected }),
            None => read(path).map_err(|source| EvalError::Io { path: path.to_path_buf(), source }),
        }
    }

    /// Returns a closure for `map_err` that makes an [`EvalError::Write`].
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> EvalError {
        move |source| EvalError::Write { path: path.to_path_buf(), source }
    }

    /// As [`EvalError::write`], for a CSV error: keeps the I/O error inside, whose kind csv's own conversion would
    /// hide.
    pub(crate) fn write_line(path: &Path) -> impl FnOnce(csv::Error) -> EvalError {
        move |error| match error.into_kind() {
            csv::ErrorKind::Io(source) => EvalError::write(path)(source),
            other => EvalError::write(path)(io::Error::other(format!("{other:?}"))),
        }
    }
}

/// What to do with a run that has no checkpoint.
fn first_step(imported: Option<&str>, failure: Option<&Failure>) -> String {
    match (imported, failure) {
        (Some(file), _) => format!("its import was interrupted; import {file} again"),
        (None, Some(failure)) => format!(
            "it {failure}; train it with a lower optim.rate, a longer optim.warmup_epochs or a higher loss.temperature"
        ),
        (None, None) => "train it first".to_owned(),
    }
}

fn write_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "; free some space, or give a file elsewhere"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => "; give a file elsewhere",
        _ => "",
    }
}

fn parts(there: &[&str]) -> String {
    if there.is_empty() { String::new() } else { format!(", only {}", there.join(" and ")) }
}

/// The words for each of several trainings.
fn in_each_of(trainings: usize) -> String {
    match trainings {
        1 => String::new(),
        several => format!(" in each of {several} trainings"),
    }
}

/// What is wrong with so many labels.
fn labels_problem(labels: Labels, problem: &DataError) -> String {
    let DataError::SubsetSize { images, classes, labelled } = *problem else {
        return format!("labels {labels}: {problem}");
    };
    let [chosen, least, most] = [images, classes, labelled].map(|count| grouped(count as u64));
    let what = match labels {
        Labels::Percent(_) => format!("{labels} of {most} labels is {}", counted(images, "image")),
        Labels::Images(_) => format!("labels are to be {chosen}"),
    };
    let relation = match images < classes {
        true => format!("fewer than the {least} classes"),
        false => format!("more than the {most} that there are"),
    };
    format!("{what}, {relation}; give a number from {least} to {most}, or 100%")
}

fn smaller_batch(largest: Option<usize>) -> String {
    match largest {
        Some(batch) => format!("a batch of at most {batch} would fit"),
        None => "no batch fits: end other programs".to_owned(),
    }
}

fn not_finite(loss: f64) -> String {
    match loss.is_finite() {
        true => format!("the gradient of the classifier's loss, {loss}, is not finite"),
        false => format!("the classifier's loss is {loss}"),
    }
}

fn first_reason(first: Option<&str>) -> String {
    first.map_or(String::new(), |reason| format!("; the first: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_told_what_to_do() {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        for full in [StorageFull, QuotaExceeded, FileTooLarge] {
            let message = EvalError::write(Path::new("h.npy"))(full.into()).to_string();
            assert!(
                message.starts_with("cannot write h.npy") && message.contains("free some space"),
                "{message}"
            );
        }
    }
}
