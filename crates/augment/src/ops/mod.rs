//! The operators, one a file: their settings and the law of their draws, and what they do to a view.

pub(crate) mod auto_augment;
pub(crate) mod blur;
pub(crate) mod brightness;
pub(crate) mod color_jitter;
pub(crate) mod contrast;
pub(crate) mod cutout;
pub(crate) mod gaussian_noise;
pub(crate) mod grayscale;
pub(crate) mod horizontal_flip;
pub(crate) mod hue;
pub(crate) mod random_resized_crop;
pub(crate) mod rotation;
pub(crate) mod saturation;
pub(crate) mod sobel;
pub(crate) mod solarize;
mod steps;
mod view_op;

pub(crate) use steps::MAX_STEPS;
pub use steps::{Step, Steps};
pub use view_op::ViewOp;

use crate::{AugmentError, Stream};

/// The law of an operator: what it may be set to, and how its parameters are drawn.
pub(crate) trait Draw {
    /// The most steps that one draw makes.
    fn most_steps(&self) -> usize {
        1
    }

    /// Checks every setting.
    fn check(&self) -> Result<(), AugmentError>;

    /// Draws whether it acts on a view of `side` x `side` pixels, and how.
    fn draw(&self, side: u32, stream: &mut Stream, steps: &mut Steps);
}
