//! The crate's one error type.

/// Why an encoder could not be written or read. Every message names the file or the tensor, what is wrong and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// A network too large for an ONNX file.
    #[error(
        "the network takes {:.2} GB, and an ONNX file, a protocol buffer, holds no more than {:.2} GB: export it with --to \
         torchvision, or pretrain a narrower one (encoder.width)",
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
    #[error("tensor `{name}` holds values that are not finite: the network is of no use to anybody")]
    NotFinite {
        /// The tensor.
        name: String,
    },
    /// An error of the configuration, the run folder or a checkpoint.
    #[error(transparent)]
    Train(#[from] simclr_train::TrainError),
    /// An error of a network.
    #[error(transparent)]
    Nn(#[from] simclr_nn::NnError),
}
