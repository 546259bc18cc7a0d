//! The crate's one error type.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use simclr_words::text::Gigabytes;

/// Why an encoder could not be written or read. Every message names the file or tensor, what is wrong with it, and
/// what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// A network too large for an ONNX file.
    #[error(
        "the network takes {}, and an ONNX file, a protocol buffer, holds no more than {}; pretrain a narrower \
         one (encoder.width), or export it in another format",
        Gigabytes(*bytes as u64),
        Gigabytes(*limit as u64)
    )]
    TooLarge {
        /// What the file would take.
        bytes: usize,
        /// What it may take.
        limit: usize,
    },
    /// A network whose weights make it useless.
    #[error("tensor `{name}` holds {what}, so the network is useless; export an earlier checkpoint")]
    Useless {
        /// The tensor.
        name: String,
        /// The values that make it useless.
        what: &'static str,
    },
    /// A file that is in none of the formats.
    #[error(
        "{} holds no weights in safetensors, in a file of PyTorch's (.pth, .pt, .ckpt) or in a checkpoint of TensorFlow: {reason}",
        path.display()
    )]
    NoWeights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An ONNX file.
    #[error(
        "{}: ONNX, a graph of operators, is not read; give the weights of the network, in safetensors or a file of PyTorch's",
        path.display()
    )]
    Graph {
        /// The file.
        path: PathBuf,
    },
    /// A path that does not exist or is not a file.
    #[error("{}: {found}; give a file of weights", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// Weights of a network that this program does not have, or damaged ones.
    #[error("{}: {problem}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A file that does not hold a fine-tuned network.
    #[error("{}: {problem}; give a network that was fine-tuned", path.display())]
    NotFineTuned {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        problem: String,
    },
    /// A file that holds several networks.
    #[error("{}: it holds {} networks; choose one by what its names begin with, one of {}", path.display(), prefixes.len(), prefixes.join(", "))]
    Several {
        /// The file.
        path: PathBuf,
        /// The prefix of each network's tensor names, in quotes.
        prefixes: Vec<String>,
    },
    /// Weights of another program without the normalisation of the images that they expect.
    #[error(
        "{} does not say how images are normalised; choose `imagenet` for networks of torchvision, timm and most others, `none` \
         for images from 0 to 1, as SimCLR has them",
        path.display()
    )]
    Unnormalized {
        /// The file.
        path: PathBuf,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// An error of the configuration, the run folder or a checkpoint.
    #[error(transparent)]
    Train(#[from] simclr_train::TrainError),
    /// An error of a network.
    #[error(transparent)]
    Nn(#[from] simclr_nn::NnError),
}

impl ExchangeError {
    /// Whether the request is at fault (an argument, a setting, or the data that was given), and not the machine or
    /// a damaged file.
    pub fn is_misuse(&self) -> bool {
        match self {
            Self::Train(error) => error.is_misuse(),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::TooLarge { .. }
            | Self::NoWeights { .. }
            | Self::Graph { .. }
            | Self::NotAFile { .. }
            | Self::Weights { .. }
            | Self::NotFineTuned { .. }
            | Self::Several { .. }
            | Self::Unnormalized { .. } => true,
            Self::Useless { .. } | Self::Nn(_) => false,
        }
    }

    /// An error about the weights in a file.
    pub(crate) fn weights(path: &Path, problem: impl Into<String>) -> ExchangeError {
        ExchangeError::Weights { path: path.to_owned(), problem: problem.into() }
    }

    /// An error about one tensor in a file.
    pub(crate) fn tensor(path: &Path, name: &str, what: impl Display) -> ExchangeError {
        ExchangeError::weights(path, format!("tensor `{name}` {what}"))
    }
}
