//! Values of every element type, and how close results must be.
#![allow(dead_code, reason = "each test program uses a part of this")]

use half::{bf16, f16};
use simclr_cuda::{Element, ElementType};

/// An element type with the conversions of its own crate.
pub trait Stored: Element + bytemuck::Pod + PartialEq + std::fmt::Debug {
    fn narrow(x: f32) -> Self;
    fn widen(self) -> f32;
}

impl Stored for f32 {
    fn narrow(x: f32) -> f32 {
        x
    }
    fn widen(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    fn narrow(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Stored for f16 {
    fn narrow(x: f32) -> f16 {
        f16::from_f32(x)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

pub fn narrowed<E: Stored>(values: &[f32]) -> Vec<E> {
    values.iter().map(|v| E::narrow(*v)).collect()
}

pub fn widened<E: Stored>(values: &[E]) -> Vec<f32> {
    values.iter().map(|v| v.widen()).collect()
}

/// The largest relative RMS error of a result stored as E.
pub fn tolerance<E: Element>() -> f64 {
    match E::TYPE {
        ElementType::F32 => 1e-5,
        ElementType::Bf16 => 1e-2,
        ElementType::F16 => 2e-3,
    }
}

/// Values in about [-0.5, 0.5], different for each seed.
pub fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..len).map(|_| next()).collect()
}

/// Asserts that `got` equals `want` within a relative RMS error of `tolerance`; NaN never does.
pub fn assert_close<A: Copy + Into<f64>>(what: &str, got: &[A], want: &[A], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let (mut error, mut size) = (0.0, 0.0);
    for (got, want) in got.iter().zip(want) {
        let (got, want): (f64, f64) = ((*got).into(), (*want).into());
        error += (got - want) * (got - want);
        size += want * want;
    }
    let relative = (error / f64::max(size, f64::MIN_POSITIVE)).sqrt();
    assert!(error == 0.0 || relative <= tolerance, "{what}: off by {relative:e}, {tolerance:e} is allowed");
}
