//! The pretraining loop: configuration, schedules, optimisers, checkpoints, the run folder.
//!
//! ```
//! use simclr_train::{Config, Layers, Schedule};
//!
//! let sets = ["train.epochs=20".to_owned()];
//! let config = Config::resolve(&Layers { preset: Some("small"), sets: &sets, ..Layers::default() })?;
//! let schedule = Schedule::new(&config, 50_000);
//! assert_eq!((schedule.rate(0), schedule.warmup_steps(), schedule.peak()), (0.0, 195, 1.0));
//! # Ok::<(), simclr_train::TrainError>(())
//! ```

#![forbid(unsafe_code)]

mod append_log;
pub mod checkpoint;
pub mod checksum;
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
mod tensorboard;
pub mod workers;

pub use config::{Config, Layers};
pub use embedding::{EmbeddedBatch, Embedding, embed_images, embed_images_by};
pub use error::TrainError;
pub use model::{Model, resnet_spec};
pub use schedule::Schedule;
