//! CUDA kernels, the libraries that they need, and a safe way to launch them.
//!
//! The crate knows device memory and geometries, nothing of tensors, tapes or networks. No NVIDIA library is
//! linked: the driver and the libraries are looked up at run time ([`Libraries`]), so that one binary serves
//! machines with and without a GPU. Without the feature `cuda` only the library search, the kernels' sources and
//! their launches are built: a [`Launcher`] is a GPU or, in tests, a stand-in for one.

#[cfg(feature = "cuda")]
mod cache;
mod cache_folder;
#[cfg(feature = "cuda")]
mod compile;
#[cfg(feature = "cuda")]
mod device;
mod divisor;
mod element;
mod environment;
mod error;
mod gpus;
mod launcher;
mod libraries;
mod memory;
pub mod ops;
mod sources;

pub use cache_folder::cache_folder;
#[cfg(feature = "cuda")]
pub use compile::{Capability, Compiler, Image};
#[cfg(feature = "cuda")]
pub use device::{
    Channel, Communicator, ConvolutionLimits, ConvolutionMode, ConvolutionPass, ConvolutionTiming, Device,
    DeviceBuffer, Epilogue, Exchange, Exchanged, GROUP_ID, Graph, KeptAt, Matrix, MemoryUse, Peak,
    ProductMode, Searched, Source, ViewMaker,
};
pub use element::{Element, ElementType};
pub use environment::{NCCL_SETTINGS, settle_environment};
pub use error::{CudaError, Result};
pub use gpus::{Gpu, Gpus};
pub use launcher::{Argument, Launch, Launcher, Memory};
pub use libraries::{FoundLibrary, Libraries, Library, SearchPath};
pub use memory::{Slice, SliceMut};
pub use sources::{Module, Program};

/// Whether this build can use GPUs, that is, has the feature `cuda`.
pub const BUILT_IN: bool = cfg!(feature = "cuda");
