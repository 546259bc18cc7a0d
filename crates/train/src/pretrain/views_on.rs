//! Where the views of a run are made.

use std::fmt;

use simclr_augment::ViewFamily;
use simclr_data::Dataset;
use simclr_engine::{Device, ViewMaker, impossible_on_gpu};

use crate::config::ViewsOn;
use crate::{Config, TrainError, memory};

/// Images may take 1/4 of a GPU's free memory.
const SHARE: u64 = 4;

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
    /// Whether a run of `config` on `device` makes its views on a GPU.
    ///
    /// # Errors
    /// Invalid view settings.
    pub fn is_gpu(config: &Config, device: &Device) -> Result<bool, TrainError> {
        let families = config.view.families(config.data.image_size)?;
        let possible = families.iter().all(|family| impossible_on_gpu(family).is_none());
        Ok(possible && device.is_gpu() && config.data.views_on != ViewsOn::Cpu)
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

    /// Decides where to make views of `images` from `families`, in a run with the memory `choice` on `device`.
    ///
    /// # Errors
    /// [`TrainError::ViewsOnGpu`] if `config` requires a GPU for views, and none can make them.
    pub fn decide(
        config: &Config,
        device: &Device,
        families: &[ViewFamily],
        images: &dyn Dataset,
        choice: &memory::Choice,
    ) -> Result<ViewsPlace, TrainError> {
        let impossible = families.iter().find_map(impossible_on_gpu);
        let impossible = impossible.map(|what| format!("a GPU cannot make {what}"));
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

/// Bytes that images may take: a share of the free memory, and no more than the run leaves.
fn room(device: &Device, choice: &memory::Choice) -> Result<u64, TrainError> {
    let share = device.free_bytes()?.unwrap_or(0) / SHARE;
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
