//! The working form of a view: three planes of `f32` in [0, 1], red, green, blue, each row-major.

use crate::simd::{Aligned, BLOCK, each, round_up};

/// Three planes of `side` x `side` values, their rows padded to whole blocks. The values of the padding
/// are arbitrary, but never NaN.
#[derive(Debug, Clone, Default)]
pub(crate) struct Planes {
    side: usize,
    pitch: usize,
    values: Aligned,
}

impl Planes {
    /// Makes room for a view of `side` x `side` pixels.
    pub fn prepare(&mut self, side: usize) {
        self.side = side;
        self.pitch = round_up(side);
        self.values.resize(3 * side * self.pitch);
    }

    /// The side of the view in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The number of values of a padded row.
    pub fn pitch(&self) -> usize {
        self.pitch
    }

    /// The three planes with their padding.
    #[inline(always)]
    pub fn split_mut(&mut self) -> [&mut [f32]; 3] {
        let plane = self.side * self.pitch;
        let (red, rest) = self.values.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        [red, green, blue]
    }

    /// Every row of every plane, without the padding.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let side = self.side;
        self.values.chunks_exact_mut(self.pitch).map(move |row| &mut row[..side])
    }

    /// Sets each pixel (x, y) to the old pixel at `from(x, y)`, or to black where that is `None`. `spare` takes a copy
    /// of the old values.
    pub fn resample(&mut self, spare: &mut Vec<f32>, from: impl Fn(usize, usize) -> Option<(usize, usize)>) {
        let (side, pitch) = (self.side, self.pitch);
        for plane in self.split_mut() {
            spare.clear();
            spare.extend_from_slice(plane);
            for y in 0..side {
                for x in 0..side {
                    plane[y * pitch + x] = from(x, y).map_or(0.0, |(x, y)| spare[y * pitch + x]);
                }
            }
        }
    }

    /// Row `y` of each plane, with its padding.
    #[inline(always)]
    pub fn row_mut(&mut self, y: usize) -> [&mut [f32]; 3] {
        let (at, pitch) = (y * self.pitch, self.pitch);
        each!(self.split_mut(), plane => &mut plane[at..at + pitch])
    }

    /// For the last block of a row: 1 where a lane is in the view, 0 in the padding.
    pub fn mask(&self) -> [f32; BLOCK] {
        let inside = self.side - (self.pitch - BLOCK);
        std::array::from_fn(|lane| if lane < inside { 1.0 } else { 0.0 })
    }
}

/// A value in [0, 1] as one of 256 levels, rounded half to even.
pub(crate) fn level(value: f32) -> usize {
    (value * 255.0).round_ties_even() as usize & 0xff
}
