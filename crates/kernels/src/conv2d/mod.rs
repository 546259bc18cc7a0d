//! Two-dimensional convolution, channels last: the forward pass and the gradients of input and weights.
//!
//! Shapes are those of [`Conv2dGeometry`]: x (N, H, W, C), w (K, R, S, C), y (N, P, Q, K). `dx`, `dy` and `dw`
//! are the gradients of a scalar with respect to x, y and w, in the same shapes. x and y may be f32 or bf16; w and dw
//! are f32, and sums are in f32.
//!
//! There are three forms: `portable`, which specifies the results, the direct one, which computes every convolution
//! (with `amx`, its own kernels for processors that multiply tiles of bf16), and `winograd`, for 3 x 3 convolutions
//! with stride 1 where it is faster. The choice depends on the geometry and the instruction set alone, so that results
//! do not depend on load or timing.

// Register tiles and transforms index arrays up to a constant, since the compiler unrolls that form into registers.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
mod amx;
mod blocks;
mod class;
mod direct;
mod direct_weight;
mod epilogue;
mod images;
mod outer;
mod pack;
pub mod portable;
mod sums;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tile;
mod winograd;

use crate::{Conv2dGeometry, Cpu, Element, Write};
use epilogue::Epilogue;

pub use epilogue::Normalize;

/// Convolves: `y[n, p, q, k] = sum of x[n, p * stride + r - padding, q * stride + s - padding, c] * w[k, r, s, c]`
/// over r, s, c.
///
/// Overwrites `y`. `sums`, of length 2K, receives what batch normalisation needs next: the sum of y per
/// channel over (N, P, Q), then the sum of its squares.
///
/// # Panics
///
/// If the geometry is not valid or the length of a slice does not match it.
pub fn conv2d_forward<E: Element>(
    cpu: &Cpu,
    g: &Conv2dGeometry,
    x: &[E],
    w: &[f32],
    y: &mut [E],
    sums: Option<&mut [f64]>,
) {
    if let Some(sums) = &sums {
        assert_eq!(sums.len(), 2 * g.out_channels, "sums have two values per channel");
    }
    forward(cpu, g, x, w, y, sums.map_or(Epilogue::Keep, Epilogue::Sum));
}

/// Convolves and normalises: y = act(convolution * scale + shift + residual), in one pass over y.
///
/// Overwrites `y`. The convolution's values may be rounded to E before they are normalised, as in a pass of its own, or
/// not, which is more exact.
///
/// # Panics
///
/// If the geometry is not valid or the length of a slice does not match it.
pub fn conv2d_normalized<E: Element>(
    cpu: &Cpu,
    g: &Conv2dGeometry,
    x: &[E],
    w: &[f32],
    norm: Normalize<E>,
    y: &mut [E],
) {
    assert_eq!([norm.scale.len(), norm.shift.len()], [g.out_channels; 2], "one scale and shift per channel");
    assert!(norm.residual.is_none_or(|residual| residual.len() == y.len()), "a residual in the shape of y");
    forward(cpu, g, x, w, y, Epilogue::Normalize(norm));
}

fn forward<E: Element>(
    cpu: &Cpu,
    g: &Conv2dGeometry,
    x: &[E],
    w: &[f32],
    y: &mut [E],
    epilogue: Epilogue<E>,
) {
    check(g, x, w, y);
    if winograd_pays::<E>(cpu, g) {
        winograd::forward(cpu, g, x, w, y, epilogue);
    } else {
        direct::forward(cpu, g, x, w, y, epilogue);
    }
}

/// The gradient of the input: `dx[n, h, w, c]` is the sum of `dy[n, p, q, k] * w[k, r, s, c]` over all terms of
/// [`conv2d_forward`] in which x[n, h, w, c] occurs. Depending on `write`, it overwrites `dx` or is added to it:
/// where `dx` already holds the gradient from another consumer of x, adding saves a pass over both.
///
/// # Panics
///
/// If the geometry is not valid or the length of a slice does not match it.
pub fn conv2d_backward_input<E: Element>(
    cpu: &Cpu,
    g: &Conv2dGeometry,
    dy: &[E],
    w: &[f32],
    dx: &mut [E],
    write: Write,
) {
    check(g, dx, w, dy);
    if winograd_pays::<E>(cpu, g) {
        winograd::backward_input(cpu, g, dy, w, dx, write);
    } else {
        direct::backward_input(cpu, g, dy, w, dx, write);
    }
}

/// The gradient of the weights: `dw[k, r, s, c]` is the sum of
/// `dy[n, p, q, k] * x[n, p * stride + r - padding, q * stride + s - padding, c]` over n, p, q. Overwrites `dw`.
///
/// # Panics
///
/// If the geometry is not valid or the length of a slice does not match it.
pub fn conv2d_backward_weight<E: Element>(cpu: &Cpu, g: &Conv2dGeometry, x: &[E], dy: &[E], dw: &mut [f32]) {
    check(g, x, dw, dy);
    if winograd_pays::<E>(cpu, g) {
        winograd::backward_weight(cpu, g, x, dy, dw);
    } else {
        direct_weight::backward_weight(cpu, g, x, dy, dw);
    }
}

/// Whether Winograd's form is the fastest: with tiles of bf16, multiplications are not worth saving.
fn winograd_pays<E: Element>(cpu: &Cpu, g: &Conv2dGeometry) -> bool {
    #[cfg(target_arch = "x86_64")]
    if amx::chosen::<E>(cpu.isa, g.stride).is_some() {
        return false;
    }
    let _ = cpu;
    winograd::pays::<E>(g)
}

/// The checks on which all unchecked indexing in this folder relies.
fn check<E>(g: &Conv2dGeometry, x: &[E], w: &[f32], y: &[E]) {
    assert!(g.is_valid(), "not a convolution: {g:?}");
    assert_eq!(x.len(), g.input_len(), "input of {g:?}");
    assert_eq!(w.len(), g.weight_len(), "weights of {g:?}");
    assert_eq!(y.len(), g.output_len(), "output of {g:?}");
}
