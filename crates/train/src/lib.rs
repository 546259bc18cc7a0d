//! The pretraining loop: optimisers, schedules, checkpoints, the run folder

#![forbid(unsafe_code)]

mod append_log;
pub mod checkpoint;
pub mod config;
mod embedding;
mod error;
pub mod file_system;
pub mod memory;
pub mod metrics_log;
mod model;
pub mod optim;
pub mod presets;
pub mod pretrain;
pub mod run_folder;
pub mod schedule;
pub mod tensorboard;

pub use config::{Config, Layers};
pub use embedding::Embedding;
pub use error::TrainError;
pub use model::{Model, resnet_spec};
pub use schedule::Schedule;
