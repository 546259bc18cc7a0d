//! Vectors of four numbers in plain Rust, which specify what all vectors compute.

use half::bf16;

use super::Simd;
use crate::element::{Element, halves};

/// Operations on four numbers in plain Rust, which the compiler turns into the processor's 128-bit vectors.
#[derive(Clone, Copy)]
pub(super) struct Portable;

#[derive(Clone, Copy)]
#[repr(align(16))]
pub(super) struct Four([f32; 4]);

impl Simd for Portable {
    type V = Four;
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Four {
        Four([x; 4])
    }
    #[inline(always)]
    fn add(self, a: Four, b: Four) -> Four {
        Four(std::array::from_fn(|i| a.0[i] + b.0[i]))
    }
    #[inline(always)]
    fn sub(self, a: Four, b: Four) -> Four {
        Four(std::array::from_fn(|i| a.0[i] - b.0[i]))
    }
    #[inline(always)]
    fn mul(self, a: Four, b: Four) -> Four {
        Four(std::array::from_fn(|i| a.0[i] * b.0[i]))
    }
    #[inline(always)]
    fn mul_add(self, a: Four, b: Four, c: Four) -> Four {
        // Where the target has no fused multiply-add, `f32::mul_add` is a slow library call.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            Four(std::array::from_fn(|i| a.0[i].mul_add(b.0[i], c.0[i])))
        } else {
            self.add(self.mul(a, b), c)
        }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Four {
        // SAFETY: the caller vouches for four numbers, and the read is unaligned.
        Four(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Four) {
        // SAFETY: the caller vouches for four numbers, and the write is unaligned.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(v.0) }
    }
    #[inline(always)]
    unsafe fn load_first(self, from: *const f32, lanes: usize) -> Four {
        let mut v = [0.0; 4];
        for (i, v) in v.iter_mut().enumerate().take(lanes) {
            // SAFETY: the caller vouches for `lanes` numbers, and i < lanes.
            *v = unsafe { *from.add(i) };
        }
        Four(v)
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, v: Four, lanes: usize) {
        for (i, &v) in v.0.iter().enumerate().take(lanes) {
            // SAFETY: the caller vouches for `lanes` numbers, and i < lanes.
            unsafe { *to.add(i) = v };
        }
    }
    #[inline(always)]
    fn where_positive(self, gate: Four, v: Four) -> Four {
        Four(std::array::from_fn(|i| if gate.0[i] > 0.0 { v.0[i] } else { 0.0 }))
    }
    #[inline(always)]
    fn max(self, a: Four, b: Four) -> Four {
        Four(std::array::from_fn(|i| if a.0[i] > b.0[i] { a.0[i] } else { b.0[i] }))
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, v: Four) {
        // SAFETY: the caller's promise.
        unsafe { self.store(to, v) }
    }
    #[inline(always)]
    unsafe fn stream_bf16(self, to: *mut bf16, v: Four) {
        // SAFETY: the caller's promise.
        unsafe { self.store_bf16(to, v) }
    }
    #[inline(always)]
    fn dot_pairs(self, a: Four, b: Four, acc: Four) -> Four {
        let low = |v: Four| Four(v.0.map(|v| halves(v)[0]));
        let high = |v: Four| Four(v.0.map(|v| halves(v)[1]));
        self.mul_add(high(a), high(b), self.mul_add(low(a), low(b), acc))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Four {
        // SAFETY: the caller vouches for four numbers, and the read is unaligned.
        Four(unsafe { from.cast::<[bf16; 4]>().read_unaligned() }.map(Element::widen))
    }
    #[inline(always)]
    unsafe fn load_first_bf16(self, from: *const bf16, lanes: usize) -> Four {
        let mut v = [0.0; 4];
        for (i, v) in v.iter_mut().enumerate().take(lanes) {
            // SAFETY: the caller vouches for `lanes` numbers, and i < lanes.
            *v = unsafe { *from.add(i) }.widen();
        }
        Four(v)
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16, v: Four) {
        // SAFETY: the caller vouches for four numbers, and the write is unaligned.
        unsafe { to.cast::<[bf16; 4]>().write_unaligned(v.0.map(bf16::narrow)) }
    }
    #[inline(always)]
    unsafe fn store_first_bf16(self, to: *mut bf16, v: Four, lanes: usize) {
        for (i, &v) in v.0.iter().enumerate().take(lanes) {
            // SAFETY: the caller vouches for `lanes` numbers, and i < lanes.
            unsafe { *to.add(i) = bf16::narrow(v) };
        }
    }
}
