//! Figures computed from features and labels as plain slices.
//!
//! Features are row-major `f32` matrices ([`Features`]: one row per image), labels are `u32` class numbers.
//! Functions run on the current rayon pool and give the same bits for any number of threads: work is cut into
//! tiles whose size never depends on the pool, and partial sums are added in the order of the tiles.
//!
//! | file | figures |
//! |---|---|
//! | `neighbours`, `nearest_so_far` | exact cosine nearest neighbours, of all rows or of one block after another |
//! | `candidates` | the rows that may be among the nearest to a query |
//! | `knn` | the weighted kNN classifier |
//! | `accuracy` | top-k, its interval, per class, mean per class, confusion |
//! | `rank_me` | effective rank of features |
//! | `alignment`, `uniformity`, `spread` | geometry of the projections on the sphere |
//! | `pairs` | NT-Xent, contrastive accuracy and entropy of held-out pairs |
//! | `average_precision` | VOC 11-point, and its mean over classes |
//! | `features` | the matrix of features, checked |
//! | `eigenvalues` | eigenvalues of a symmetric matrix, for `rank_me` |
//! | `error` | errors in the input |

#![forbid(unsafe_code)]

mod accuracy;
mod alignment;
mod average_precision;
mod candidates;
mod eigenvalues;
mod error;
mod features;
mod knn;
mod nearest_so_far;
mod neighbours;
mod pairs;
mod rank_me;
mod spread;
mod uniformity;

pub use accuracy::{ClassCounts, confusion, likeliest, top_k, wilson};
pub use alignment::alignment;
pub use average_precision::{eleven_point_average_precision, eleven_point_map};
pub use error::{MetricsError, check_labels};
pub use features::Features;
pub use knn::{Knn, KnnOutcome};
pub use nearest_so_far::NearestSoFar;
pub use neighbours::{Neighbours, nearest_neighbours};
pub use pairs::{PairFigures, pair_figures};
pub use rank_me::rank_me;
pub use spread::spread;
pub use uniformity::uniformity;
