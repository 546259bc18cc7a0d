//! The types of values that kernels are compiled for.

use half::{bf16, f16};

/// A type of activations and their gradients on a device: f32, or a 16-bit float. Arithmetic is in f32 for all types.
pub trait Element: Copy + Default + Send + Sync + 'static + private::Sealed {
    /// The type as a value.
    const TYPE: ElementType;
}

/// The element types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementType {
    /// 32-bit IEEE floats.
    F32,
    /// bfloat16, the upper half of an f32.
    Bf16,
    /// 16-bit IEEE floats.
    F16,
}

impl ElementType {
    /// All element types.
    pub const ALL: [ElementType; 3] = [ElementType::F32, ElementType::Bf16, ElementType::F16];

    /// The type's name in the kernels' sources.
    pub fn name(self) -> &'static str {
        match self {
            ElementType::F32 => "float",
            ElementType::Bf16 => "bf16",
            ElementType::F16 => "f16",
        }
    }

    /// The size of a value in bytes.
    pub fn size(self) -> usize {
        match self {
            ElementType::F32 => 4,
            ElementType::Bf16 | ElementType::F16 => 2,
        }
    }

    /// The number of values in 16 bytes, the widest read of a thread.
    pub fn width(self) -> usize {
        16 / self.size()
    }

    /// The number of values that a thread reads together from rows of `channels`.
    pub(crate) fn pack_width(self, channels: usize) -> usize {
        if channels.is_multiple_of(self.width()) { self.width() } else { 1 }
    }

    /// The number of such packs in a row.
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
