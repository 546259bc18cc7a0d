//! The crate's one error type.

use std::io;
use std::path::{Path, PathBuf};

use simclr_words::text::{Gigabytes, counted, grouped};

use crate::config::{Memory, counted_from_0, with_line};

/// What can go wrong in configuring, recording and resuming a run.
///
/// Every message names the file or the key, what is wrong, and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// An unknown configuration key.
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
    /// Two keys that are each valid but contradict each other.
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
        /// The nearest preset, and all presets.
        hint: String,
    },
    /// A failed file operation.
    #[error("cannot {action} {}: {source}{}", path.display(), io_advice(source))]
    Io {
        /// The verb: "read", "write", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The folder for a new run already holds a run.
    #[error("{} already holds a run; give another folder{}", path.display(), going_on(*trains))]
    RunExists {
        /// The run folder.
        path: PathBuf,
        /// Whether the new run was to be trained, so that resuming the existing run is an alternative.
        trains: bool,
    },
    /// The folder for a new run holds something else.
    #[error("{} is not empty and holds no run; give a new or an empty folder", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// A run folder to be removed contains something that does not belong to the run.
    #[error("{} holds {name} beside its run, which would be in the way of another; take it elsewhere, or give another folder", path.display())]
    NotOnlyARun {
        /// The folder.
        path: PathBuf,
        /// The file or folder that does not belong to the run.
        name: String,
    },
    /// A path that should be a run folder but is not.
    #[error("{} holds no run: {}", path.display(), no_run(path))]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// A run that another process is using.
    #[error("{} is in use by another process; wait for it to end, or stop it", path.display())]
    RunLocked {
        /// The run folder.
        path: PathBuf,
    },
    /// The folder of a run was removed, moved or replaced while the run trained in it.
    #[error(
        "{} is no longer the folder in which this run began: while it trained, the folder, or its file `lock`, was removed, \
         moved or replaced. Nothing more is written there, and the steps since the last checkpoint are lost; if the folder \
         was moved, continue the run there, otherwise begin it anew in a folder of its own",
        path.display()
    )]
    RunGone {
        /// The run folder as it was named.
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
        /// The highest format number that this version reads.
        supported: u64,
        /// The version of the program that wrote it.
        program: String,
    },
    /// A file of a run folder with invalid contents.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A checkpoint whose contents differ from what was written.
    #[error("checkpoint {} is damaged: {reason}{}", path.display(), previous_advice(previous.as_deref()))]
    CheckpointDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
        /// The newest intact checkpoint before it, if one was looked for and found.
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
        /// The number of checkpoints.
        count: usize,
        /// What is wrong with the newest.
        first: String,
    },
    /// The best checkpoint was requested of a run that records none.
    #[error(
        "none of the checkpoints in {} is the best: no figure of held-out images was measured (data.holdout, train.health_every, \
         train.knn_every); the newest can be used instead",
        folder.display()
    )]
    NoBest {
        /// The checkpoints' folder.
        folder: PathBuf,
    },
    /// The best checkpoint cannot be used.
    #[error("the best checkpoint cannot be used: {reason}; the newest can be used instead, {}", newest.display())]
    BestLost {
        /// What is wrong with it.
        reason: String,
        /// The newest intact checkpoint.
        newest: PathBuf,
    },
    /// A checkpoint lacks a tensor of the network.
    #[error("the checkpoint has no tensor {name:?}: it belongs to another network")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor in a checkpoint has the wrong length.
    #[error(
        "the checkpoint's tensor {name:?} has {found} values, {needed} are needed: it belongs to another network or another optim.name"
    )]
    TensorLength {
        /// The tensor.
        name: String,
        /// Its number of values.
        found: usize,
        /// The number of values needed.
        needed: usize,
    },
    /// A training step gave non-finite values. Its result is not saved.
    #[error(
        "{what} at step {} (rate {rate:.4e}) are not finite (infinite or NaN); {}",
        step + 1,
        last_good_advice(last_good.as_deref(), *rate)
    )]
    NotFinite {
        /// The step, from 0; the message counts from 1, as `metrics.jsonl` does.
        step: u64,
        /// Its learning rate.
        rate: f64,
        /// What is not finite: the step's loss and gradient, which were then not applied, or the network's values after
        /// the step.
        what: String,
        /// The newest checkpoint.
        last_good: Option<PathBuf>,
    },
    /// The data or configuration of a resumed run has changed.
    #[error("cannot resume {}: {problem}", path.display())]
    CannotResume {
        /// The run folder.
        path: PathBuf,
        /// What differs, and what to do.
        problem: String,
    },
    /// A batch larger than the number of training images.
    #[error(
        "train.batch is {}, but there {} only {} to train on ({} held out); {}",
        grouped(*batch as u64),
        if *images == 1 { "is" } else { "are" },
        counted(*images, "image"),
        grouped(*holdout as u64),
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
    /// Memory does not hold even the network itself.
    #[error(
        "the network and the state of its optimiser take {} of memory, {} are available: lower encoder.width or choose a \
         smaller encoder.name, or end other programs", Gigabytes(*needed), Gigabytes(*available)
    )]
    NetworkDoesNotFit {
        /// Bytes of parameters and the optimiser's state.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
    /// The features of a whole data set do not fit in memory.
    #[error(
        "the features of {} take {} of memory{}: give fewer images, or end other programs",
        counted(*images, "image"),
        Gigabytes(*needed),
        available.map_or_else(String::new, |available| format!(", {} are available", Gigabytes(available)))
    )]
    FeaturesDoNotFit {
        /// Images of the data set.
        images: usize,
        /// Bytes of all features.
        needed: u64,
        /// Bytes available, if the system reports them.
        available: Option<u64>,
    },
    /// A network gave non-finite features.
    #[error(
        "what the network makes of {image} is not finite (NaN or infinite): its weights are of no use; another checkpoint may have better ones"
    )]
    FeaturesNotFinite {
        /// The name of the first image with non-finite features.
        image: String,
    },
    /// A network with non-finite values, which is useless and not saved.
    #[error("the values of `{tensor}` are not finite (NaN or infinite)")]
    WeightsNotFinite {
        /// The first tensor with non-finite values.
        tensor: String,
    },
    /// A training step does not fit in memory.
    #[error(
        "a batch of {} takes about {} of memory with train.memory={memory}, and {} are available; {}",
        counted(*batch, "image"),
        Gigabytes(*needed),
        Gigabytes(*available),
        fitting_advice(*largest_batch, *sent, *blocks)
    )]
    DoesNotFit {
        /// Images in a batch.
        batch: usize,
        /// What would be kept for the backward pass.
        memory: Memory,
        /// Bytes that the run would need.
        needed: u64,
        /// Bytes that it may use.
        available: u64,
        /// The largest batch that fits, if any.
        largest_batch: Option<usize>,
        /// Bytes for the images of batches on their way to a GPU and for their views, if nothing takes more.
        sent: Option<u64>,
        /// Bytes needed if only the inputs of blocks were kept, if that is a remedy.
        blocks: Option<u64>,
    },
    /// Why views cannot be made on a GPU as configured.
    #[error("data.views_on is \"gpu\", but {0}; use \"auto\" or \"cpu\"")]
    ViewsOnGpu(String),
    /// Training without a GPU in a precision that needs one.
    #[error(
        "train.precision is \"{precision}\", which needs a GPU, but the run is on {device}; use a GPU (\"cuda\"), \"bf16\" or \"f32\""
    )]
    NeedsGpu {
        /// The configured precision.
        precision: crate::config::Precision,
        /// The device of the run.
        device: String,
    },
    /// Two workers on one GPU.
    #[error(
        "workers {one} and {other} compute on the same GPU, {gpu}; give each its own, or take fewer workers, or the processor"
    )]
    SharedGpu {
        /// The number of one worker.
        one: usize,
        /// The number of the other worker.
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
    /// Invalid view settings.
    #[error(transparent)]
    Views(#[from] simclr_augment::AugmentError),
    /// A figure that cannot be computed.
    #[error(transparent)]
    Metrics(#[from] simclr_metrics::MetricsError),
    /// A tensor that a checkpoint cannot hold.
    #[error("cannot save a checkpoint: tensor `{name}` {problem}")]
    BadTensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// An engine error inside a network error becomes [`TrainError::Engine`].
impl From<simclr_nn::NnError> for TrainError {
    fn from(error: simclr_nn::NnError) -> Self {
        match error {
            simclr_nn::NnError::Engine(error) => TrainError::Engine(error),
            other => TrainError::Nn(other),
        }
    }
}

impl TrainError {
    /// A [`TrainError::Conflict`] whose origin is the configuration as a whole.
    pub(crate) fn conflict(key: &str, problem: String) -> TrainError {
        TrainError::Conflict { origin: "the configuration".to_owned(), key: key.to_owned(), problem }
    }

    /// Whether the request is at fault (an argument, a setting or the given data), rather than the machine or a damaged
    /// file.
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
            | Self::RunGone { .. }
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

    /// Whether this error is found before a run's first step and means that the configuration cannot be trained with
    /// these images on this machine.
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

    /// Adds the line of the key in `text` to the origin.
    pub(crate) fn in_text(mut self, text: &str) -> TrainError {
        if let TrainError::UnknownKey { origin, key, .. } | TrainError::BadValue { origin, key, .. } =
            &mut self
        {
            *origin = with_line(origin, text, &counted_from_0(key));
        }
        self
    }

    /// Whether the disk, or the quota, is full.
    pub(crate) fn is_full_disk(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Whether a file is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
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
    if trains { ", or continue this one" } else { "" }
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

fn fitting_advice(largest_batch: Option<usize>, sent: Option<u64>, blocks: Option<u64>) -> String {
    let of_images = sent.map(|bytes| {
        format!(
            "set data.views_on=cpu, or data.shrink to make images smaller, as {} of that are images on their way to the GPU",
            Gigabytes(bytes)
        )
    });
    let of_blocks =
        blocks.map(|bytes| format!("set train.memory=blocks, with which it takes {}", Gigabytes(bytes)));
    let is_only = of_images.is_none() && of_blocks.is_none();
    let rest = match largest_batch {
        Some(batch) => format!("lower train.batch to at most {batch}, or data.image_size or encoder.width"),
        None => {
            let why = if is_only { "no batch fits: " } else { "" };
            format!("{why}lower data.image_size or encoder.width, or end other programs")
        }
    };
    of_images.into_iter().chain(of_blocks).chain([rest]).collect::<Vec<_>>().join("; or ")
}

fn previous_advice(previous: Option<&Path>) -> String {
    match previous {
        Some(path) => format!("; the one before it, {}, is intact: go on from that", path.display()),
        None => String::new(),
    }
}

fn last_good_advice(path: Option<&Path>, rate: f64) -> String {
    // With a learning rate of 0 the weights are still the initial ones.
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
