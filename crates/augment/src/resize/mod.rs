//! Crop, bicubic resize and flip in one pass: 8-bit pixels in, rows of `f32` planes out.
//!
//! The filter is the cubic convolution of Keys with a = -0.5 (Catmull-Rom), as in Pillow and in TensorFlow's
//! antialiased resize. When shrinking, the filter is stretched by the scale, so that every source pixel
//! counts (antialiasing). Weights beyond the crop are dropped and the rest sum to one, as if the crop
//! were an image of its own: no pixel outside of it counts.

mod taps;

use crate::simd::kernels::{Columns, blend_columns, blend_rows, widen_row};
use crate::simd::{Aligned, Vector, round_up};
use crate::{CropBox, ImageRef};
use taps::Taps;

/// A resize, with buffers that are kept from one image to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resizer {
    rows: Taps,
    columns: Columns,
    /// The taps of the columns, before they are laid out in `columns`.
    unsorted: Taps,
    /// A ring of the source rows that the current row of the view is blended from, each as three lines of values from 0
    /// to 255.
    ring: Aligned,
    /// The number of rows that the ring holds.
    slots: usize,
    /// The offsets in the ring of the rows to blend.
    blended: Vec<usize>,
    /// The next source row to put into the ring.
    next: usize,
    /// One row of the view before its columns are resized, as three lines.
    lines: Aligned,
    /// The number of values of a line.
    pitch: usize,
}

impl Resizer {
    /// Prepares the resize of `crop` to `size` x `size` pixels, mirrored left to right if `flip`.
    pub fn prepare(&mut self, crop: CropBox, size: u32, flip: bool) {
        self.rows.prepare(crop.height, size, 1.0);
        self.unsorted.prepare(crop.width, size, 1.0 / 255.0);
        let (taps, size) = (&self.unsorted, size as usize);
        self.columns.prepare(size, |x| taps.of(if flip { size - 1 - x } else { x }));
        self.pitch = round_up(crop.width as usize);
        // Windows move forwards, except for a step back where a weight is exactly 0. With a power of two, finding a
        // row's place needs no division.
        self.slots = (self.rows.most() + 2).next_power_of_two();
        self.ring.resize(self.slots * 3 * self.pitch);
        self.next = 0;
        // Vectors may read past the end of the last line, where values are ignored.
        self.lines.resize(2 * self.pitch + self.pitch.max(self.columns.extent()));
    }

    /// Writes row `y` of the view, clipped to [0, 1], into `rows`, which have room for whole blocks. Must be
    /// called for each row in order.
    #[inline(always)]
    pub fn row<V: Vector>(&mut self, image: ImageRef<'_>, crop: CropBox, y: usize, rows: [&mut [f32]; 3]) {
        let (first, weights) = self.rows.of(y);
        let (end, values) = (first + weights.len(), 3 * self.pitch);
        let place = |row: usize| (row & (self.slots - 1)) * values;
        for row in self.next..end {
            let start = 3 * ((crop.top as usize + row) * image.width as usize + crop.left as usize);
            let source = &image.pixels[start..start + 3 * crop.width as usize];
            widen_row::<V>(source, &mut self.ring[place(row)..][..values], self.pitch);
        }
        self.next = self.next.max(end);
        self.blended.clear();
        self.blended.extend((first..end).map(place));
        blend_rows::<V>(&self.ring, &self.blended, weights, &mut self.lines[..values]);
        blend_columns::<V>(&self.lines, self.pitch, &self.columns, rows);
    }
}
