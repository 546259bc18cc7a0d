//! CUDA kernels, the libraries that they need, and a safe way to launch them.
//!
//! The crate knows device buffers and geometries, nothing of tensors, tapes or networks. Nothing of NVIDIA's is linked: the driver
//! and the libraries are looked for when the program runs ([`Libraries`]), so that one binary serves machines with and without a
//! GPU. Without the feature `cuda` only the search and the kernels' sources are built.

mod error;
mod gpus;
mod libraries;

pub use error::{CudaError, Result};
pub use gpus::{Gpu, Gpus};
pub use libraries::{Found, Libraries, Library, Places};

/// Whether this build can use GPUs: whether it has the feature `cuda`.
pub const BUILT_IN: bool = cfg!(feature = "cuda");
