//! Where the views of a run are made.

use std::fmt;

use simclr_augment::ViewFamily;
use simclr_data::Dataset;
use simclr_engine::{Device, ViewMaker, impossible_on_gpu};
use simclr_words::text::Gigabytes;

use crate::config::ViewsOn;
use crate::{Config, TrainError, memory};

/// Images may take 1/4 of a GPU's free memory.
const FREE_MEMORY_DIVISOR: u64 = 4;
/// The images of two batches on their way to a GPU may take 1/8 of its memory, if it is to make views by itself.
const SHARE_TO_SEND: u64 = 8;
/// Batches of images that wait in the system's memory to be sent, and the part of that memory that they may take.
const WAITING: u64 = 5;
const SHARE_TO_WAIT: u64 = 4;

/// Where the views of a run are made; decided once.
#[derive(Clone, Debug, PartialEq)]
pub enum ViewsPlace {
    /// On the processor; if a GPU computes the rest, with the reason why it does not make the views.
    Cpu(Option<String>),
    /// On the GPU.
    Gpu {
        /// The most bytes of images that the GPU keeps; 0: none.
        keeps: u64,
    },
}

impl ViewsPlace {
    /// Whether a run of `config` on `device` makes its views on a GPU, of batches of `batch` of these `images`.
    ///
    /// # Errors
    /// Invalid view settings; a GPU that does not work.
    pub fn is_gpu(
        config: &Config,
        device: &Device,
        images: &memory::Images,
        batch: usize,
    ) -> Result<bool, TrainError> {
        let families = config.view.families(config.data.image_size)?;
        let possible = families.iter().all(|family| impossible_on_gpu(family).is_none());
        Ok(possible
            && match config.data.views_on {
                ViewsOn::Cpu => false,
                ViewsOn::Gpu => device.is_gpu(),
                ViewsOn::Auto => device.is_gpu() && too_large(device, images, batch)?.is_none(),
            })
    }

    /// Bytes of the GPU's memory that keeping `images` will take.
    pub fn to_keep(&self, images: &memory::Images) -> u64 {
        match *self {
            ViewsPlace::Gpu { keeps } if keeps > 0 => {
                let all = usize::try_from(images.all).unwrap_or(usize::MAX);
                (ViewMaker::to_keep(all) as u64).min(keeps)
            }
            _ => 0,
        }
    }

    /// Decides where a run on `device` with the memory `choice` makes its views from `families`, in batches of `batch`
    /// of `images`, which have these `sizes`.
    ///
    /// # Errors
    /// [`TrainError::ViewsOnGpu`] if `config` requires a GPU for views, and none can make them.
    pub fn decide(
        config: &Config,
        device: &Device,
        families: &[ViewFamily],
        images: &dyn Dataset,
        choice: &memory::Choice,
        sizes: &memory::Images,
        batch: usize,
    ) -> Result<ViewsPlace, TrainError> {
        let impossible = families.iter().find_map(impossible_on_gpu);
        let mut impossible = impossible.map(|what| format!("a GPU cannot make {what}"));
        if config.data.views_on == ViewsOn::Auto && impossible.is_none() {
            impossible = too_large(device, sizes, batch)?;
        }
        match (config.data.views_on, device.is_gpu(), impossible) {
            (ViewsOn::Cpu, true, _) => Ok(ViewsPlace::Cpu(Some("data.views_on is cpu".to_owned()))),
            (ViewsOn::Cpu, false, _) | (ViewsOn::Auto, false, _) => Ok(ViewsPlace::Cpu(None)),
            (ViewsOn::Gpu, false, _) => Err(TrainError::ViewsOnGpu(format!("the run is on {device}"))),
            (ViewsOn::Gpu, true, Some(why)) => Err(TrainError::ViewsOnGpu(why)),
            (ViewsOn::Auto, true, Some(why)) => Ok(ViewsPlace::Cpu(Some(why))),
            (_, true, None) => {
                let room = room(device, choice)?;
                let all = memory::Images::look(images).all;
                // Leave a margin: the size is estimated from a sample, and images kept in stretches leave gaps.
                let fits = all > 0 && all.saturating_add(all / 8) <= room;
                Ok(ViewsPlace::Gpu { keeps: if fits { room } else { 0 } })
            }
        }
    }
}

/// Returns the reason why batches of `batch` of these `images` are too large to be sent to `device`, or `None` if they
/// are not. All memory counts, of the device and of the system, not what is free now, so that a resumed run makes its
/// views in the same place.
fn too_large(device: &Device, images: &memory::Images, batch: usize) -> Result<Option<String>, TrainError> {
    let sent = images.of_batch(batch);
    Ok(device.total_bytes()?.and_then(|gpu| too_large_for(sent, images.workers, gpu, memory::allowed())))
}

/// [`too_large`] where the images of a batch take `sent` bytes, for each of the `workers` of a machine.
fn too_large_for(sent: u64, workers: usize, gpu: u64, system: Option<u64>) -> Option<String> {
    // A little more than two batches: they differ in size.
    let on_the_way = sent.saturating_add(sent / 8).saturating_mul(2);
    let waiting = sent.saturating_mul(WAITING * workers.max(1) as u64);
    let told = |batches: &str, takes: u64, part: &str, of: u64| {
        format!(
            "the images of {batches} would take {}, more than {part} {}; set data.shrink to make them smaller",
            Gigabytes(takes),
            Gigabytes(of)
        )
    };
    if on_the_way > gpu / SHARE_TO_SEND {
        return Some(told("two batches", on_the_way, "an eighth of the GPU's", gpu));
    }
    let system = system.filter(|system| waiting > system / SHARE_TO_WAIT)?;
    let batches =
        if workers > 1 { format!("five batches of {workers} workers") } else { "five batches".to_owned() };
    Some(told(&batches, waiting, "a quarter of the system's", system))
}

/// Bytes that images may take: a share of the free memory, and no more than the run leaves.
fn room(device: &Device, choice: &memory::Choice) -> Result<u64, TrainError> {
    let share = device.free_bytes()?.unwrap_or(0) / FREE_MEMORY_DIVISOR;
    let left = choice.available.map_or(u64::MAX, |available| available.saturating_sub(choice.needs.total()));
    Ok(share.min(left))
}

impl fmt::Display for ViewsPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ViewsPlace::Cpu(None) => f.write_str("views are made on the processor"),
            ViewsPlace::Cpu(Some(why)) => write!(f, "views are made on the processor: {why}"),
            ViewsPlace::Gpu { keeps: 0 } => f.write_str("views are made on the GPU"),
            ViewsPlace::Gpu { .. } => f.write_str("views are made on the GPU, which keeps the images"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_that_would_fill_a_gpu_or_the_system_are_not_sent() {
        let sent = |side: u64, batch: u64| 3 * side * side * batch;
        let of = |sent, gpu, system| too_large_for(sent, 1, gpu, system);
        let (gpu, system) = (24 << 30, Some(128 << 30));
        assert_eq!(of(sent(448, 512), gpu, system), None);
        assert_eq!(of(0, 0, Some(0)), None);
        // 256 photos of 12 million pixels.
        let why = of(sent(3464, 256), gpu, system).unwrap();
        assert!(
            why.contains("two batches would take 20.73 GB, more than an eighth of the GPU's 25.77 GB"),
            "{why}"
        );
        let why = of(sent(3464, 256), 192 << 30, system).unwrap();
        assert!(
            why.contains("five batches would take 46.08 GB, more than a quarter of the system's 137"),
            "{why}"
        );
        assert_eq!(of(sent(3464, 256), 192 << 30, None), None);
        assert!(of(u64::MAX, gpu, None).is_some());
        // What one worker may send may be too much for several of a machine.
        let of_workers = |workers| too_large_for(sent(3464, 122), workers, 80 << 30, system);
        assert_eq!([0, 1].map(of_workers), [None, None]);
        assert!(of_workers(4).unwrap().contains("five batches of 4 workers would take 87.83 GB"));
    }
}
