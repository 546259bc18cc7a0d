//! Crop, bicubic resize and flip in one pass: 8-bit pixels in, planes of `f32` out.
//!
//! The filter is the cubic convolution of Keys with a = -0.5 (Catmull-Rom), as in Pillow and in TensorFlow's
//! antialiased resize. When shrinking, the filter is stretched by the scale, so that every source pixel
//! counts (antialiasing). Weights beyond the crop are dropped and the rest sum to one: cropping then
//! resizing, never looking outside of the crop.

use crate::{CropBox, ImageRef, planes};

/// Half-width of the unstretched filter.
const SUPPORT: f64 = 2.0;

/// Source rows blended in one sweep over the accumulating row.
const SWEEP: usize = 4;

/// Resizes with buffers that are kept from one image to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resizer {
    rows: Taps,
    columns: Taps,
    /// One row of the view before its columns are resized: interleaved, 0 to 255.
    row: Vec<f32>,
}

impl Resizer {
    /// Writes the part `crop` of `image`, resized to `size` x `size` pixels, and mirrored left to right if
    /// `flip`, into `planes` (`3 * size * size` values), clipped to [0, 1]. `crop` lies inside the image.
    pub fn resize(&mut self, image: ImageRef<'_>, crop: CropBox, size: u32, flip: bool, planes: &mut [f32]) {
        self.rows.prepare(crop.height, size, 1.0);
        self.columns.prepare(crop.width, size, 1.0 / 255.0);
        let values = 3 * crop.width as usize;
        // One more value than pixels need: the last pixel is read as four.
        self.row.resize(values + 1, 0.0);
        let [red, green, blue] = planes::split(planes);
        let side = size as usize;
        for y in 0..side {
            blend_rows(image, crop, self.rows.of(y), &mut self.row[..values]);
            let line = y * side..(y + 1) * side;
            let line = [&mut red[line.clone()], &mut green[line.clone()], &mut blue[line]];
            blend_columns(&self.row, &self.columns, flip, line);
        }
    }
}

/// Weighted sum of source rows.
fn blend_rows(image: ImageRef<'_>, crop: CropBox, (start, weights): Tap<'_>, row: &mut [f32]) {
    row.fill(0.0);
    let mut y = crop.top + start;
    for sweep in weights.chunks(SWEEP) {
        let line = |i: usize| {
            // Past the last tap: any row will do under a weight of 0.
            let i = if i < sweep.len() { i } else { 0 };
            &image.row(y + i as u32, crop.left, crop.width)[..row.len()]
        };
        let (a, b, c, d) = (line(0), line(1), line(2), line(3));
        let weight = |i: usize| sweep.get(i).copied().unwrap_or(0.0);
        let w = [weight(0), weight(1), weight(2), weight(3)];
        for (i, sum) in row.iter_mut().enumerate() {
            *sum += (w[0] * f32::from(a[i]) + w[1] * f32::from(b[i]))
                + (w[2] * f32::from(c[i]) + w[3] * f32::from(d[i]));
        }
        y += sweep.len() as u32;
    }
}

/// Weighted sums of the pixels of one row, one for each column of the view.
fn blend_columns(row: &[f32], columns: &Taps, flip: bool, [red, green, blue]: [&mut [f32]; 3]) {
    let side = red.len();
    let mirror = if flip { side - 1 } else { 0 };
    for x in 0..side {
        let (start, weights) = columns.of(x);
        let mut source = &row[3 * start as usize..];
        // The fourth lane holds the next pixel's red, and is ignored: four lanes are one vector.
        let mut sum = [0.0f32; 4];
        for &weight in weights {
            let Some(pixel) = source.first_chunk::<4>() else {
                break;
            };
            for (sum, value) in sum.iter_mut().zip(pixel) {
                *sum += weight * value;
            }
            source = &source[3..];
        }
        let x = x.abs_diff(mirror);
        red[x] = planes::clip(sum[0]);
        green[x] = planes::clip(sum[1]);
        blue[x] = planes::clip(sum[2]);
    }
}

/// First source pixel and the weights from there on.
type Tap<'a> = (u32, &'a [f32]);

/// Which source pixels make each pixel of the view along one axis, and with which weights.
#[derive(Debug, Clone, Default)]
struct Taps {
    /// First source pixel of each output, and where its weights end.
    spans: Vec<(u32, usize)>,
    weights: Vec<f32>,
}

impl Taps {
    /// Prepares the reduction or enlargement of `length` pixels to `size`; the weights of each output sum to
    /// `gain`.
    fn prepare(&mut self, length: u32, size: u32, gain: f64) {
        self.spans.clear();
        self.weights.clear();
        let scale = f64::from(length) / f64::from(size);
        let stretch = scale.max(1.0);
        let shrink = 1.0 / stretch;
        let radius = SUPPORT * stretch;
        for out in 0..size {
            let center = (f64::from(out) + 0.5) * scale;
            let low = (center - radius).floor().max(0.0) as u32;
            let high = ((center + radius).ceil() as u32).min(length);
            let weight = |x: u32| cubic((f64::from(x) + 0.5 - center) * shrink);
            // Zeros at either end would only be multiplied: without them a crop of the view's size is copied.
            let counts = |&x: &u32| weight(x) != 0.0;
            let first = (low..high).find(counts).unwrap_or(low);
            let end = (first..high).rfind(counts).map_or(high, |last| last + 1);
            let begin = self.weights.len();
            self.weights.extend((first..end).map(|x| weight(x) as f32));
            let sum: f64 = (first..end).map(weight).sum();
            let norm = (gain / sum) as f32;
            for weight in &mut self.weights[begin..] {
                *weight *= norm;
            }
            self.spans.push((first, self.weights.len()));
        }
    }

    fn of(&self, out: usize) -> Tap<'_> {
        let begin = out.checked_sub(1).map_or(0, |before| self.spans[before].1);
        let (first, end) = self.spans[out];
        (first, &self.weights[begin..end])
    }
}

/// Keys' cubic convolution kernel with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        A * (((x - 5.0) * x + 8.0) * x - 4.0)
    } else {
        0.0
    }
}
