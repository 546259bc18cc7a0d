//! What can go wrong with a GPU.

use std::path::PathBuf;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, CudaError>;

/// An error of the driver, of a library, or of their absence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// A library is not on this machine.
    #[error("{library} was not found ({names}): {gives}; {remedy}")]
    Missing {
        /// Its name.
        library: &'static str,
        /// The file names that were looked for.
        names: String,
        /// What it would give.
        gives: &'static str,
        /// Where it comes from.
        remedy: &'static str,
    },
    /// A library is there but cannot be loaded.
    #[error("cannot load {path}: {reason}")]
    Load {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A call of the driver or of a library failed.
    #[error("{what} failed: {reason}")]
    Call {
        /// What was asked for.
        what: &'static str,
        /// What was answered.
        reason: String,
    },
    /// Slices whose lengths do not belong together.
    #[error("{kernel}: {what}")]
    Lengths {
        /// What was asked for.
        kernel: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The GPU has not as much memory.
    #[error(
        "the GPU has no {} left: tensors take {} of the {} that are held ({reason}); a smaller batch takes less, and \
         what else uses the GPU may leave more",
        gigabytes(*wanted),
        gigabytes(*live),
        gigabytes(*held)
    )]
    OutOfMemory {
        /// What was asked for, in bytes.
        wanted: usize,
        /// In buffers that are alive.
        live: usize,
        /// Obtained from the driver.
        held: usize,
        /// What the driver says.
        reason: String,
    },
}

/// Bytes as people read them.
fn gigabytes(bytes: usize) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}
