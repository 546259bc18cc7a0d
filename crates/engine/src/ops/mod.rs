//! The operators, one per file: what each computes, its shapes, and its forward and backward side by side.
//!
//! Images are channels last, (N, H, W, C); rows of features are (N, C).

mod add;
mod avg_pool;
mod batch_norm;
mod contrastive;
mod conv2d;
mod conv2d_norm;
mod first_layer;
mod fuse;
mod global_avg_pool;
mod l2_normalize;
mod linear;
mod max_pool;
mod norm_conv2d;
mod norm_pair;
mod normalize;
mod nt_xent;
mod pair_loss;
mod relu;
mod select;
mod softmax_cross_entropy;
mod softmax_regression;

pub use add::add;
pub use avg_pool::avg_pool;
pub use batch_norm::{BatchNorm, batch_norm};
pub use contrastive::{ContrastiveFigures, ContrastiveSums};
pub use conv2d::{Conv2d, conv2d};
pub use conv2d_norm::{conv2d_norm, fuses_conv2d_norm};
pub use first_layer::first_layer;
pub use fuse::fuse;
pub use global_avg_pool::global_avg_pool;
pub use l2_normalize::l2_normalize;
pub use linear::linear;
pub use max_pool::max_pool;
pub use norm_conv2d::norm_conv2d;
pub use norm_pair::{Shortcut, norm_pair, norm_shortcut};
pub use normalize::{Normalization, normalize};
pub use nt_xent::nt_xent;
pub use pair_loss::{margin_triplet, nt_logistic};
pub use relu::relu;
pub use select::select;
pub use softmax_cross_entropy::softmax_cross_entropy;
pub use softmax_regression::softmax_regression;

use crate::tape::{BackwardContext, SegmentBackward};
use crate::{EngineError, Result, Tensor};
use add::AddBackward;
use avg_pool::AvgPoolBackward;
use batch_norm::BatchNormBackward;
use conv2d::Conv2dBackward;
use first_layer::FirstLayerBackward;
use fuse::FuseBackward;
use global_avg_pool::GlobalAvgPoolBackward;
use l2_normalize::L2NormalizeBackward;
use linear::LinearBackward;
use max_pool::MaxPoolBackward;
use norm_conv2d::NormConv2dBackward;
use norm_pair::NormPairBackward;
use nt_xent::NtXentBackward;
use pair_loss::PairLossBackward;
use relu::ReluBackward;
use select::SelectBackward;
use softmax_cross_entropy::SoftmaxCrossEntropyBackward;

/// Declares [`Recorded`], with a variant for the backward of each operator.
macro_rules! recorded {
    ($($name:ident($backward:ty)),* $(,)?) => {
        /// What an operator keeps on the tape for its backward.
        pub(crate) enum Recorded<'a> {
            $($name($backward),)*
        }

        impl Recorded<'_> {
            /// Computes the inputs' gradients from `dy`, the output's, and hands them to `context` by input number.
            pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
                match self {
                    $(Recorded::$name(operator) => operator.backward(dy, context),)*
                }
            }

            fn name(&self) -> &'static str {
                match self {
                    $(Recorded::$name(_) => stringify!($name),)*
                }
            }
        }

        $(impl<'a> From<$backward> for Recorded<'a> {
            fn from(operator: $backward) -> Recorded<'a> {
                Recorded::$name(operator)
            }
        })*
    };
}

recorded! {
    Add(AddBackward),
    AvgPool(AvgPoolBackward),
    BatchNorm(BatchNormBackward<'a>),
    Conv2d(Conv2dBackward),
    FirstLayer(FirstLayerBackward<'a>),
    Fuse(FuseBackward),
    GlobalAvgPool(GlobalAvgPoolBackward),
    L2Normalize(L2NormalizeBackward),
    Linear(LinearBackward),
    MaxPool(MaxPoolBackward),
    NormConv2d(NormConv2dBackward<'a>),
    NormPair(NormPairBackward<'a>),
    NtXent(NtXentBackward),
    PairLoss(PairLossBackward),
    Relu(ReluBackward),
    Segment(SegmentBackward<'a>),
    Select(SelectBackward),
    SoftmaxCrossEntropy(SoftmaxCrossEntropyBackward),
}

impl std::fmt::Debug for Recorded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The four sizes of a batch of images, none of them zero.
fn image_shape(op: &'static str, x: &Tensor) -> Result<[usize; 4]> {
    sizes(x).ok_or_else(|| EngineError::shape(op, "images (N, H, W, C)", x.shape()))
}

/// The two sizes of a batch of rows, none of them zero.
fn row_shape(op: &'static str, x: &Tensor) -> Result<[usize; 2]> {
    sizes(x).ok_or_else(|| EngineError::shape(op, "rows (N, C)", x.shape()))
}

/// Checks that there is a label below `classes` for each of `rows` rows.
fn check_labels(op: &'static str, labels: &[u32], [rows, classes]: [usize; 2]) -> Result<()> {
    if labels.len() != rows {
        return Err(EngineError::shape(op, format!("{rows} labels"), labels.len()));
    }
    if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
        let what = format!("label {label} is out of range: there are {classes} classes");
        return Err(EngineError::Value { op, what });
    }
    Ok(())
}

fn sizes<const RANK: usize>(x: &Tensor) -> Option<[usize; RANK]> {
    x.shape().try_into().ok().filter(|_| !x.is_empty())
}
