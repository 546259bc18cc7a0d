//! Fine-tuned networks in files, beside their results.

use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use simclr_train::TrainError;
use simclr_train::run_folder::{RunFolder, result_file};

use crate::EvalError;
use crate::protocols::evaluation::{Evaluation, FINETUNE};

/// How the names of their files end.
const ENDING: &str = "safetensors";

/// A fine-tuned network that lies beside the results of a run.
#[derive(Clone, Debug)]
pub struct SavedNetwork {
    /// Its file.
    pub path: PathBuf,
    /// When that was last written, where the system tells.
    pub written: Option<SystemTime>,
    /// How good it is, where its result still lies there.
    pub evaluation: Option<Evaluation>,
}

/// The file in `folder`, which has the results of a run, of the network that a `protocol` fine-tuned.
pub fn network_file(folder: &Path, protocol: &str) -> PathBuf {
    result_file(folder, protocol).with_extension(ENDING)
}

/// The fine-tuned networks that lie beside the results of `run`, the newest first.
///
/// # Errors
/// [`TrainError::Io`] of a folder that is there and cannot be listed.
pub fn saved_networks(run: &RunFolder) -> Result<Vec<SavedNetwork>, EvalError> {
    let folder = run.evaluations();
    let mut files = match run.files().list(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(TrainError::Io { action: "list", path: folder, source }.into()),
        Ok(files) => files,
    };
    files.retain(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(FINETUNE) && file.extension().is_some_and(|ending| ending == ENDING)
    });
    let known = |path: PathBuf| {
        let written = path.metadata().and_then(|found| found.modified()).ok();
        let protocol = path.file_stem().unwrap_or_default().to_string_lossy();
        let evaluation = Evaluation::read(&folder, &protocol);
        SavedNetwork { path, written, evaluation }
    };
    let mut networks: Vec<SavedNetwork> = files.into_iter().map(known).collect();
    networks.sort_by_cached_key(|network| (Reverse(network.written), network.path.clone()));
    Ok(networks)
}
