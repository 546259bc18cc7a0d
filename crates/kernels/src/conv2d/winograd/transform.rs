//! The linear maps of F(4 x 4, 3 x 3), defined on lines and applied to planes of vectors.
//!
//! The points are 0, +-A, +-B and infinity; see the README for the matrices.

use crate::simd::Simd;

/// The points, exact in f32.
const A: f32 = 0.625;
const B: f32 = 1.5;
const A2: f32 = A * A;
const B2: f32 = B * B;
/// The denominators of the weights' rows: the product of a point's distances from all others.
const N0: f32 = A2 * B2;
const NA: f32 = 2.0 * A2 * (A2 - B2);
const NB: f32 = 2.0 * B2 * (B2 - A2);

/// A linear map from I to O vectors, lane by lane.
pub trait Line<const I: usize, const O: usize> {
    fn apply<S: Simd>(simd: S, d: [S::V; I]) -> [S::V; O];
}

/// The input's map, `B^T`, whose rows are the coefficients of the polynomials that vanish at all points but one.
pub struct Input;

impl Line<6, 6> for Input {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, d: [S::V; 6]) -> [S::V; 6] {
        let [d0, d1, d2, d3, d4, d5] = d;
        let fma = |x, factor: f32, y| simd.mul_add(x, simd.splat(factor), y);
        let (even_a, odd_a) = (fma(d2, -B2, d4), fma(d1, -B2, d3));
        let (even_b, odd_b) = (fma(d2, -A2, d4), fma(d1, -A2, d3));
        [
            fma(d0, A2 * B2, fma(d2, -(A2 + B2), d4)),
            fma(odd_a, A, even_a),
            fma(odd_a, -A, even_a),
            fma(odd_b, B, even_b),
            fma(odd_b, -B, even_b),
            fma(d1, A2 * B2, fma(d3, -(A2 + B2), d5)),
        ]
    }
}

/// The output's map, `A^T`, whose rows are the powers of the points.
pub struct Output;

impl Line<6, 4> for Output {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, m: [S::V; 6]) -> [S::V; 4] {
        let [m0, m1, m2, m3, m4, m5] = m;
        let fma = |x, factor: f32, y| simd.mul_add(x, simd.splat(factor), y);
        let (even_a, odd_a) = (simd.add(m1, m2), simd.sub(m1, m2));
        let (even_b, odd_b) = (simd.add(m3, m4), simd.sub(m3, m4));
        [
            simd.add(m0, simd.add(even_a, even_b)),
            fma(odd_a, A, simd.mul(odd_b, simd.splat(B))),
            fma(even_a, A2, simd.mul(even_b, simd.splat(B2))),
            fma(odd_a, A * A2, fma(odd_b, B * B2, m5)),
        ]
    }
}

/// The adjoint of [`Output`], `A`, for gradients of the output.
pub struct OutputGradient;

impl Line<4, 6> for OutputGradient {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, y: [S::V; 4]) -> [S::V; 6] {
        let [y0, y1, y2, y3] = y;
        let fma = |x, factor: f32, y| simd.mul_add(x, simd.splat(factor), y);
        let (even_a, odd_a) = (fma(y2, A2, y0), fma(y3, A2, y1));
        let (even_b, odd_b) = (fma(y2, B2, y0), fma(y3, B2, y1));
        [y0, fma(odd_a, A, even_a), fma(odd_a, -A, even_a), fma(odd_b, B, even_b), fma(odd_b, -B, even_b), y3]
    }
}

/// The weights' map, `G`, which evaluates their polynomial at the points.
pub struct Weight;

impl Line<3, 6> for Weight {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, g: [S::V; 3]) -> [S::V; 6] {
        let [g0, g1, g2] = g;
        let times = |x, factor: f32| simd.mul(x, simd.splat(factor));
        let fma = |x, factor: f32, y| simd.mul_add(x, simd.splat(factor), y);
        let even_a = fma(g2, A2 / NA, times(g0, 1.0 / NA));
        let even_b = fma(g2, B2 / NB, times(g0, 1.0 / NB));
        [
            times(g0, 1.0 / N0),
            fma(g1, A / NA, even_a),
            fma(g1, -A / NA, even_a),
            fma(g1, B / NB, even_b),
            fma(g1, -B / NB, even_b),
            g2,
        ]
    }
}

/// The adjoint of [`Weight`], `G^T`, for gradients of the weights.
pub struct WeightGradient;

impl Line<6, 3> for WeightGradient {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, u: [S::V; 6]) -> [S::V; 3] {
        let [u0, u1, u2, u3, u4, u5] = u;
        let times = |x, factor: f32| simd.mul(x, simd.splat(factor));
        let fma = |x, factor: f32, y| simd.mul_add(x, simd.splat(factor), y);
        let (even_a, odd_a) = (simd.add(u1, u2), simd.sub(u1, u2));
        let (even_b, odd_b) = (simd.add(u3, u4), simd.sub(u3, u4));
        [
            fma(even_a, 1.0 / NA, fma(even_b, 1.0 / NB, times(u0, 1.0 / N0))),
            fma(odd_a, A / NA, times(odd_b, B / NB)),
            fma(even_a, A2 / NA, fma(even_b, B2 / NB, u5)),
        ]
    }
}

/// Applies a map to the columns of a plane, then to its rows.
#[inline(always)]
pub fn plane<S: Simd, L: Line<I, O>, const I: usize, const O: usize>(
    simd: S,
    d: &[[S::V; I]; I],
) -> [[S::V; O]; O] {
    let mut half = [[simd.splat(0.0); I]; O];
    for j in 0..I {
        let mut column = [simd.splat(0.0); I];
        for i in 0..I {
            column[i] = d[i][j];
        }
        let column = L::apply(simd, column);
        for i in 0..O {
            half[i][j] = column[i];
        }
    }
    let mut out = [[simd.splat(0.0); O]; O];
    for i in 0..O {
        out[i] = L::apply(simd, half[i]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::simd::{Kernel, dispatch};

    /// Marks the map whose matrix [`matrix`] computes.
    struct Matrix<L>(std::marker::PhantomData<L>);

    fn matrix<L: Line<I, O>, const I: usize, const O: usize>() -> Vec<Vec<f64>> {
        struct Columns<L, const I: usize, const O: usize>(Matrix<L>);
        impl<L: Line<I, O>, const I: usize, const O: usize> Kernel for Columns<L, I, O> {
            type Output = Vec<Vec<f64>>;
            const BF16: bool = false;
            fn run<S: Simd>(self, simd: S) -> Vec<Vec<f64>> {
                let mut matrix = vec![vec![0.0; I]; O];
                for j in 0..I {
                    let mut d = [simd.splat(0.0); I];
                    d[j] = simd.splat(1.0);
                    for (i, v) in L::apply(simd, d).into_iter().enumerate() {
                        let mut out = [0.0f32; 64];
                        // SAFETY: a vector has at most 64 numbers.
                        unsafe { simd.store(out.as_mut_ptr(), v) };
                        matrix[i][j] = f64::from(out[0]);
                    }
                }
                matrix
            }
        }
        dispatch(Isa::PORTABLE, Columns(Matrix::<L>(std::marker::PhantomData)))
    }

    /// `A^T ((G g) * (B^T d))` is the correlation of d with g, checked on all unit vectors.
    #[test]
    fn the_maps_compute_a_correlation() {
        let output = matrix::<Output, 6, 4>();
        let weight = matrix::<Weight, 3, 6>();
        let input = matrix::<Input, 6, 6>();
        for i in 0..4 {
            for tap in 0..3 {
                for j in 0..6 {
                    let sum: f64 = (0..6).map(|x| output[i][x] * weight[x][tap] * input[x][j]).sum();
                    let expected = if j == i + tap { 1.0 } else { 0.0 };
                    assert!((sum - expected).abs() < 1e-6, "output {i}, tap {tap}, input {j}: {sum}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_the_adjoints() {
        let (output, gradient) = (matrix::<Output, 6, 4>(), matrix::<OutputGradient, 4, 6>());
        let (weight, adjoint) = (matrix::<Weight, 3, 6>(), matrix::<WeightGradient, 6, 3>());
        for x in 0..6 {
            assert!((0..4).all(|i| (output[i][x] - gradient[x][i]).abs() < 1e-6));
            assert!((0..3).all(|tap| (weight[x][tap] - adjoint[tap][x]).abs() < 1e-6));
        }
    }
}
