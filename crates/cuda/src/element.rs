//! The types of values that kernels are compiled for.

use half::{bf16, f16};

/// A type of activations and their gradients on a device: f32, or a 16-bit float. Arithmetic is in f32 whatever the
/// type.
pub trait Element: Copy + Default + Send + Sync + 'static + private::Sealed {
    /// Which it is.
    const TYPE: ElementType;
}

/// The types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementType {
    /// 32-bit IEEE floats.
    F32,
    /// The upper halves of these.
    Bf16,
    /// 16-bit IEEE floats.
    F16,
}

impl ElementType {
    /// All of them.
    pub const ALL: [ElementType; 3] = [ElementType::F32, ElementType::Bf16, ElementType::F16];

    /// Its name in the kernels' sources.
    pub fn name(self) -> &'static str {
        match self {
            ElementType::F32 => "float",
            ElementType::Bf16 => "bf16",
            ElementType::F16 => "f16",
        }
    }

    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            ElementType::F32 => 4,
            ElementType::Bf16 | ElementType::F16 => 2,
        }
    }

    /// Values in 16 bytes, which kernels read at once.
    pub fn width(self) -> usize {
        16 / self.size()
    }

    /// Values that kernels read at once from rows of `channels`.
    pub(crate) fn pack_width(self, channels: usize) -> usize {
        if channels.is_multiple_of(self.width()) { self.width() } else { 1 }
    }

    /// How many such packs a row has.
    pub(crate) fn packs(self, channels: usize) -> usize {
        channels / self.pack_width(channels)
    }
}

/// Evaluates an expression with `$E` standing for the Rust type of an [`ElementType`].
#[cfg(feature = "cuda")]
macro_rules! typed {
    ($element:expr, $E:ident => $body:expr) => {
        match $element {
            $crate::ElementType::F32 => {
                type $E = f32;
                $body
            }
            $crate::ElementType::Bf16 => {
                type $E = half::bf16;
                $body
            }
            $crate::ElementType::F16 => {
                type $E = half::f16;
                $body
            }
        }
    };
}
#[cfg(feature = "cuda")]
pub(crate) use typed;

impl Element for f32 {
    const TYPE: ElementType = ElementType::F32;
}

impl Element for bf16 {
    const TYPE: ElementType = ElementType::Bf16;
}

impl Element for f16 {
    const TYPE: ElementType = ElementType::F16;
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for half::f16 {}
}
