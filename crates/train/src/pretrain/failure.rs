//! Why training came to no end, as the folder of the run has it.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

use super::Identity;
use crate::run_folder::RunFolder;
use crate::{Config, TrainError};

/// Numbers that went beyond what can be told, and ended a run. It lies in the folder of the run until that is taken up
/// again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The step, from 1.
    pub step: u64,
    /// What was not finite: its loss and gradient, or what the network had become with it.
    pub what: String,
    config: String,
    images: u64,
    names: u32,
    #[serde(default)]
    sizes: Option<u32>,
}

impl Failure {
    /// Records `error` in the folder of a run of this configuration, on these images, where it is one that would come
    /// again.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub(super) fn record(
        run: &RunFolder,
        error: &TrainError,
        config: &Config,
        data: Identity,
    ) -> Result<(), TrainError> {
        let TrainError::NotFinite { step, what, .. } = error else { return Ok(()) };
        let Identity { images, names, sizes } = data;
        let (step, what, config) = (step + 1, what.clone(), config.to_toml()?);
        run.write_failure(&Failure { step, what, config, images, names, sizes })
    }

    /// What ended a run when it was last trained; nothing where that went on to its end or to somebody's wish.
    pub fn of(run: &RunFolder) -> Option<Failure> {
        serde_json::from_slice(&fs::read(run.failure()).ok()?).ok()
    }

    /// Whether it was met with this configuration, on these images: then it will be again.
    pub fn is_of(&self, config: &Config, data: Identity) -> bool {
        let same = (data.images, data.names) == (self.images, self.names)
            && self.sizes.is_none_or(|_| self.sizes == data.sizes);
        let tried = Config::from_toml(&self.config, "the configuration that failed");
        same && tried.is_ok_and(|tried| tried.check_resume(config).is_ok())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { step, what, .. } = self;
        write!(f, "stopped at step {step}: {what} are beyond what f32 holds, or no numbers")
    }
}
