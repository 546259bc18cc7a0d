//! A stand-in for an NVIDIA GPU, for tests: CUDA kernels and NVIDIA's libraries on the CPU.
//!
//! The kernels' sources are compiled by the system's C++ compiler, and each thread of a block runs as a fiber
//! (`cpp/emulate.h`). [`Emulator`] launches them directly. [`libraries`] returns libraries that behave like the driver
//! (of two GPUs), NVRTC, cuDNN, cuBLASLt and NCCL, as far as this program uses them, so that a whole device can be
//! opened and used. They are as adverse as the interfaces allow: work is done as late as possible, memory begins as
//! NaN, and allocations and waits fail while a step is captured.
//!
//! Tests on it show neither speed nor whether NVIDIA's libraries behave as is assumed here.

mod emulator;
mod libraries;
mod sparse;
mod translate;
mod values;

pub use emulator::{Emulator, Order, in_every_order};
pub use libraries::{fail, libraries, libraries_for_two_gpus, pin_at_most};
pub use simclr_cuda::Libraries;
pub use sparse::Sparse;
pub use translate::compiler;
pub use values::{Guarded, Values};
