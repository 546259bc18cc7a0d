//! Finishes rows: upsamples chroma and converts colours (libjpeg-turbo's `jdsample.c` and `jdcolor.c`).

use std::ops::Range;

use simclr_isa::Isa;

use crate::planes::{MARGIN, Planes};
use crate::simd;

/// The chroma of one row, upsampled to the resolution of luma.
#[derive(Default)]
pub(crate) struct Lines([Vec<u8>; 2]);

/// The shape of an image's samples.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub width: usize,
    pub height: usize,
    pub grey: bool,
    /// Luma samples per chroma sample, across and down.
    pub luma: (usize, usize),
}

impl Shape {
    /// Width and height of the chroma planes.
    pub fn chroma(&self) -> (usize, usize) {
        (self.width.div_ceil(self.luma.0), self.height.div_ceil(self.luma.1))
    }
}

impl Lines {
    pub fn prepare(&mut self, width: usize) {
        for line in &mut self.0 {
            line.resize(line.len().max(width + MARGIN), 0);
        }
    }

    /// Writes `columns` of row `y` to `out`, which begins with the pixel of the first column. Bytes of `out` after
    /// the last column may be overwritten.
    pub fn finish(
        &mut self,
        isa: Isa,
        shape: Shape,
        planes: &Planes,
        y: usize,
        columns: Range<usize>,
        out: &mut [u8],
    ) {
        let [luma, chroma @ ..] = planes;
        let count = columns.len();
        let luma = luma.row(y, columns.start as isize);
        if shape.grey {
            for (pixel, &value) in out.as_chunks_mut::<3>().0.iter_mut().zip(&luma[..count]) {
                *pixel = [value; 3];
            }
            return;
        }
        let (across, down) = shape.luma;
        if (across, down) == (1, 1) {
            let [cb, cr] = [0, 1].map(|which: usize| chroma[which].row(y, columns.start as isize));
            return simd::to_rgb(isa, luma, cb, cr, count, out);
        }
        // The chroma samples from that of the first column to that of the last.
        let first = columns.start / across;
        let samples = columns.end.div_ceil(across) - first;
        let (width, height) = shape.chroma();
        let near = y / down;
        let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(height - 1) };
        for (plane, line) in chroma.iter().zip(&mut self.0) {
            let line = &mut line[..across * samples];
            let [near, far] = [near, far].map(|row| plane.row(row, first as isize - 1));
            match (across, down) {
                // A plane this narrow is not interpolated.
                (2, _) if width <= 2 => simd::repeat_across(&near[1..], line),
                (2, 1) => simd::upsample_across(isa, near, line),
                (2, _) => simd::upsample_both(isa, near, far, line),
                _ => simd::upsample_down(isa, &near[1..], &far[1..], 1 + (y & 1) as u16, line),
            }
        }
        let skipped = columns.start - across * first;
        let [cb, cr] = &self.0;
        simd::to_rgb(isa, luma, &cb[skipped..], &cr[skipped..], count, out);
    }
}
