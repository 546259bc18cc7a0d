//! The runs of a study that came to no end, as their folders have it.

use std::fs;

use serde::{Deserialize, Serialize};
use simclr_train::pretrain::Identity;
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, TrainError};

/// Holds why a run of a study came to no end.
const FAILURE: &str = "study/failure";

/// Why a run came to no end, and what it was.
#[derive(Serialize, Deserialize)]
pub struct Failure {
    failure: String,
    config: String,
    images: u64,
    names: u32,
    #[serde(default)]
    sizes: Option<u32>,
}

impl Failure {
    /// Writes why a run of this configuration, on these images, came to no end.
    pub fn record(run: &RunFolder, failure: &str, config: &Config, data: Identity) -> Result<(), TrainError> {
        let Identity { images, names, sizes } = data;
        let failure =
            Failure { failure: failure.to_owned(), config: config.to_toml()?, images, names, sizes };
        run.write_evaluation(FAILURE, &failure)
    }

    /// Why a run of this configuration, on these images, came to no end before: it would again.
    pub fn recorded(run: &RunFolder, config: &Config, data: Identity) -> Option<String> {
        let path = run.evaluation(FAILURE);
        let Failure { failure, config: tried, images, names, sizes } =
            serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let tried = Config::from_toml(&tried, &path.display().to_string()).ok()?;
        let same = (data.images, data.names) == (images, names) && sizes.is_none_or(|_| sizes == data.sizes);
        (same && tried.check_resume(config).is_ok()).then_some(failure)
    }
}
