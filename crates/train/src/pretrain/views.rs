//! The views of a run: as configured, without operators that would change nothing.

use simclr_augment::ViewFamily;
use simclr_data::{Dataset, all_grey};

use crate::{Config, TrainError};

/// The most images read to find out whether all are grey.
const SAMPLE_SIZE: usize = 256;

/// The distributions of both branches' views of a data set.
#[derive(Clone, Debug)]
pub struct RunViews {
    /// One per branch.
    pub families: [ViewFamily; 2],
    /// The names of operators left out because they do not change grey images.
    pub left_out: Vec<&'static str>,
}

impl RunViews {
    /// The views of `images` with `config`.
    ///
    /// # Errors
    /// Invalid view settings.
    pub fn new(config: &Config, images: &dyn Dataset) -> Result<RunViews, TrainError> {
        let families = config.view.families(config.data.image_size)?;
        let mut left_out: Vec<&'static str> = Vec::new();
        for name in families.iter().flat_map(ViewFamily::left_out_of_gray_images) {
            if !left_out.contains(&name) {
                left_out.push(name);
            }
        }
        if left_out.is_empty() || !all_grey(images, SAMPLE_SIZE) {
            return Ok(RunViews { families, left_out: Vec::new() });
        }
        Ok(RunViews { families: families.map(ViewFamily::for_gray_images), left_out })
    }
}
