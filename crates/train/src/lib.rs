//! The pretraining loop: optimisers, schedules, checkpoints, the run folder

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod config;
mod error;
pub mod file_system;
pub mod presets;
pub mod run_folder;
pub mod schedule;

pub use config::{Config, Layers};
pub use error::TrainError;
pub use schedule::Schedule;
