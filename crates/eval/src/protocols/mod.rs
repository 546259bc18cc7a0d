//! How good an encoder is: protocols over a whole data set, each against a randomly initialised encoder.
//!
//! ```text
//! TrainedEncoder::load(RUN) ──▶ Versus<Model> ──┬─▶ encode ──▶ Versus<Encoded> ──┬─▶ knn ──────┐
//! Splits::new(train, test) ─────────────────────┤                               ├─▶ logistic ──┼─▶ Evaluation ─▶ RUN/evaluation/
//!                                               └─▶ linear_sgd ─────────────────│──────────────┘
//!                                                                               └─▶ neighbour_rows ─▶ assemble_report
//! ```
//!
//! The encoder is lent to every protocol unchangeable, and BatchNorm runs by its running averages. The same seed gives the same bits
//! for any number of threads.
//!
//! | file | |
//! |---|---|
//! | `splits` | labelled training and test images whose classes agree |
//! | `stratify` | a part of every class |
//! | `trained` | the encoder of a run folder |
//! | `baseline` | the random encoder to compare with |
//! | `versus` | the trained and the random one, side by side |
//! | `encode` | h of all images |
//! | `knn`, `regression`, `linear_sgd` | the protocols |
//! | `evaluation` | their result |
//! | `neighbours` | nearest neighbours as pictures |
//! | `assemble` | the report of a run folder |

mod assemble;
mod baseline;
mod encode;
mod evaluation;
mod knn;
mod linear_sgd;
mod neighbours;
mod regression;
mod splits;
mod stratify;
mod trained;
mod versus;

pub use assemble::{assemble_report, write_report};
pub use baseline::random_encoder;
pub use encode::{Encoded, encode};
pub use evaluation::{BrokenImage, ClassScore, Evaluation, Scores};
pub use knn::knn;
pub use linear_sgd::{LinearSgd, linear_sgd};
pub use neighbours::{NeighbourOptions, neighbour_rows};
pub use regression::{LogisticOptions, logistic};
pub use splits::Splits;
pub use trained::{TrainedEncoder, WhichCheckpoint};
pub use versus::{Progress, Side, Versus};
