//! Evaluation protocols (kNN, linear, logistic regression, fine-tuning, transfer), ablation studies and the report;
//! features in files, and searching them.

#![forbid(unsafe_code)]

mod base64;
pub mod embedding;
mod error;
pub mod logistic;
mod metric;
pub mod protocols;
pub mod report;
pub mod search;
pub mod study;
mod targets;
mod toml_file;

/// The toy data set of the tests; they refer to this crate by its external name.
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
#[cfg(test)]
extern crate self as simclr_eval;

pub use error::EvalError;
pub use metric::Metric;
pub use targets::Targets;
