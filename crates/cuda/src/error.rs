//! Errors of the GPU, its driver and its libraries.

use std::path::PathBuf;

use simclr_words::text::Gigabytes;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, CudaError>;

/// An error of the driver or of a library, or a missing library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// A library was not found on this machine.
    #[error("{library} was not found ({names}): {gives}; {remedy}")]
    Missing {
        /// Its name.
        library: &'static str,
        /// The file names that were looked for.
        names: String,
        /// What the program needs it for.
        gives: &'static str,
        /// How to install it.
        remedy: &'static str,
    },
    /// A library was found but cannot be loaded.
    #[error("cannot load {path}: {reason}")]
    Load {
        /// The file.
        path: PathBuf,
        /// The system's error message.
        reason: String,
    },
    /// A call of the driver or of a library failed.
    #[error("{what} failed: {reason}")]
    Call {
        /// The operation that was attempted.
        what: &'static str,
        /// The error that was returned.
        reason: String,
    },
    /// Slices whose lengths do not match each other or the geometry.
    #[error("{kernel}: {what}")]
    Lengths {
        /// The kernel or operation.
        kernel: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The GPU is out of memory.
    #[error(
        "the GPU has no {} left: tensors take {} of the {} that are held ({reason}); use a smaller batch, or stop \
         other programs that use this GPU",
        Gigabytes(*wanted as u64),
        Gigabytes(*live as u64),
        Gigabytes(*held as u64)
    )]
    OutOfMemory {
        /// The size of the failed allocation, in bytes.
        wanted: usize,
        /// Bytes in live buffers.
        live: usize,
        /// Bytes obtained from the driver.
        held: usize,
        /// The driver's error message.
        reason: String,
    },
}
