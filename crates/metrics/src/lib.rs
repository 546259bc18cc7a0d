//! Figures computed from features and labels as plain slices

#![forbid(unsafe_code)]
