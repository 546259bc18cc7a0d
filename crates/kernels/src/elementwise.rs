//! Elementwise passes: ReLU, addition, scaling, conversion of 8-bit images.

use crate::pieces::PIECE;
use crate::{Cpu, Element};

/// y = max(x, 0); NaN stays NaN.
pub fn relu_forward<E: Element>(cpu: &Cpu, x: &[E], y: &mut [E]) {
    assert_eq!(x.len(), y.len());
    cpu.threads.run_chunks(y, PIECE, |i, y| {
        let x = &x[i * PIECE..i * PIECE + y.len()];
        cpu.isa.vectorize(
            #[inline(always)]
            // Not `f32::max`, which would hide a NaN.
            || y.iter_mut().zip(x).for_each(|(y, x)| *y = if 0.0 > x.widen() { E::default() } else { *x }),
        );
    });
}

/// Keeps `dy` where `y`, the ReLU's output, is positive, and clears it elsewhere.
pub fn relu_backward<E: Element>(cpu: &Cpu, y: &[E], dy: &mut [E]) {
    assert_eq!(y.len(), dy.len());
    cpu.threads.run_chunks(dy, PIECE, |i, dy| {
        let y = &y[i * PIECE..i * PIECE + dy.len()];
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                dy.iter_mut()
                    .zip(y)
                    .for_each(|(dy, y)| *dy = if y.widen() > 0.0 { *dy } else { E::default() })
            },
        );
    });
}

/// a += b.
pub fn add_assign<E: Element>(cpu: &Cpu, a: &mut [E], b: &[E]) {
    assert_eq!(a.len(), b.len());
    cpu.threads.run_chunks(a, PIECE, |i, a| {
        let b = &b[i * PIECE..i * PIECE + a.len()];
        cpu.isa.vectorize(
            #[inline(always)]
            || a.iter_mut().zip(b).for_each(|(a, b)| *a = E::narrow(a.widen() + b.widen())),
        );
    });
}

/// a *= factor.
pub fn scale(cpu: &Cpu, a: &mut [f32], factor: f32) {
    cpu.threads.run_chunks(a, PIECE, |_, a| {
        cpu.isa.vectorize(
            #[inline(always)]
            || a.iter_mut().for_each(|a| *a *= factor),
        );
    });
}

/// Converts 8-bit values to [0, 1].
pub fn unit_from_bytes<E: Element>(cpu: &Cpu, bytes: &[u8], y: &mut [E]) {
    assert_eq!(bytes.len(), y.len());
    cpu.threads.run_chunks(y, PIECE, |i, y| {
        let bytes = &bytes[i * PIECE..i * PIECE + y.len()];
        cpu.isa.vectorize(
            #[inline(always)]
            || y.iter_mut().zip(bytes).for_each(|(y, b)| *y = E::narrow(f32::from(*b) / 255.0)),
        );
    });
}

/// Returns the sum of squares of all values, in f64, over fixed pieces.
pub fn sum_of_squares(cpu: &Cpu, x: &[f32]) -> f64 {
    let mut sum = [0.0];
    crate::pieces::sum_pieces(cpu, x.len().div_ceil(PIECE), &mut sum, |i, acc| {
        let x = &x[i * PIECE..x.len().min((i + 1) * PIECE)];
        acc[0] += cpu.isa.vectorize(
            #[inline(always)]
            || crate::math::dot(x, x),
        );
    });
    sum[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::cpu;

    #[test]
    fn each_pass_does_what_it_says_past_a_piece() {
        let cpu = cpu(Isa::detect(), 2);
        let x: Vec<f32> = (0..PIECE + 77).map(|i| (i % 7) as f32 - 3.0).collect();
        let mut y = vec![9.0; x.len()];
        relu_forward(&cpu, &x, &mut y);
        assert!(y.iter().zip(&x).all(|(y, x)| *y == x.max(0.0)));
        let mut dy = vec![2.0; x.len()];
        relu_backward(&cpu, &y, &mut dy);
        assert!(dy.iter().zip(&x).all(|(d, x)| *d == if *x > 0.0 { 2.0 } else { 0.0 }));
        add_assign(&cpu, &mut dy, &x);
        scale(&cpu, &mut dy, 0.5);
        assert!(dy.iter().zip(&x).all(|(d, x)| *d == (x + if *x > 0.0 { 2.0 } else { 0.0 }) / 2.0));
        assert_eq!(sum_of_squares(&cpu, &x), x.iter().map(|v| f64::from(v * v)).sum::<f64>());
        let bytes: Vec<u8> = (0..=255).collect();
        let mut unit = vec![0.0; 256];
        unit_from_bytes(&cpu, &bytes, &mut unit);
        assert!(unit.iter().zip(&bytes).all(|(u, b)| *u == f32::from(*b) / 255.0));
    }
}
