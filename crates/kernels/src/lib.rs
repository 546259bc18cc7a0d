//! CPU kernels on plain slices, for portable Rust, AVX2 + FMA, AVX-512 and AMX.
//!
//! A kernel takes its geometry, its operands and its result; it knows nothing of tensors, tapes or
//! networks. Every kernel gives the same bits for any number of threads: the cut into pieces depends
//! on the geometry alone, and the results of pieces are reduced in a fixed order.

pub mod avg_pool;
pub mod batch_norm;
pub mod buffer;
pub mod columns;
pub mod contrastive;
pub mod conv2d;
pub mod cross_entropy;
mod element;
pub mod elementwise;
mod geometry;
pub mod l2_normalize;
mod math;
pub mod nt_xent;
pub mod optimizer;
pub mod pair_loss;
pub mod peak;
mod pieces;
pub mod pooling;
pub mod product;
pub mod recycle;
mod scratch;
pub mod selective;
mod shared;
mod simd;
#[cfg(test)]
mod testing;
mod threads;
pub mod verdict;

pub use element::Element;
pub use geometry::{AvgPoolGeometry, Conv2dGeometry, PoolGeometry};
pub use simclr_isa::{Isa, Level};
pub use threads::{Threads, ThreadsError};

/// The threads and the instruction set that kernels run with.
#[derive(Debug, Clone)]
pub struct Cpu {
    /// The worker threads.
    pub threads: Threads,
    /// The instruction set, detected once or forced.
    pub isa: Isa,
}

impl Cpu {
    /// Starts `threads` threads (0: as many as the processor has) to run with `isa`.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn new(threads: usize, isa: Isa) -> Result<Cpu, ThreadsError> {
        Ok(Cpu { threads: Threads::new(threads)?, isa })
    }
}

/// How a kernel writes its result to memory that already holds values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// The result overwrites them.
    Over,
    /// The result is added to them before it is rounded.
    Add,
}
