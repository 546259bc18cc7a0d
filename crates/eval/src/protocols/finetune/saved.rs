//! Files of fine-tuned networks, beside their results.

use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use simclr_train::TrainError;
use simclr_train::run_folder::{RunFolder, result_file};

use crate::EvalError;
use crate::protocols::evaluation::{Evaluation, Origin};
use crate::protocols::protocol::Protocol;

/// The extension of their files.
const ENDING: &str = "safetensors";

/// The file of a fine-tuned network, beside the results of a run.
#[derive(Clone, Debug)]
pub struct SavedNetwork {
    /// Its file.
    pub path: PathBuf,
    /// When the file was last written, if the system knows.
    pub written: Option<SystemTime>,
    /// Its result, if that is still there.
    pub evaluation: Option<Evaluation>,
}

/// The file of the network that `protocol` fine-tuned, in `folder` with the results of a run.
pub fn network_file(folder: &Path, protocol: &Protocol) -> PathBuf {
    result_file(folder, &protocol.to_string()).with_extension(ENDING)
}

/// The name of the data set that the network of `protocol` in `folder` was fine-tuned on, if there is such a network and
/// that is another one than the data set named `train`. Two paths to the same place are the same; a network without
/// a record of its data is taken to be of the same.
pub fn network_of_other_data(folder: &Path, protocol: &Protocol, train: &str) -> Option<String> {
    if !network_file(folder, protocol).exists() {
        return None;
    }
    let Origin { train: before, folder: from, .. } = Evaluation::read(folder, protocol)?.data?;
    let start = from.as_deref().unwrap_or(Path::new(""));
    let now = Path::new(train).canonicalize().ok();
    let is_same = match start.join(&before).canonicalize() {
        Ok(place) => now == Some(place),
        // The data of then are gone, or no place: "2 images".
        Err(_) => before == train,
    };
    (!is_same).then_some(before)
}

/// The fine-tuned networks beside the results of `run`, the newest first.
///
/// # Errors
/// [`TrainError::Io`] for a folder that exists but cannot be listed.
pub fn saved_networks(run: &RunFolder) -> Result<Vec<SavedNetwork>, EvalError> {
    let folder = run.evaluations();
    let mut files = match run.files().list(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(TrainError::Io { action: "list", path: folder, source }.into()),
        Ok(files) => files,
    };
    let protocol_of = |file: &Path| Protocol::from(&*file.file_stem().unwrap_or_default().to_string_lossy());
    files.retain(|file| {
        file.extension().is_some_and(|ending| ending == ENDING) && protocol_of(file).is_fine_tuning()
    });
    let known = |path: PathBuf| {
        let written = path.metadata().and_then(|found| found.modified()).ok();
        let evaluation = Evaluation::read(&folder, &protocol_of(&path));
        SavedNetwork { path, written, evaluation }
    };
    let mut networks: Vec<SavedNetwork> = files.into_iter().map(known).collect();
    networks.sort_by_cached_key(|network| (Reverse(network.written), network.path.clone()));
    Ok(networks)
}
