//! L2 normalisation of rows: y = x / max(|x|, eps).

use crate::Cpu;
use crate::math::dot;
use crate::pieces::rows_per_piece;

/// The least divisor, used for rows of a smaller norm, so that a row of zeros gives zeros rather than NaN.
pub const EPSILON: f32 = 1e-12;

/// y = x / max(|x|, [`EPSILON`]) for rows of `width` values; NaN where |x| is beyond the range of f32.
pub fn l2_normalize_forward(cpu: &Cpu, x: &[f32], width: usize, y: &mut [f32]) {
    assert!(x.len() == y.len() && x.len().is_multiple_of(width));
    let piece = rows_per_piece(width) * width;
    cpu.threads.run_chunks(y, piece, |i, y| {
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for (y, x) in y.chunks_exact_mut(width).zip(x[i * piece..].chunks_exact(width)) {
                    let norm = norm(x);
                    y.iter_mut().zip(x).for_each(|(y, x)| *y = x / norm);
                }
            },
        );
    });
}

/// max(|x|, [`EPSILON`]), or NaN if |x| is NaN or no f32: a division by infinity would give zeros, which look sound.
#[inline(always)]
fn norm(x: &[f32]) -> f32 {
    let norm = dot(x, x).sqrt() as f32;
    match norm {
        f32::INFINITY => f32::NAN,
        _ if EPSILON > norm => EPSILON,
        _ => norm,
    }
}

/// dx = (dy - y (y . dy)) / |x|, where x is the input, from which y is recomputed. Where |x| is at most [`EPSILON`],
/// the divisor is constant, so dx = dy / [`EPSILON`]. Overwrites dx.
pub fn l2_normalize_backward(cpu: &Cpu, x: &[f32], dy: &[f32], width: usize, dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == dx.len() && x.len().is_multiple_of(width));
    let piece = rows_per_piece(width) * width;
    cpu.threads.run_chunks(dx, piece, |i, dx| {
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                let rows = x[i * piece..].chunks_exact(width).zip(dy[i * piece..].chunks_exact(width));
                for (dx, (x, dy)) in dx.chunks_exact_mut(width).zip(rows) {
                    let norm = norm(x);
                    let wide = f64::from(norm);
                    let along = if norm > EPSILON { (dot(x, dy) / (wide * wide)) as f32 } else { 0.0 };
                    dx.iter_mut()
                        .zip(x.iter().zip(dy))
                        .for_each(|(dx, (x, dy))| *dx = (dy - x * along) / norm);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::cpu;

    /// For rows with norms below and above [`EPSILON`], the gradient is that of what the forward pass computes.
    #[test]
    fn a_row_of_almost_nothing_has_the_gradient_of_a_division() {
        let cpu = cpu(Isa::detect(), 1);
        let (x, dy) = ([6e-13f32, 6e-13, 0.0, 0.0, 3e-12, 4e-12], [3.0f32, -1.0, 2.0, 1.0, 1.0, 1.0]);
        let (mut y, mut dx) = ([f32::NAN; 6], [f32::NAN; 6]);
        l2_normalize_forward(&cpu, &x, 2, &mut y);
        l2_normalize_backward(&cpu, &x, &dy, 2, &mut dx);
        for (got, want) in y.iter().zip([0.6, 0.6, 0.0, 0.0, 0.6, 0.8]) {
            assert!((got - want).abs() < 1e-6, "{y:?}");
        }
        // The last row is (dy - y 1.4) / 5e-12.
        for (got, want) in dx.iter().zip([3e12, -1e12, 2e12, 1e12, 3.2e10, -2.4e10]) {
            assert!((got - want).abs() < 1e-4 * 1e12, "{dx:?}");
        }
    }

    /// Squares of these are beyond f32, and in the last row the norm is, too.
    #[test]
    fn a_row_of_huge_values_has_length_1_unless_its_norm_is_no_number() {
        let cpu = cpu(Isa::detect(), 1);
        let (x, dy) = ([3e19f32, 4e19, 6e25, -8e25, 3e38, 3e38], [1.0f32, 1.0, 1.0, 2.0, 1.0, 1.0]);
        let (mut y, mut dx) = ([0f32; 6], [0f32; 6]);
        l2_normalize_forward(&cpu, &x, 2, &mut y);
        l2_normalize_backward(&cpu, &x, &dy, 2, &mut dx);
        for (got, want) in y.iter().zip([0.6, 0.8, 0.6, -0.8]) {
            assert!((got - want).abs() < 1e-6, "{y:?}");
        }
        // (dy - y 1.4) / 5e19 and (dy + y) / 1e26.
        for (got, want) in dx.iter().zip([3.2e-21, -2.4e-21, 1.6e-26, 1.2e-26]) {
            assert!((got - want).abs() < 1e-4 * want.abs(), "{dx:?}");
        }
        assert!(y[4..].iter().chain(&dx[4..]).all(|value| value.is_nan()), "{y:?} {dx:?}");
    }
}
