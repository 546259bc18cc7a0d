//! One sweep over a view: each row is resized or loaded, changed by operators in registers, and stored or rounded to
//! bytes.

use crate::ops::brightness::{add, multiply};
use crate::ops::contrast::contrast;
use crate::ops::grayscale::{LUMA, grayscale};
use crate::ops::hue::hue;
use crate::ops::saturation::saturation;
use crate::ops::solarize::solarize;
use crate::planes::Planes;
use crate::resize::Resizer;
use crate::simd::kernels::{PixelMap, map_row, quantize_row, sum_row};
use crate::simd::{BLOCK, Task, Vector};
use crate::{CropBox, ImageRef, Step};

/// An operator that looks at one pixel at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PixelOp {
    Brightness(f32),
    BrightnessShift(f32),
    Contrast { factor: f32, mean: f32 },
    Saturation(f32),
    Hue(f32),
    Gray,
    Solarize(f32),
}

impl PixelOp {
    /// Returns the operator of a step, or `None` if it looks at more than one pixel. Contrast needs `mean`, the mean
    /// grey value of the view that it is applied to.
    pub fn of(step: Step, mean: Option<f32>) -> Option<Self> {
        Some(match step {
            Step::Brightness(factor) => Self::Brightness(factor),
            Step::BrightnessShift(shift) => Self::BrightnessShift(shift),
            Step::Contrast(factor) => Self::Contrast { factor, mean: mean? },
            Step::Saturation(factor) => Self::Saturation(factor),
            Step::Hue(turn) => Self::Hue(turn),
            Step::Gray => Self::Gray,
            Step::Solarize(threshold) => Self::Solarize(threshold),
            Step::Invert => Self::Solarize(0.0),
            Step::Flip
            | Step::Blur { .. }
            | Step::Cutout { .. }
            | Step::Rotate { .. }
            | Step::Noise { .. }
            | Step::Sobel
            | Step::AutoContrast
            | Step::Equalize
            | Step::Posterize { .. }
            | Step::Sharpness(_)
            | Step::Turn { .. }
            | Step::ShearX(_) => return None,
        })
    }

    #[inline(always)]
    fn apply<V: Vector>(self, pixels: [V; 3]) -> [V; 3] {
        match self {
            Self::Brightness(factor) => multiply(pixels, factor),
            Self::BrightnessShift(shift) => add(pixels, shift),
            Self::Contrast { factor, mean } => contrast(pixels, factor, mean),
            Self::Saturation(factor) => saturation(pixels, factor),
            Self::Hue(turn) => hue(pixels, turn),
            Self::Gray => grayscale(pixels),
            Self::Solarize(threshold) => solarize(pixels, threshold),
        }
    }
}

/// Where the pixels of a [`Pass`] come from.
pub(crate) enum Input<'a> {
    /// The planes.
    Planes,
    /// An image, to be cropped and resized by a resizer that is prepared for it.
    Image(&'a mut Resizer, ImageRef<'a>, CropBox),
}

/// A sweep over a view.
pub(crate) struct Pass<'a> {
    pub planes: &'a mut Planes,
    pub from: Input<'a>,
    /// The operators, applied one after another.
    pub ops: &'a [PixelOp],
    /// The buffer of the finished view, if no step follows; otherwise the planes are written.
    pub out: Option<&'a mut [u8]>,
    /// Whether the mean grey value is wanted.
    pub mean: bool,
}

/// Applies operators one after another.
#[derive(Clone, Copy)]
struct All<'a>(&'a [PixelOp]);

impl PixelMap for All<'_> {
    #[inline(always)]
    fn map<V: Vector>(self, mut pixels: [V; 3]) -> [V; 3] {
        for op in self.0 {
            pixels = op.apply(pixels);
        }
        pixels
    }
}

impl Task for Pass<'_> {
    /// The mean grey value of the view after the operators, if `mean` is set.
    type Output = f32;

    #[inline(always)]
    fn run<V: Vector>(mut self) -> f32 {
        let side = self.planes.side();
        let mask = self.planes.mask();
        let mut sums = [0.0; BLOCK];
        for y in 0..side {
            // Rows that go straight to `out` are not kept: they all use row 0 of the planes.
            let rows = match (&mut self.from, &self.out) {
                (Input::Image(resizer, image, crop), out) => {
                    let rows = self.planes.row_mut(if out.is_some() { 0 } else { y });
                    resizer.row::<V>(*image, *crop, y, rows);
                    self.planes.row_mut(if out.is_some() { 0 } else { y })
                }
                (Input::Planes, _) => self.planes.row_mut(y),
            };
            let [red, green, blue] = rows;
            if !self.ops.is_empty() {
                map_row::<V>([&mut *red, &mut *green, &mut *blue], All(self.ops));
            }
            if self.mean {
                sum_row::<V>([&*red, &*green, &*blue], LUMA, &mask, &mut sums);
            }
            if let Some(out) = &mut self.out {
                quantize_row::<V>([red, green, blue], &mut out[3 * y * side..][..3 * side], side);
            }
        }
        sums.iter().sum::<f32>() / (side * side) as f32
    }
}
