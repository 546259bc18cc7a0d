//! Buffers kept from one view to the next.

use simclr_isa::Isa;

use crate::ops::blur::Blurrer;
use crate::passes::PixelOp;
use crate::planes::Planes;
use crate::resize::Resizer;

/// All temporary memory of [`crate::ViewFamily::apply`] and [`crate::central_crop`]: one for each thread,
/// never shared.
///
/// It grows to the largest image and view seen; from then on nothing is allocated. What it holds never
/// influences a result.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// The vectors that are worked with.
    pub(crate) isa: Isa,
    pub(crate) resizer: Resizer,
    pub(crate) blurrer: Blurrer,
    /// The view being worked on.
    pub(crate) planes: Planes,
    /// The operators of one pass.
    pub(crate) ops: Vec<PixelOp>,
    /// A plane as it was.
    pub(crate) spare: Vec<f32>,
}

impl Scratch {
    /// Scratch space that works with the vectors of `isa`. They have no influence on a result.
    pub fn with_isa(isa: Isa) -> Self {
        Self { isa, ..Self::default() }
    }
}
