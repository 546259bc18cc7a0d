//! Evaluates an encoder by protocols over a whole data set, each compared against a randomly initialised encoder.
//!
//! ```text
//! TrainedEncoder::load(RUN) ──▶ Versus<Model> ──┬─▶ encode ──▶ Versus<Encoded> ──┬─▶ knn ──────┐
//! Splits::new(train, test) ─────────────────────┤                               ├─▶ logistic ──┼─▶ Evaluation
//!                                               ├─▶ knn_of_images ──────────────│──────────────┤
//!                                               └─▶ linear_sgd, finetune ───────│──────────────┘
//!                                                                               └─▶ pictures ─▶ assemble_report
//! ```
//!
//! Evaluations are kept in RUN/evaluation/. Protocols borrow the encoder immutably, and BatchNorm uses its running
//! averages; fine-tuning trains a copy. The same seed gives the same bits for any number of threads.
//!
//! | file | |
//! |---|---|
//! | `splits` | labelled training and test images whose classes agree |
//! | `places` | where images lie, and which paths are in two splits |
//! | `shared` | which images are in two splits by their contents |
//! | `pairing` | training and test images of opened data sets, and what is wrong with them |
//! | `stratify` | a share of every class |
//! | `trained` | the encoder of a run folder |
//! | `baseline` | the random encoder to compare against |
//! | `versus` | the trained and the random one, side by side |
//! | `encode` | h of all images |
//! | `knn`, `regression`, `linear_sgd`, `finetune` | the protocols |
//! | `sgd` | settings and training loop of the protocols that use SGD (`linear_sgd`, `finetune`, `transfer`) |
//! | `network` | an encoder with a classifier, trained together |
//! | `loss` | the loss of a classifier |
//! | `examples` | images and their targets |
//! | `choice` | what a setting that validation images chose is worth |
//! | `predict` | the predictions of a fine-tuned network |
//! | `fingerprint` | tells whether images are the same as before |
//! | [`transfer`] | an encoder on other data sets |
//! | `probe` | what h and z retain of a transformation of the image |
//! | `evaluation` | the result of a protocol |
//! | `protocol` | which protocol a result is of |
//! | `neighbours` | nearest neighbours as pictures |
//! | `maps` | images as points on a plane |
//! | `assemble` | the report of a run folder |

mod assemble;
mod baseline;
mod choice;
mod encode;
mod evaluation;
mod examples;
mod finetune;
mod fingerprint;
mod knn;
mod linear_sgd;
mod loss;
mod maps;
mod neighbours;
mod network;
mod pairing;
mod places;
mod predict;
mod probe;
mod protocol;
mod regression;
mod sgd;
mod shared;
mod splits;
mod stratify;
mod trained;
pub mod transfer;
mod versus;

pub use assemble::{Pictures, assemble_report, pictures, unlabelled_pictures, write_report};
pub use baseline::random_encoder;
pub use choice::{Edge, FEW_TO_CHOOSE_BY};
pub use encode::{Encoded, encode, encode_all};
pub use evaluation::{BrokenImage, ClassScore, Evaluation, Origin, Scores};
pub use examples::Examples;
pub use finetune::{
    BadLabels, BadRate, FineTune, FineTuned, Labels, Rate, SavedNetwork, finetune, network_file,
    network_of_other_data, saved_networks,
};
pub use knn::{knn, knn_of_images};
pub use linear_sgd::{linear_sgd, linear_sgd_z};
pub use pairing::{Opened, Paired, kept_in_memory, named, pair};
pub use places::LocatedImages;
pub use predict::{Classifier, Predicted, Recognised};
pub use probe::{Probe, ProbeOptions, ProbeRow, Transformation, probe};
pub use protocol::{FineTuning, Protocol, Representation, Setting};
pub use regression::{LogisticOptions, logistic, logistic_z};
pub use sgd::Sgd;
pub use shared::SharedPaths;
pub use splits::Splits;
pub use trained::{TrainedEncoder, WhichCheckpoint, trained_with};
pub use versus::{Progress, Side, Versus};
