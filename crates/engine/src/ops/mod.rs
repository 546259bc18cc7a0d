//! The operators, one a file: what it computes, its shapes, its forward and its backward side by side.
//!
//! Images are channels last, (N, H, W, C); rows of features are (N, C).

mod add;
mod batch_norm;
mod conv2d;
mod global_avg_pool;
mod l2_normalize;
mod linear;
mod max_pool;
mod nt_xent;
mod relu;
mod softmax_cross_entropy;

pub use add::add;
pub use batch_norm::{BatchNorm, batch_norm};
pub use conv2d::{Conv2d, conv2d};
pub use global_avg_pool::global_avg_pool;
pub use l2_normalize::l2_normalize;
pub use linear::linear;
pub use max_pool::max_pool;
pub use nt_xent::{NtXentFigures, nt_xent};
pub use relu::relu;
pub use softmax_cross_entropy::softmax_cross_entropy;

use crate::{EngineError, Result, Tensor};

/// The four sizes of a batch of images, none of them zero.
fn image_shape(op: &'static str, x: &Tensor) -> Result<[usize; 4]> {
    sizes(x).ok_or_else(|| EngineError::shape(op, "images (N, H, W, C)", x.shape()))
}

/// The two sizes of a batch of rows, none of them zero.
fn row_shape(op: &'static str, x: &Tensor) -> Result<[usize; 2]> {
    sizes(x).ok_or_else(|| EngineError::shape(op, "rows (N, C)", x.shape()))
}

fn sizes<const RANK: usize>(x: &Tensor) -> Option<[usize; RANK]> {
    x.shape().try_into().ok().filter(|_| !x.is_empty())
}
