//! Where the decoded images of a run are kept.

use std::sync::Arc;

use simclr_data::{Cached, Dataset};

use super::Part;
use crate::config::Cache;
use crate::run_folder::RunFolder;
use crate::{Config, TrainError, memory};

/// What is kept on disk unless more or less is asked for, in bytes.
const DISK: u64 = 20 << 30;

/// What logs may come to, in bytes.
const LOGS: u64 = 16 << 20;

/// A data set, and its cache where that is on the disk that the run is saved to.
pub(super) struct Kept {
    pub(super) images: Arc<dyn Dataset>,
    pub(super) on_disk: Option<Arc<Cached>>,
}

impl Kept {
    /// One that has no cache on disk.
    pub(super) fn elsewhere(images: Arc<dyn Dataset>) -> Kept {
        Kept { images, on_disk: None }
    }
}

/// The data set with what is decoded once kept, where the configuration says and within its limit: by choice only
/// where a run that takes `memory`, on a GPU or not, leaves room.
pub(super) fn kept(
    dataset: &Arc<dyn Dataset>,
    config: &Config,
    run: Option<&RunFolder>,
    (on_gpu, part): (bool, Part),
    memory: &memory::Choice,
) -> Result<Kept, TrainError> {
    let limit = config.data.cache_bytes();
    let available = || memory::available_bytes() / part.here as u64;
    let in_memory = |bytes| Kept::elsewhere(Arc::new(Cached::in_memory(dataset.clone(), bytes)));
    Ok(match (config.data.cache, run) {
        (Cache::None, _) => Kept::elsewhere(dataset.clone()),
        // A worker without a folder has no disk for it.
        (Cache::Auto, _) | (Cache::Disk, None) => {
            // Images are kept in the system's memory, where a GPU's network is not.
            let (available, taken) = match (on_gpu, memory.available) {
                (false, Some(available)) => (available, memory.needs.total()),
                (false, None) => (available(), memory.needs.total()),
                (true, _) => (available(), 0),
            };
            let room = available.saturating_sub(taken);
            in_memory(room.min(limit.unwrap_or(available / 4)))
        }
        (Cache::Ram, _) => in_memory(limit.unwrap_or(u64::MAX)),
        (Cache::Disk, Some(run)) => {
            let (decode, limit) = (config.data.decode(), limit.unwrap_or(DISK));
            // A new checkpoint is written before an old one goes, and the best one may come before it.
            let spare = 2 * memory.needs.state + LOGS;
            let cached = Arc::new(Cached::on_disk(dataset.clone(), &decode, (limit, spare), &run.cache())?);
            Kept { images: cached.clone(), on_disk: Some(cached) }
        }
    })
}
