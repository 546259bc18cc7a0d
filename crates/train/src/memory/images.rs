//! What the images of a run take.

use simclr_data::{Dataset, Sample};
use simclr_engine::Device;

use crate::Config;
use crate::config::Cache;

/// How large the decoded images of a data set are, judged by a [`Sample`]. All 0 where nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Images {
    /// Bytes of all.
    pub all: u64,
    /// Bytes of one, on average.
    pub each: u64,
    /// The longest side of those that were looked at, in pixels.
    pub longest: u32,
    /// The shorter side of most of them, in pixels.
    pub shorter: u32,
    /// Bytes that are kept in the system's memory by order (`data.cache = "ram"`). What is kept only where there is
    /// room is not counted.
    pub cache: u64,
}

impl Images {
    /// Those of `dataset`, in a run of `config` on `device`; looked at only where it matters.
    pub fn of(config: &Config, device: &Device, dataset: &dyn Dataset) -> Images {
        // What is kept where there is room is told; but not at the price of going through an archive.
        let matters = match config.data.cache {
            Cache::None => false,
            Cache::Auto => dataset.locality().is_free(),
            Cache::Ram | Cache::Disk => true,
        };
        if !matters && !device.is_gpu() {
            return Images::default();
        }
        let by_order = config.data.cache == Cache::Ram;
        let images = Images::look(dataset);
        let limit = config.data.cache_bytes().unwrap_or(u64::MAX);
        Images { cache: if by_order { images.all.min(limit) } else { 0 }, ..images }
    }

    /// Those of `dataset`, of which none is kept by order.
    pub fn look(dataset: &dyn Dataset) -> Images {
        let Sample { bytes: each, shorter, longest, .. } = Sample::of(dataset);
        Images { all: each * dataset.len() as u64, each, longest, shorter, cache: 0 }
    }
}
