//! The memory that the images of a run take.

use simclr_data::{Dataset, Sample};
use simclr_engine::Device;

use crate::Config;
use crate::config::Cache;
use crate::pretrain::{Worker, trained_on};

/// The sizes of the decoded images of a data set, estimated from a [`Sample`]. All 0 if unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Images {
    /// Bytes of all images.
    pub all: u64,
    /// Average bytes of an image.
    pub each: u64,
    /// The longest side of the images in the sample, in pixels.
    pub longest: u32,
    /// The median of their shorter sides, in pixels.
    pub shorter: u32,
    /// Bytes to be kept in the system's memory on request (`data.cache = "ram"`). Images kept only if there is room
    /// do not count.
    pub cache: u64,
    /// Number of images that are held out of training.
    pub held_out: usize,
    /// Whether there are labels of several classes, so that kNN accuracy can be measured.
    pub labelled: bool,
    /// The workers of this machine, each with batches of its own in the system's memory; 0 counts as 1.
    pub workers: usize,
}

impl Images {
    /// Estimates the images of `dataset` for the `worker` in a run of `config` on `device`; reads a sample only if it
    /// matters.
    pub fn of(config: &Config, device: &Device, dataset: &dyn Dataset, worker: Worker) -> Images {
        // With `auto` the estimate is only reported, which is not worth scanning an archive.
        let matters = match config.data.cache {
            Cache::None => false,
            Cache::Auto => dataset.locality().is_free(),
            Cache::Ram | Cache::Disk => true,
        };
        let held_out = dataset.len() - trained_on(config, dataset.len());
        let labelled = dataset.classes().len() >= 2 && (0..dataset.len()).any(|i| dataset.label(i).is_some());
        let unseen = Images { held_out, labelled, workers: worker.local_size, ..Images::default() };
        if !matters && !device.is_gpu() {
            return unseen;
        }
        let by_order = config.data.cache == Cache::Ram;
        let Images { all, each, longest, shorter, .. } = Images::look(dataset);
        let limit = config.data.cache_bytes().unwrap_or(u64::MAX);
        let cache = if by_order { all.min(limit) } else { 0 };
        Images { all, each, longest, shorter, cache, ..unseen }
    }

    /// The bytes of the images of a batch.
    pub fn of_batch(&self, batch: usize) -> u64 {
        self.each.saturating_mul(batch as u64)
    }

    /// Estimates the images of `dataset`, none of which is kept on request, held out or labelled.
    pub fn look(dataset: &dyn Dataset) -> Images {
        let Sample { bytes: each, shorter, longest, .. } = Sample::of(dataset);
        Images { all: each * dataset.len() as u64, each, longest, shorter, ..Images::default() }
    }
}
