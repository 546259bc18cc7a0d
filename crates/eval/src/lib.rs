//! Evaluation protocols: kNN, linear, logistic regression, fine-tuning, and the report; features in files, and search among them

#![forbid(unsafe_code)]

pub mod embedding;
mod error;
pub mod logistic;
pub mod protocols;
pub mod report;
pub mod search;

pub use error::EvalError;
