//! The crate's one error type.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Why an encoder could not be written or read. Every message says what is wrong, of which file or tensor if it is
/// one, and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// A network too large for an ONNX file.
    #[error(
        "the network takes {:.2} GB, and an ONNX file, a protocol buffer, holds no more than {:.2} GB; pretrain a narrower \
         one (encoder.width), or export it in another format",
        *bytes as f64 / 1e9,
        *limit as f64 / 1e9
    )]
    TooLarge {
        /// What the file would take.
        bytes: usize,
        /// What it may take.
        limit: usize,
    },
    /// A network that computes nothing.
    #[error("tensor `{name}` holds {what}, so the network is useless; export an earlier checkpoint")]
    Useless {
        /// The tensor.
        name: String,
        /// The values that make it so.
        what: &'static str,
    },
    /// A file of something else.
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
    /// A file of ONNX.
    #[error(
        "{}: ONNX, a graph of operators, is not read; give the weights of the network, in safetensors or a file of PyTorch's",
        path.display()
    )]
    Graph {
        /// The file.
        path: PathBuf,
    },
    /// A path that is no file, or nothing.
    #[error("{}: {found}; give a file of weights", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// Weights of another network than there are here.
    #[error("{}: {problem}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A file that is no fine-tuned network.
    #[error("{}: {problem}; give a network that was fine-tuned", path.display())]
    NotFineTuned {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        problem: String,
    },
    /// A file of several networks.
    #[error("{}: it holds {} networks; choose one by what its names begin with, one of {}", path.display(), prefixes.len(), prefixes.join(", "))]
    Several {
        /// The file.
        path: PathBuf,
        /// What the names of each begin with, in quotes.
        prefixes: Vec<String>,
    },
    /// Weights of another program, with nothing said about the images that they take.
    #[error(
        "{} does not tell how images are normalised; say so: `imagenet` for networks of torchvision, timm and most others, `none` \
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
        /// What the system said.
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
    /// Something wrong with the weights of a file.
    pub(crate) fn weights(path: &Path, problem: impl Into<String>) -> ExchangeError {
        ExchangeError::Weights { path: path.to_owned(), problem: problem.into() }
    }

    /// The same of one tensor.
    pub(crate) fn tensor(path: &Path, name: &str, what: impl Display) -> ExchangeError {
        ExchangeError::weights(path, format!("tensor `{name}` {what}"))
    }
}
