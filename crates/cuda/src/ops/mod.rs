//! The operators' kernels as safe functions, which check lengths and take intermediate memory from the launcher.
//!
//! Each has a portable form in `simclr-kernels` or `simclr-augment`, which specifies it. All give the same bits every
//! time, on any GPU: the division of work depends on shapes alone, and sums are reduced in a fixed order.

pub mod avg_pool;
pub mod batch_norm;
pub mod cross_entropy;
pub mod elementwise;
pub mod first_layer;
pub mod l2_normalize;
pub mod norm_pair;
pub mod nt_xent;
pub mod optimizer;
pub mod pair_loss;
pub mod pooling;
pub mod reductions;
pub mod selective;
mod similarities;
pub mod stem;
pub mod strided;
pub mod sums;
pub mod views;
