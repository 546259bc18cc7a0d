//! Gaussian blur: exact, separable.

use serde::{Deserialize, Serialize};

/// What the blur sees beyond the border of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlurPadding {
    /// Black, as in the authors' code: borders darken.
    #[default]
    Zero,
    /// The view mirrored at its outermost pixels, which are not repeated, as in torchvision.
    Reflect,
}

/// Weights below this change no 8-bit value, and are left out: a small sigma costs no more than the few taps
/// that it needs.
const NEGLIGIBLE: f32 = 1e-5;

/// Values summed side by side, in registers.
const BLOCK: usize = 16;

/// Blurs with buffers that are kept from one view to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blurrer {
    /// Weights from the centre outwards.
    kernel: Vec<f32>,
    /// One row with its padding on both sides.
    padded: Vec<f32>,
    /// A plane blurred along its rows, with padding rows above and below.
    across: Vec<f32>,
}

/// Radius of the kernel for views of `size` x `size` pixels: its side is a tenth of the view's, made odd (23
/// at 224; 1, no blur, below 20).
pub(crate) fn radius(size: u32) -> usize {
    size as usize / 20
}

impl Blurrer {
    /// Blurs planes of `side` x `side` pixels with a Gaussian of standard deviation `sigma` pixels, sampled
    /// at whole pixels up to `radius`, less than `side`, and scaled to sum to 1.
    pub fn blur(&mut self, planes: &mut [f32], side: usize, radius: usize, sigma: f32, padding: BlurPadding) {
        self.prepare(radius, sigma);
        let radius = self.kernel.len() - 1;
        if radius == 0 {
            return;
        }
        let margin = radius * side;
        self.padded.clear();
        self.padded.resize(side + 2 * radius, 0.0);
        self.across.clear();
        self.across.resize(side * side + 2 * margin, 0.0);
        for plane in planes.chunks_exact_mut(side * side) {
            let inside = &mut self.across[margin..][..side * side];
            for (row, out) in plane.chunks_exact(side).zip(inside.chunks_exact_mut(side)) {
                self.padded[radius..][..side].copy_from_slice(row);
                if padding == BlurPadding::Reflect {
                    mirror(&mut self.padded, radius, 1);
                }
                convolve(&self.padded, &self.kernel, 1, out);
            }
            if padding == BlurPadding::Reflect {
                mirror(&mut self.across, radius, side);
            }
            for (y, row) in plane.chunks_exact_mut(side).enumerate() {
                convolve(&self.across[y * side..], &self.kernel, side, row);
            }
        }
    }

    fn prepare(&mut self, radius: usize, sigma: f32) {
        self.kernel.clear();
        let scale = -0.5 / (sigma * sigma);
        let weights = (0..=radius).map(|t| ((t * t) as f32 * scale).exp());
        self.kernel.extend(weights.take_while(|&weight| weight > NEGLIGIBLE));
        // A sigma so small that its square underflows leaves NaN at the centre, which the comparison above
        // refuses.
        if self.kernel.is_empty() {
            self.kernel.push(1.0);
        }
        let sum = self.kernel[0] + 2.0 * self.kernel[1..].iter().sum::<f32>();
        for weight in &mut self.kernel {
            *weight /= sum;
        }
    }
}

/// Fills `radius` items of `width` values at either end of `line` with the mirror image of what lies inside.
fn mirror(line: &mut [f32], radius: usize, width: usize) {
    let items = line.len() / width;
    for t in 1..=radius {
        let near = (radius + t) * width;
        line.copy_within(near..near + width, (radius - t) * width);
        let last = items - 1 - radius;
        let near = (last - t) * width;
        line.copy_within(near..near + width, (last + t) * width);
    }
}

/// `out[x]` = sum over t of `kernel[|t|] * source[x + (radius + t) * stride]`.
fn convolve(source: &[f32], kernel: &[f32], stride: usize, out: &mut [f32]) {
    let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
    let done = blocks.len() * BLOCK;
    for (i, block) in blocks.iter_mut().enumerate() {
        convolve_block(&source[i * BLOCK..], kernel, stride, block);
    }
    for (i, value) in rest.iter_mut().enumerate() {
        convolve_block(&source[done + i..], kernel, stride, std::array::from_mut(value));
    }
}

#[inline(always)]
fn convolve_block<const N: usize>(source: &[f32], kernel: &[f32], stride: usize, out: &mut [f32; N]) {
    let center = (kernel.len() - 1) * stride;
    let mut sum = [0.0; N];
    for (sum, value) in sum.iter_mut().zip(&source[center..][..N]) {
        *sum = kernel[0] * value;
    }
    for (t, &weight) in kernel.iter().enumerate().skip(1) {
        let before = &source[center - t * stride..][..N];
        let after = &source[center + t * stride..][..N];
        for ((sum, before), after) in sum.iter_mut().zip(before).zip(after) {
            *sum += weight * (before + after);
        }
    }
    *out = sum;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in f64.
    fn naive(plane: &[f32], side: usize, radius: usize, sigma: f32, padding: BlurPadding) -> Vec<f32> {
        let side = side as isize;
        let at = |y: isize, x: isize| -> f64 {
            let place = |v: isize| match padding {
                BlurPadding::Zero => (0..side).contains(&v).then_some(v),
                BlurPadding::Reflect => Some((side - 1) - ((side - 1) - v.abs()).abs()),
            };
            match (place(y), place(x)) {
                (Some(y), Some(x)) => f64::from(plane[(y * side + x) as usize]),
                _ => 0.0,
            }
        };
        let radius = radius as isize;
        let weight = |t: isize| (-0.5 * (t * t) as f64 / f64::from(sigma * sigma)).exp();
        let total: f64 = (-radius..=radius).map(weight).sum();
        let pixel = |y: isize, x: isize| -> f64 {
            (-radius..=radius)
                .flat_map(|i| (-radius..=radius).map(move |j| (i, j)))
                .map(|(i, j)| weight(i) * weight(j) * at(y + i, x + j))
                .sum()
        };
        (0..side)
            .flat_map(|y| (0..side).map(move |x| (y, x)))
            .map(|(y, x)| (pixel(y, x) / (total * total)) as f32)
            .collect()
    }

    #[test]
    fn separable_form_equals_the_definition() {
        let mut blurrer = Blurrer::default();
        for side in [1usize, 2, 5, 21, 40] {
            for radius in [0, 1, 2, 4] {
                if radius >= side {
                    continue;
                }
                for (sigma, padding) in [
                    (0.1, BlurPadding::Zero),
                    (0.7, BlurPadding::Reflect),
                    (2.0, BlurPadding::Zero),
                    (2.0, BlurPadding::Reflect),
                ] {
                    let plane: Vec<f32> =
                        (0..side * side).map(|i| ((i * 7919) % 256) as f32 / 255.0).collect();
                    let expected = naive(&plane, side, radius, sigma, padding);
                    let mut got = plane.repeat(3);
                    blurrer.blur(&mut got, side, radius, sigma, padding);
                    for (i, value) in got.iter().enumerate() {
                        let error = (value - expected[i % (side * side)]).abs();
                        assert!(
                            error < 1e-4,
                            "side {side} radius {radius} sigma {sigma} {padding:?}: {error}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_vanishing_sigma_changes_nothing() {
        let mut planes = vec![0.25; 3 * 100];
        Blurrer::default().blur(&mut planes, 10, 3, f32::MIN_POSITIVE, BlurPadding::Zero);
        assert_eq!(planes, vec![0.25; 3 * 100]);
    }

    #[test]
    fn the_kernel_side_is_a_tenth_made_odd() {
        assert_eq!([32, 64, 96, 224].map(|size| 2 * radius(size) + 1), [3, 7, 9, 23]);
    }
}
