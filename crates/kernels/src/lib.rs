//! CPU kernels on plain slices: portable, AVX2 + FMA and AVX-512 forms.
//!
//! A kernel takes its geometry, its operands and its result; it knows nothing of tensors, tapes or
//! networks. Every kernel gives the same bits for any number of threads: work is cut into pieces that
//! depend on the geometry alone, and pieces are reduced in a fixed order.

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

/// What every kernel needs to run: the threads to run on and the instruction set to use.
#[derive(Debug, Clone)]
pub struct Cpu {
    /// The worker threads.
    pub threads: Threads,
    /// The instruction set, detected once or forced.
    pub isa: Isa,
}

impl Cpu {
    /// `threads` new threads (0: as many as the processor has) with `isa`.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn new(threads: usize, isa: Isa) -> Result<Cpu, ThreadsError> {
        Ok(Cpu { threads: Threads::new(threads)?, isa })
    }
}

/// What becomes of what a result's memory holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// It is overwritten.
    Over,
    /// The result is added to it, before it is rounded.
    Add,
}
