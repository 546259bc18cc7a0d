//! Evaluation protocols: kNN, linear, logistic regression, and the report

#![forbid(unsafe_code)]

pub mod logistic;
pub mod report;
