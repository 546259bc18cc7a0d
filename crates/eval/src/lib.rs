//! Evaluation protocols: kNN, linear, logistic regression, fine-tuning, and the report

#![forbid(unsafe_code)]

mod error;
pub mod logistic;
pub mod protocols;
pub mod report;

pub use error::EvalError;
