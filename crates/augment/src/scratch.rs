//! Buffers kept from one view to the next.

use simclr_isa::Isa;

use crate::ops::blur::Blurrer;
use crate::passes::PixelOp;
use crate::planes::Planes;
use crate::resize::Resizer;

/// All temporary memory of [`crate::ViewFamily::apply`] and [`crate::central_crop`]: one for each thread,
/// never shared.
///
/// It grows to the largest image and view seen; from then on nothing is allocated. Its contents never influence a
/// result.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// The instruction set whose vectors are used.
    pub(crate) isa: Isa,
    pub(crate) resizer: Resizer,
    pub(crate) blurrer: Blurrer,
    /// The view being worked on.
    pub(crate) planes: Planes,
    /// The operators of one pass.
    pub(crate) ops: Vec<PixelOp>,
    /// A copy of a plane, for operators that read its old values.
    pub(crate) spare: Vec<f32>,
}

impl Scratch {
    /// Creates scratch space that uses the vectors of `isa`. The choice does not influence any result.
    pub fn with_isa(isa: Isa) -> Self {
        Self { isa, ..Self::default() }
    }
}
