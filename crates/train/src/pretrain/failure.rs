//! Why training failed, as recorded in the run folder.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

use super::Identity;
use crate::run_folder::RunFolder;
use crate::{Config, TrainError};

/// Record of the non-finite values that ended a run; kept in the run folder until the run is resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The step, from 1.
    pub step: u64,
    /// What was not finite: the step's loss and gradient, or the network's values after it.
    pub what: String,
    config: String,
    #[serde(flatten)]
    data: Identity,
}

impl Failure {
    /// Records `error` in the folder of a run with this configuration on these images, if it is one that would recur.
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
        let (step, what, config) = (step + 1, what.clone(), config.to_toml()?);
        run.write_failure(&Failure { step, what, config, data })
    }

    /// Returns the failure that ended a run's last training; `None` if it finished or was stopped on request.
    pub fn of(run: &RunFolder) -> Option<Failure> {
        serde_json::from_slice(&fs::read(run.failure()).ok()?).ok()
    }

    /// Whether the failure occurred with this configuration on these images, and so would recur.
    pub fn is_of(&self, config: &Config, data: Identity) -> bool {
        let then = self.data;
        let same_sizes = then.sizes == then.sizes.and(data.sizes);
        let same = then.images == data.images && then.has_names_of(&data) && same_sizes;
        let tried = Config::from_toml(&self.config, "the configuration that failed");
        same && tried.is_ok_and(|tried| tried.check_resume(config).is_ok())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { step, what, .. } = self;
        write!(f, "stopped at step {step}: {what} are not finite (infinite or NaN)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_folders_is_read_whatever_it_knows_of_files() {
        // As in a run, with "auto" values resolved.
        let config = Config::from_toml(&Config::default().to_toml().unwrap(), "the defaults").unwrap();
        let data = Identity { images: 9, names: 7, names_within: None, sizes: Some(5) };
        let (what, config_text) = ("loss and gradient".to_owned(), config.to_toml().unwrap());
        let failure = Failure { step: 3, what, config: config_text, data };
        let mut written = serde_json::to_value(&failure).unwrap();
        assert_eq!(
            (&written["images"], &written["names"], &written["sizes"]),
            (&9.into(), &7.into(), &5.into())
        );
        assert_eq!(serde_json::from_value::<Failure>(written.clone()).unwrap(), failure);
        assert!(failure.is_of(&config, data));
        assert!(!failure.is_of(&config, Identity { sizes: Some(6), ..data }));
        assert!(!failure.is_of(&config, Identity { names: 8, ..data }));
        // From before sizes were known.
        written.as_object_mut().unwrap().remove("sizes");
        let old: Failure = serde_json::from_value(written).unwrap();
        assert!(old.is_of(&config, data) && !old.is_of(&config, Identity { images: 8, ..data }));
    }
}
