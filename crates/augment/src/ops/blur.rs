//! Gaussian blur: exact, separable.

use serde::{Deserialize, Serialize};
use simclr_words::words;

use super::{Draw, Step, Steps};
use crate::planes::Planes;
use crate::simd::kernels::{convolve_row, convolve_rows, quantize_row};
use crate::simd::{Aligned, Task, Vector};
use crate::{AugmentError, Stream, check, decimal};

words! {
    /// What the blur sees beyond the border of a view.
    #[derive(Default)]
    BlurPadding {
        /// Black, as in the authors' code: borders darken.
        #[default]
        Zero = "zero",
        /// The view mirrored at its outermost pixels, which are not repeated, as in torchvision.
        Reflect = "reflect",
    }
}

/// Gaussian blur with a kernel whose side is a tenth of the view's, made odd.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GaussianBlur {
    /// Probability. When absent: 0.5 for views of more than 64 pixels, otherwise 0.
    #[serde(serialize_with = "decimal::optional", skip_serializing_if = "Option::is_none")]
    pub prob: Option<f32>,
    /// Smallest and largest standard deviation in pixels of the view, in (0, 1000]; uniform between them.
    #[serde(serialize_with = "decimal::pair")]
    pub sigma: [f32; 2],
    /// What the blur sees beyond the border.
    pub padding: BlurPadding,
}

impl Default for GaussianBlur {
    fn default() -> Self {
        Self { prob: None, sigma: [0.1, 2.0], padding: BlurPadding::Zero }
    }
}

impl GaussianBlur {
    /// Whether the blur changes views of `size` x `size` pixels: below 20, its kernel has one pixel.
    pub fn changes(size: u32) -> bool {
        radius(size as usize) > 0
    }
}

impl Draw for GaussianBlur {
    fn check(&self) -> Result<(), AugmentError> {
        check::probability("gaussian_blur.prob", self.prob.unwrap_or(0.0))?;
        check::range(
            "gaussian_blur.sigma",
            self.sigma,
            |v| v > 0.0 && v <= 1000.0,
            "two standard deviations in pixels [smallest, largest], above 0 and at most 1000",
        )
    }

    fn draw(&self, side: u32, stream: &mut Stream, steps: &mut Steps) {
        if stream.chance(self.prob.unwrap_or_else(|| usual_prob(side))) {
            let sigma = stream.uniform(self.sigma.map(f64::from)) as f32;
            steps.push(Step::Blur { sigma, padding: self.padding });
        }
    }
}

/// The default probability of the blur for views of `size` x `size` pixels.
pub(crate) fn usual_prob(size: u32) -> f32 {
    if size > 64 { 0.5 } else { 0.0 }
}

/// Weights below this, relative to that of the centre, are left out: together they would move a value by a fifth of an
/// 8-bit step at most (two weights of 2e-4, in rows and in columns), and without them a small sigma costs only the few
/// taps that it needs.
const NEGLIGIBLE: f32 = 2e-4;

/// The kernel of a blur, and buffers that are kept from one view to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blurrer {
    /// Weights from the centre outwards.
    kernel: Vec<f32>,
    /// One row with its padding on both sides.
    padded: Vec<f32>,
    /// The rows around the current one, already blurred horizontally: a ring of as many rows as the kernel covers,
    /// three planes each, followed by one row of zeros.
    ring: Aligned,
    /// The offsets in the ring of the rows that the kernel covers.
    around: Vec<usize>,
}

/// Radius of the kernel for views of `size` x `size` pixels: its side is a tenth of the view's, made odd (23
/// at 224; 1, no blur, below 20).
pub(crate) fn radius(size: usize) -> usize {
    size / 20
}

impl Blurrer {
    /// Prepares a Gaussian of standard deviation `sigma` pixels, sampled at whole pixels up to `radius` and scaled
    /// to sum to 1. Returns false if the blur changes nothing.
    pub fn prepare(&mut self, radius: usize, sigma: f32) -> bool {
        self.kernel.clear();
        let scale = -0.5 / (sigma * sigma);
        let weights = (0..=radius).map(|t| ((t * t) as f32 * scale).exp());
        self.kernel.extend(weights.take_while(|&weight| weight > NEGLIGIBLE));
        // A sigma so small that its square underflows leaves NaN at the centre, for which the comparison above is
        // false.
        if self.kernel.is_empty() {
            self.kernel.push(1.0);
        }
        let sum = self.kernel[0] + 2.0 * self.kernel[1..].iter().sum::<f32>();
        for weight in &mut self.kernel {
            *weight /= sum;
        }
        self.kernel.len() > 1
    }
}

/// Blurs the planes with the prepared kernel, whose radius is less than their side.
pub(crate) struct Blur<'a> {
    pub blurrer: &'a mut Blurrer,
    pub planes: &'a mut Planes,
    pub padding: BlurPadding,
    /// The buffer of the finished view, if no step follows; otherwise the planes are written.
    pub out: Option<&'a mut [u8]>,
}

impl Task for Blur<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let Self { blurrer: Blurrer { kernel, padded, ring, around }, planes, padding, .. } = self;
        let (side, pitch, radius) = (planes.side(), planes.pitch(), kernel.len() - 1);
        let slots = 2 * radius + 1;
        padded.resize(pitch + 2 * radius, 0.0);
        ring.resize(3 * pitch * (slots + 1));
        ring[3 * pitch * slots..].fill(0.0);
        let mut next = 0;
        for y in 0..side {
            while next < side && next <= y + radius {
                let row = &mut ring[3 * pitch * (next % slots)..][..3 * pitch];
                for (plane, out) in planes.row_mut(next).into_iter().zip(row.chunks_exact_mut(pitch)) {
                    padded[..radius].fill(0.0);
                    padded[radius..][..side].copy_from_slice(&plane[..side]);
                    padded[radius + side..][..radius].fill(0.0);
                    if padding == BlurPadding::Reflect {
                        mirror(padded, radius, side);
                    }
                    convolve_row::<V>(padded, kernel, out);
                }
                next += 1;
            }
            around.clear();
            around.extend((0..slots).map(|t| 3 * pitch * slot(y + t, radius, side, padding)));
            let [red, green, blue] = planes.row_mut(y);
            convolve_rows::<V>(ring, around, pitch, kernel, [&mut *red, &mut *green, &mut *blue]);
            if let Some(out) = &mut self.out {
                quantize_row::<V>([red, green, blue], &mut out[3 * y * side..][..3 * side], side);
            }
        }
    }
}

/// The slot in the ring of row `y - radius` of a view of `side` rows; beyond the border, the slot of the row that
/// `padding` puts there.
fn slot(y: usize, radius: usize, side: usize, padding: BlurPadding) -> usize {
    let slots = 2 * radius + 1;
    let inside = (radius..radius + side).contains(&y);
    match padding {
        BlurPadding::Zero if !inside => slots,
        BlurPadding::Zero => (y - radius) % slots,
        BlurPadding::Reflect => {
            let last = side - 1;
            (last - last.abs_diff(y.abs_diff(radius))) % slots
        }
    }
}

/// Fills the `radius` values on either side of the middle `length` values with their mirror image.
fn mirror(line: &mut [f32], radius: usize, length: usize) {
    let last = radius + length - 1;
    for t in 1..=radius {
        line[radius - t] = line[radius + t];
        line[last + t] = line[last - t];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::run;
    use simclr_isa::Isa;

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

    /// Blurs a view whose three planes all equal `plane`.
    fn blurred(
        blurrer: &mut Blurrer,
        plane: &[f32],
        side: usize,
        radius: usize,
        sigma: f32,
        padding: BlurPadding,
    ) -> Vec<f32> {
        let mut planes = Planes::default();
        planes.prepare(side);
        for (row, source) in planes.rows_mut().zip(plane.chunks_exact(side).cycle()) {
            row.copy_from_slice(source);
        }
        if blurrer.prepare(radius, sigma) {
            run(Isa::PORTABLE, Blur { blurrer, planes: &mut planes, padding, out: None });
        }
        planes.rows_mut().flat_map(|row| row.to_vec()).collect()
    }

    #[test]
    fn separable_form_equals_the_definition() {
        let mut blurrer = Blurrer::default();
        for side in [1usize, 2, 5, 21, 40] {
            for radius in [0, 1, 2, 4, 11] {
                if radius >= side {
                    continue;
                }
                // At 0.242 what is left out weighs as much as it can.
                for (sigma, padding, most) in [
                    (0.1, BlurPadding::Zero, 1e-6),
                    (0.242, BlurPadding::Zero, 0.2 / 255.0),
                    (0.242, BlurPadding::Reflect, 0.2 / 255.0),
                    (0.7, BlurPadding::Reflect, 1e-4),
                    (1.93, BlurPadding::Zero, 0.05 / 255.0),
                    (2.0, BlurPadding::Zero, 1e-4),
                    (2.0, BlurPadding::Reflect, 1e-4),
                ] {
                    let plane: Vec<f32> =
                        (0..side * side).map(|i| ((i * 7919) % 256) as f32 / 255.0).collect();
                    let expected = naive(&plane, side, radius, sigma, padding);
                    let got = blurred(&mut blurrer, &plane, side, radius, sigma, padding);
                    for (i, value) in got.iter().enumerate() {
                        let error = (value - expected[i % (side * side)]).abs();
                        assert!(
                            error < most,
                            "side {side} radius {radius} sigma {sigma} {padding:?}: {error}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_vanishing_sigma_changes_nothing() {
        assert!(!Blurrer::default().prepare(3, f32::MIN_POSITIVE));
    }

    #[test]
    fn the_kernel_side_is_a_tenth_made_odd() {
        assert_eq!([32, 64, 96, 224].map(|size| 2 * radius(size) + 1), [3, 7, 9, 23]);
    }
}
