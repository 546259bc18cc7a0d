//! Where the decoded images of a run are kept.

use std::fmt;
use std::sync::Arc;

use simclr_data::{Cached, Dataset, DiskBudget};
use simclr_words::text::Gigabytes;

use super::Worker;
use crate::config::Cache;
use crate::run_folder::RunFolder;
use crate::{Config, TrainError, memory};

/// Default limit of the cache on disk, in bytes.
const DEFAULT_DISK_LIMIT: u64 = 20 << 30;

/// Disk space to leave for logs, in bytes.
const LOG_RESERVE: u64 = 16 << 20;

/// Images count as far larger than views if the shorter side of most is more than this many times the view's.
const FAR_LARGER: u32 = 4;

/// Images that are far larger than views count as many above this number of bytes.
const LARGE_SET_BYTES: u64 = 1 << 30;

/// A data set, and its cache if that is on the disk that the run is saved to.
pub(super) struct Kept {
    pub(super) images: Arc<dyn Dataset>,
    pub(super) on_disk: Option<Arc<Cached>>,
}

impl Kept {
    /// A data set without a cache on disk.
    pub(super) fn elsewhere(images: Arc<dyn Dataset>) -> Kept {
        Kept { images, on_disk: None }
    }
}

/// Wraps the data set in a cache of decoded images, where the configuration says and within its limit. With `auto`,
/// the cache takes only memory that a run which takes `memory`, on a GPU or not, leaves free.
pub(super) fn kept(
    dataset: &Arc<dyn Dataset>,
    config: &Config,
    run: Option<&RunFolder>,
    on_gpu: bool,
    worker: Worker,
    memory: &memory::Choice,
) -> Result<Kept, TrainError> {
    Ok(match (config.data.cache, run) {
        (Cache::None, _) => Kept::elsewhere(dataset.clone()),
        (Cache::Disk, Some(run)) => {
            let (decode, limit) =
                (config.data.decode(), config.data.cache_bytes().unwrap_or(DEFAULT_DISK_LIMIT));
            // A new checkpoint is written before an old one is removed, and the best one may be written before it.
            let spare = 2 * memory.needs.state + LOG_RESERVE;
            let budget = DiskBudget { bytes: limit, spare };
            let cached = Arc::new(Cached::on_disk(dataset.clone(), &decode, budget, &run.cache())?);
            Kept { images: cached.clone(), on_disk: Some(cached) }
        }
        _ => {
            let bytes = most_in_memory(config, on_gpu, worker, memory);
            Kept::elsewhere(Arc::new(Cached::in_memory(dataset.clone(), bytes)))
        }
    })
}

/// The most bytes of decoded images that a worker keeps in the system's memory.
fn most_in_memory(config: &Config, on_gpu: bool, worker: Worker, memory: &memory::Choice) -> u64 {
    let limit = config.data.cache_bytes();
    match config.data.cache {
        Cache::None => 0,
        // Only the first worker has the run folder, which holds the cache; the others cache in memory.
        Cache::Disk if worker.rank == 0 => 0,
        Cache::Ram => limit.unwrap_or(u64::MAX),
        Cache::Auto | Cache::Disk => {
            let available = || memory::available_bytes() / worker.local_size as u64;
            // Images are kept in the system's memory, but the network is not if it is on a GPU.
            let (available, taken) = match (on_gpu, memory.available) {
                (false, Some(available)) => (available, memory.needs.total()),
                (false, None) => (available(), memory.needs.total()),
                (true, _) => (available(), 0),
            };
            let room = available.saturating_sub(taken);
            room.min(limit.unwrap_or(available / 4))
        }
    }
}

/// Decoded images that will be kept in the system's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachedImages {
    /// Bytes of the images that will be kept.
    pub bytes: u64,
    /// Bytes of all images.
    pub of: u64,
    /// If images are far larger than views, and many or too many to be kept: a suitable `data.shrink`, and the bytes
    /// of all images with it.
    pub shrunk: Option<(u32, u64)>,
    /// Whether the network is in a GPU's memory.
    beside_gpu: bool,
}

impl CachedImages {
    /// The images kept by the `worker` of a run on `images` that takes `memory`, on a GPU or not.
    pub(super) fn of(
        config: &Config,
        on_gpu: bool,
        worker: Worker,
        memory: &memory::Choice,
        images: &memory::Images,
    ) -> CachedImages {
        let bytes = images.all.min(most_in_memory(config, on_gpu, worker, memory));
        let side = config.data.image_size.saturating_mul(FAR_LARGER);
        let is_hard = config.data.cache != Cache::None && (bytes < images.all || bytes > LARGE_SET_BYTES);
        let shrunk = (config.data.shrink == 0 && is_hard && images.shorter > side).then(|| {
            let scale = f64::from(side) / f64::from(images.shorter);
            (side, (images.all as f64 * scale * scale) as u64)
        });
        CachedImages { bytes, of: images.all, shrunk, beside_gpu: on_gpu }
    }
}

impl fmt::Display for CachedImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, all) = (Gigabytes(self.bytes), Gigabytes(self.of));
        let place = if self.beside_gpu { "the system's memory" } else { "that" };
        let kept = format!("{bytes} of {place} are for decoded images, which are kept (data.cache)");
        match self.bytes {
            0 => write!(f, "decoded, all images take {all}")?,
            bytes if bytes < self.of => write!(f, "{kept} as far as they fit: all take {all}")?,
            _ => f.write_str(&kept)?,
        }
        match self.shrunk {
            Some((side, bytes)) => write!(
                f,
                "; they are far larger than the views: with data.shrink={side} all take {}",
                Gigabytes(bytes)
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layers;
    use crate::config::Memory;
    use crate::memory::Needs;

    fn in_memory(sets: &[&str], shorter: u32, all: u64) -> CachedImages {
        let sets: Vec<String> =
            ["data.image_size=64"].iter().chain(sets).map(|&set| set.to_owned()).collect();
        let config = Config::resolve(&Layers { sets: &sets, ..Layers::default() }).unwrap();
        let needs = Needs { step: 2 << 30, ..Needs::default() };
        let choice = memory::Choice { memory: Memory::Full, needs, full: None, available: Some(16 << 30) };
        let images = memory::Images { all, shorter, ..memory::Images::default() };
        CachedImages::of(&config, false, Worker::ALONE, &choice, &images)
    }

    #[test]
    fn what_is_going_to_be_kept_is_known() {
        let bytes = |sets: &[&str]| in_memory(sets, 100, 9 << 30).bytes;
        assert_eq!(bytes(&[]), 4 << 30, "a quarter of what there is");
        assert_eq!(bytes(&["data.cache_limit=20"]), 9 << 30);
        assert_eq!(bytes(&["data.cache=ram"]), 9 << 30);
        assert_eq!(bytes(&["data.cache=ram", "data.cache_limit=3"]), 3 << 30);
        assert_eq!((bytes(&["data.cache=none"]), bytes(&["data.cache=disk"])), (0, 0));
        assert_eq!(in_memory(&[], 100, 1 << 20).bytes, 1 << 20);
    }

    #[test]
    fn large_images_are_better_shrunk() {
        let shrunk = |sets: &[&str], shorter, all| in_memory(sets, shorter, all).shrunk;
        assert_eq!(shrunk(&[], 2560, 3 << 30), Some((256, (3 << 30) / 100)));
        assert_eq!(shrunk(&["data.cache=disk"], 2560, 3 << 30), Some((256, (3 << 30) / 100)));
        // No advice on few images, on images that are hardly larger, or against explicit settings.
        assert_eq!(shrunk(&[], 2560, 1 << 29), None);
        assert_eq!(shrunk(&[], 256, 3 << 30), None);
        assert_eq!(shrunk(&["data.shrink=2000"], 2000, 3 << 30), None);
        assert_eq!(shrunk(&["data.cache=none"], 2560, 3 << 30), None);
        let told = in_memory(&[], 2560, 30 << 30).to_string();
        assert!(told.starts_with("4.29 GB of that") && told.contains("all take 32.21 GB;"), "{told}");
        assert!(told.ends_with("with data.shrink=256 all take 0.32 GB"), "{told}");
        let told = in_memory(&["data.cache=disk"], 2560, 30 << 30).to_string();
        assert!(told.starts_with("decoded, all images take 32.21 GB; they are far larger"), "{told}");
    }
}
