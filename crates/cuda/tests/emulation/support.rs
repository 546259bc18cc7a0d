//! Helpers for the tests of kernels.

use simclr_kernels::{Cpu, Isa};

pub use crate::values::*;

/// The portable forms, which specify what kernels compute.
pub fn portable() -> Cpu {
    Cpu::new(1, Isa::PORTABLE).unwrap()
}

/// Calls `$test::<E>()` for every element type, unless there is no compiler.
macro_rules! for_each_type {
    ($test:ident) => {
        if simclr_stand_in::compiler().is_some() {
            $test::<f32>();
            $test::<half::bf16>();
            $test::<half::f16>();
        }
    };
}
pub(crate) use for_each_type;
