//! Buffers kept from one view to the next.

use crate::{blur::Blurrer, resize::Resizer};

/// All temporary memory of [`crate::ViewFamily::apply`] and [`crate::central_crop`]: one for each thread,
/// never shared.
///
/// It grows to the largest image and view seen; from then on nothing is allocated. What it holds never
/// influences a result.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    pub(crate) resizer: Resizer,
    pub(crate) blurrer: Blurrer,
    /// The view being worked on.
    pub(crate) planes: Vec<f32>,
}
