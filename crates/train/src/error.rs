//! The crate's one error type.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Memory, with_line};
use crate::memory::Gigabytes;

/// What can go wrong in configuring, recording and resuming a run.
///
/// Every message names the file or the key, what is wrong, and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration key that does not exist.
    #[error("{origin}: unknown key `{key}`; {hint}")]
    UnknownKey {
        /// Where it was written: a file, a preset, a setting (`table.key=value`).
        origin: String,
        /// The full dotted path as written.
        key: String,
        /// The nearest key, or the keys that exist.
        hint: String,
    },
    /// A configuration value of the wrong type or outside its range.
    #[error("{origin}: `{key}` is {found}, expected {expected}")]
    BadValue {
        /// Where it was written: a file, a preset, a setting (`table.key=value`).
        origin: String,
        /// The full dotted path.
        key: String,
        /// The value as written.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// Two keys that are each fine but not together.
    #[error("{origin}: `{key}` {problem}")]
    Conflict {
        /// Where the configuration came from.
        origin: String,
        /// The full dotted path of the key to change.
        key: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Text that is not TOML, or a setting that is not `table.key=value`.
    #[error("{origin}: {message}")]
    Syntax {
        /// Where it was written: a file or a setting.
        origin: String,
        /// What is wrong and where.
        message: String,
    },
    /// A preset that does not exist.
    #[error("unknown preset `{name}`; {hint}")]
    UnknownPreset {
        /// The name as given.
        name: String,
        /// The nearest preset, and all that exist.
        hint: String,
    },
    /// A file operation that failed.
    #[error("cannot {action} {}: {source}{}", path.display(), io_advice(source))]
    Io {
        /// The verb: "read", "write", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder for a new run that holds a run already.
    #[error("{} already holds a run; give another folder{}", path.display(), going_on(*trains))]
    RunExists {
        /// The run folder.
        path: PathBuf,
        /// Whether the new run would be trained, so that one may go on with the other instead.
        trains: bool,
    },
    /// A folder for a new run that holds something else.
    #[error("{} is not empty and holds no run; give a new or an empty folder", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// A run folder that is to be removed, with something in it that is not of the run.
    #[error("{} holds {name} beside its run, which would be in the way of another; take it elsewhere, or give another folder", path.display())]
    NotOnlyARun {
        /// The folder.
        path: PathBuf,
        /// A file or folder in it.
        name: String,
    },
    /// A path that should be a run folder and is not.
    #[error("{} holds no run: {}", path.display(), no_run(path))]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// A run that another process is working on.
    #[error("{} is in use by another process; wait for it to end, or stop it", path.display())]
    RunLocked {
        /// The run folder.
        path: PathBuf,
    },
    /// A file written by a later version of this program.
    #[error(
        "{} has format {found} and was written by simclr {program}; this is simclr {}, which reads \
         formats up to {supported}: use that version or a later one",
        path.display(), env!("CARGO_PKG_VERSION")
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format number.
        found: u64,
        /// The highest format number read here.
        supported: u64,
        /// The version of the program that wrote it.
        program: String,
    },
    /// A file of a run folder whose contents make no sense.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A checkpoint whose contents are not what was written.
    #[error("checkpoint {} is damaged: {reason}{}", path.display(), previous_advice(previous.as_deref()))]
    CheckpointDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
        /// The newest intact checkpoint before it, where one was looked for and found.
        previous: Option<PathBuf>,
    },
    /// Every checkpoint of a run is damaged.
    #[error(
        "all of the {} checkpoints in {} are damaged ({first}); the run cannot go on and must be started anew",
        count, folder.display()
    )]
    NoGoodCheckpoint {
        /// The checkpoints' folder.
        folder: PathBuf,
        /// How many there are.
        count: usize,
        /// What is wrong with the newest.
        first: String,
    },
    /// The best checkpoint of a run that calls none so.
    #[error(
        "none of the checkpoints in {} is the best: no figure of held-out images was measured (data.holdout, train.health_every, \
         train.knn_every); the newest can be used instead",
        folder.display()
    )]
    NoBest {
        /// The checkpoints' folder.
        folder: PathBuf,
    },
    /// A best checkpoint that cannot be used.
    #[error("the best checkpoint cannot be used: {reason}; the newest can be used instead, {}", newest.display())]
    BestLost {
        /// What is wrong with it.
        reason: String,
        /// The newest that is intact.
        newest: PathBuf,
    },
    /// A checkpoint without a tensor that the network has.
    #[error("the checkpoint has no tensor {name:?}: it belongs to another network")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A checkpoint with a tensor of another length than is needed.
    #[error(
        "the checkpoint's tensor {name:?} has {found} values, {needed} are needed: it belongs to another network or another optim.name"
    )]
    TensorLength {
        /// The tensor.
        name: String,
        /// Its values.
        found: usize,
        /// The values of the tensor that it is for.
        needed: usize,
    },
    /// Training that went beyond what numbers can tell. What comes of the step is not saved.
    #[error(
        "{what} at step {} (rate {rate:.4e}) are beyond what f32 holds, or no numbers; {}",
        step + 1,
        last_good_advice(last_good.as_deref(), *rate)
    )]
    NotFinite {
        /// The step, from 0; in the message from 1, as `metrics.jsonl` counts.
        step: u64,
        /// Its rate.
        rate: f64,
        /// What is not finite: its loss and gradient, which then have changed nothing, or what the network has become
        /// with it.
        what: String,
        /// The newest checkpoint.
        last_good: Option<PathBuf>,
    },
    /// A resumed run whose data or configuration is not what it was.
    #[error("cannot resume {}: {problem}", path.display())]
    CannotResume {
        /// The run folder.
        path: PathBuf,
        /// What differs, and what to do.
        problem: String,
    },
    /// More images in a batch than there are.
    #[error(
        "train.batch is {batch}, but there {} to train on ({holdout} held out); {}",
        if *images == 1 { "is only 1 image".to_owned() } else { format!("are only {images} images") },
        batch_advice(*batch, *images, *holdout)
    )]
    BatchTooLarge {
        /// Images in a batch.
        batch: usize,
        /// Images to train on.
        images: usize,
        /// Images held out.
        holdout: usize,
    },
    /// There is no room for the network itself.
    #[error(
        "the network and the state of its optimiser take {} of memory, {} are available: lower encoder.width or choose a \
         smaller encoder.name, or end other programs", Gigabytes(*needed), Gigabytes(*available)
    )]
    NetworkDoesNotFit {
        /// Bytes of parameters and the optimiser's state.
        needed: u64,
        /// Bytes that there are.
        available: u64,
    },
    /// What a network makes of a whole data set is more than memory holds.
    #[error(
        "the features of {images} images take {} of memory{}: give fewer images, or end other programs",
        Gigabytes(*needed),
        available.map_or_else(String::new, |available| format!(", {} are available", Gigabytes(available)))
    )]
    FeaturesDoNotFit {
        /// Images of the data set.
        images: usize,
        /// Bytes of all features.
        needed: u64,
        /// Bytes that there are, where the system tells.
        available: Option<u64>,
    },
    /// A network that computes nothing that can be used.
    #[error(
        "what the network makes of {image} is not finite (NaN or infinite): its weights are of no use; another checkpoint may have better ones"
    )]
    FeaturesNotFinite {
        /// The first image of which that is so, as the data set calls it.
        image: String,
    },
    /// A network that is not to be saved, since nothing can come of it.
    #[error("the values of `{tensor}` are not finite (NaN or infinite)")]
    WeightsNotFinite {
        /// The first of its tensors of which that is so.
        tensor: String,
    },
    /// A step that takes more memory than there is.
    #[error(
        "a batch of {batch} images takes about {} of memory with train.memory={memory}, and {} are available; {}",
        Gigabytes(*needed),
        Gigabytes(*available),
        fitting_advice(*largest_batch, *blocks)
    )]
    DoesNotFit {
        /// Images in a batch.
        batch: usize,
        /// What would be kept for the backward pass.
        memory: Memory,
        /// Bytes that the run would take.
        needed: u64,
        /// Bytes that it may take.
        available: u64,
        /// The largest batch that fits, if one does.
        largest_batch: Option<usize>,
        /// Bytes that it would take if only the inputs of blocks were kept, where that is the remedy.
        blocks: Option<u64>,
    },
    /// Views are to be made on a GPU, and cannot be; why.
    #[error("data.views_on is \"gpu\", but {0}; \"auto\" or \"cpu\" would be right")]
    ViewsOnGpu(String),
    /// Training in a precision that takes a GPU, without one.
    #[error(
        "train.precision is \"{precision}\", which needs a GPU, but the run is on {device}; a GPU (\"cuda\"), \"bf16\" or \"f32\" would be right"
    )]
    NeedsGpu {
        /// What was asked for.
        precision: crate::config::Precision,
        /// What it is on.
        device: String,
    },
    /// Two workers on one GPU.
    #[error(
        "workers {one} and {other} compute on the same GPU, {gpu}; give each its own, or take fewer workers, or the processor"
    )]
    SharedGpu {
        /// The number of one.
        one: usize,
        /// The number of the other.
        other: usize,
        /// The GPU.
        gpu: String,
    },
    /// Workers that cannot train together.
    #[error("{0}")]
    Workers(String),
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] simclr_engine::EngineError),
    /// An error of a network.
    #[error(transparent)]
    Nn(simclr_nn::NnError),
    /// An error of the data.
    #[error(transparent)]
    Data(#[from] simclr_data::DataError),
    /// A view that cannot be.
    #[error(transparent)]
    Views(#[from] simclr_augment::AugmentError),
    /// A figure that cannot be computed.
    #[error(transparent)]
    Metrics(#[from] simclr_metrics::MetricsError),
    /// A checkpoint that cannot be written as asked.
    #[error("cannot save a checkpoint: tensor `{name}` {problem}")]
    BadTensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// An error of the engine is one, wherever it came up.
impl From<simclr_nn::NnError> for TrainError {
    fn from(error: simclr_nn::NnError) -> Self {
        match error {
            simclr_nn::NnError::Engine(error) => TrainError::Engine(error),
            other => TrainError::Nn(other),
        }
    }
}

impl TrainError {
    /// [`TrainError::Conflict`] of the configuration as a whole, wherever the key was set.
    pub(crate) fn conflict(key: &str, problem: String) -> TrainError {
        TrainError::Conflict { origin: "the configuration".to_owned(), key: key.to_owned(), problem }
    }

    /// Whether the request is at fault (an argument, a setting, or the data that was given), and not the machine or
    /// a damaged file.
    pub fn is_misuse(&self) -> bool {
        match self {
            Self::Data(error) => error.is_misuse(),
            Self::UnknownKey { .. }
            | Self::BadValue { .. }
            | Self::Conflict { .. }
            | Self::Syntax { .. }
            | Self::UnknownPreset { .. }
            | Self::RunExists { .. }
            | Self::NotARun { .. }
            | Self::NotOnlyARun { .. }
            | Self::NoRun { .. }
            | Self::NoBest { .. }
            | Self::CannotResume { .. }
            | Self::BatchTooLarge { .. }
            | Self::NetworkDoesNotFit { .. }
            | Self::FeaturesDoNotFit { .. }
            | Self::DoesNotFit { .. }
            | Self::ViewsOnGpu(_)
            | Self::NeedsGpu { .. }
            | Self::Views(_) => true,
            Self::Io { .. }
            | Self::RunLocked { .. }
            | Self::NewerFormat { .. }
            | Self::Damaged { .. }
            | Self::CheckpointDamaged { .. }
            | Self::NoGoodCheckpoint { .. }
            | Self::BestLost { .. }
            | Self::MissingTensor { .. }
            | Self::TensorLength { .. }
            | Self::NotFinite { .. }
            | Self::FeaturesNotFinite { .. }
            | Self::WeightsNotFinite { .. }
            | Self::SharedGpu { .. }
            | Self::Workers(_)
            | Self::Engine(_)
            | Self::Nn(_)
            | Self::Metrics(_)
            | Self::BadTensor { .. } => false,
        }
    }

    /// Whether it is found before a run's first step that what is configured cannot be trained on these images and
    /// this machine.
    pub fn is_before_first_step(&self) -> bool {
        matches!(
            self,
            TrainError::Conflict { .. }
                | TrainError::BatchTooLarge { .. }
                | TrainError::DoesNotFit { .. }
                | TrainError::NetworkDoesNotFit { .. }
                | TrainError::ViewsOnGpu(_)
                | TrainError::NeedsGpu { .. }
        )
    }

    /// The same of a key in a text, with its line.
    pub(crate) fn in_text(mut self, text: &str) -> TrainError {
        if let TrainError::UnknownKey { origin, key, .. } | TrainError::BadValue { origin, key, .. } =
            &mut self
        {
            *origin = with_line(origin, text, key);
        }
        self
    }

    /// Whether what is being written to has no room left.
    pub(crate) fn is_full_disk(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// An [`TrainError::Io`] from its parts, as a closure for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}

fn io_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space, then try again",
        io::ErrorKind::FileTooLarge => "; allow larger files (ulimit -f)",
        io::ErrorKind::ReadOnlyFilesystem => "; give a folder that can be written to",
        io::ErrorKind::NotADirectory => "; a part of this path is a file: give a folder",
        _ => "",
    }
}

fn no_run(path: &Path) -> String {
    match path.metadata() {
        Ok(found) if found.is_dir() => format!("there is no {} in it", crate::run_folder::missing(path)),
        Ok(_) => "it is a file; give the folder of a run".to_owned(),
        Err(_) => "there is no such folder".to_owned(),
    }
}

fn going_on(trains: bool) -> &'static str {
    if trains { ", or go on with this one" } else { "" }
}

fn batch_advice(batch: usize, images: usize, holdout: usize) -> String {
    let fewer = format!("lower train.batch to at most {images}, or have it chosen (train.batch=auto)");
    match (images, holdout) {
        (0 | 1, 0) => "give at least 2 images".to_owned(),
        (0 | 1, _) => "set data.holdout=0, or give more images".to_owned(),
        (_, 0) => fewer,
        _ if batch <= images + holdout => format!("{fewer}, or set data.holdout=0"),
        _ => fewer,
    }
}

fn fitting_advice(largest_batch: Option<usize>, blocks: Option<u64>) -> String {
    let mut advice = match blocks {
        Some(bytes) => {
            format!("set train.memory=blocks, with which it takes {}, or ", Gigabytes(bytes))
        }
        None => String::new(),
    };
    advice += &match largest_batch {
        Some(batch) => format!("lower train.batch to at most {batch}, or data.image_size or encoder.width"),
        None => "no batch fits: lower data.image_size or encoder.width, or end other programs".to_owned(),
    };
    advice
}

fn previous_advice(previous: Option<&Path>) -> String {
    match previous {
        Some(path) => format!("; the one before it, {}, is intact: go on from that", path.display()),
        None => String::new(),
    }
}

fn last_good_advice(path: Option<&Path>, rate: f64) -> String {
    // Without a rate the weights are still those that training began from.
    let remedy = match rate > 0.0 {
        true => "lower optim.rate, lengthen optim.warmup_epochs or raise loss.temperature",
        false => "raise loss.temperature, or begin from other weights",
    };
    match path {
        Some(path) => {
            format!(
                "the last checkpoint before that is {}; {remedy}, in a new run, which can begin with this one's encoder (train.from)",
                path.display()
            )
        }
        None => format!("there is no checkpoint yet; {remedy}"),
    }
}
