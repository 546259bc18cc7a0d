//! The layout of a piece's source pixels in which consecutive places read at equal distances.
//!
//! Rows are as long as the image's rows with the widest reach of the taps once beside them, not twice: what a tap reads
//! left of a row are the zeros at the end of the row before. In the same way images follow each other. With a step of t
//! between output pixels, rows are kept in t planes by their number modulo t, so that the rows that a tap reads follow
//! each other; their length is a multiple of t, so that output rows do too.

use std::ops::Range;

use super::super::class::{PerTap, Tap};
use super::super::images::{Images, Piece};

/// Stands for the index of the pixel at a place where there is none.
pub const NOWHERE: usize = usize::MAX;

/// The layout for one piece. Lengths are in values, of any type; a pixel has `width` of them.
#[derive(Clone, Debug)]
pub struct Lattice {
    /// The step from one output pixel to the next, in the pixels of the lattice.
    step: usize,
    /// The step between the source's pixels that are copied, and the first of them relative to the piece's first.
    sample: usize,
    origin: (isize, isize),
    /// Pixels in a row, a multiple of the step.
    columns: usize,
    /// Rows of an image, a multiple of the step, and rows before the first image, likewise.
    rows: usize,
    top: usize,
    /// Pixels before the first row of each plane.
    left: usize,
    width: usize,
    images: usize,
    /// Output rows and columns of each image.
    output: (usize, usize),
}

impl Lattice {
    /// The layout for the images of `piece`, whose rows are output rows of `columns` pixels, `step` apart in images of
    /// shape `from`; `width` is the number of values in a pixel of the lattice.
    pub fn new(
        taps: &[Tap],
        step: usize,
        from: &Images,
        piece: &Piece,
        columns: usize,
        width: usize,
    ) -> Lattice {
        let output = (piece.rows, columns);
        if let [tap] = taps {
            // Each output pixel reads one pixel: only these are copied.
            return Lattice {
                step: 1,
                sample: step,
                origin: (tap.row, tap.column),
                columns,
                rows: piece.rows,
                top: 0,
                left: 0,
                width,
                images: piece.images,
                output,
            };
        }
        let reach = |distances: PerTap<isize>, outputs: usize, size: usize| {
            let before = distances.iter().map(|d| (-d).max(0) as usize).max().unwrap_or(0);
            let after = distances.iter().map(|d| (d + 1).max(0) as usize).max().unwrap_or(0);
            (before, (size + before).max((outputs - 1) * step + after.max(step)).next_multiple_of(step))
        };
        // One image may be a strip of it, whose neighbouring rows are pixels: no zeros need to follow it.
        let height = if piece.images == 1 { 0 } else { from.height };
        let (top, rows) = reach(taps.iter().map(|tap| tap.row).collect(), piece.rows, height);
        let (left, columns) = reach(taps.iter().map(|tap| tap.column).collect(), columns, from.width);
        Lattice {
            step,
            sample: 1,
            origin: (0, 0),
            columns,
            rows,
            top: top.next_multiple_of(step),
            left,
            width,
            images: piece.images,
            output,
        }
    }

    /// The number of places up to the last output pixel.
    pub fn places(&self) -> usize {
        let (rows, columns) = (self.rows / self.step, self.columns / self.step);
        ((self.images - 1) * rows + self.output.0 - 1) * columns + self.output.1
    }

    /// For each place what `value` says of its pixel (image, row, column), or `none` where there is no pixel.
    #[inline(always)]
    pub fn map<T: Copy>(&self, places: &mut [T], none: T, value: impl Fn(usize, usize, usize) -> T) {
        let (rows, columns) = (self.rows / self.step, self.columns / self.step);
        places.fill(none);
        for n in 0..self.images {
            for i in 0..self.output.0 {
                let line = &mut places[(n * rows + i) * columns..][..self.output.1];
                line.iter_mut().enumerate().for_each(|(j, place)| *place = value(n, i, j));
            }
        }
    }

    /// The length of a pixel.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The distance from what a place reads to what the next reads.
    pub fn pitch(&self) -> usize {
        self.step * self.width
    }

    /// The length of the whole lattice.
    pub fn len(&self) -> usize {
        self.step * self.plane()
    }

    fn plane(&self) -> usize {
        (self.left + (self.top + self.images * self.rows) / self.step * self.columns) * self.width
    }

    /// What the first place reads by each tap.
    pub fn offsets(&self, taps: &[Tap]) -> PerTap<usize> {
        let offset = |tap: &Tap| {
            let (row, column) = (tap.row - self.origin.0, tap.column - self.origin.1);
            let row = (row + self.top as isize) as usize;
            let pixel = (self.left + row / self.step * self.columns) as isize + column;
            row % self.step * self.plane() + pixel as usize * self.width
        };
        taps.iter().map(offset).collect()
    }

    /// Fills `to`, of length `len`, for `piece` of images of shape `from`: `copy` writes columns of a row of an image
    /// of the piece, (image, row, columns, values), and all else becomes 0.
    #[inline(always)]
    pub fn fill<T: Copy + Default>(
        &self,
        from: &Images,
        piece: &Piece,
        to: &mut [T],
        copy: impl Fn(usize, usize, &Columns, &mut [T]),
    ) {
        let columns = self.copied_columns(from);
        let (begin, end) = (columns.to.start * self.width, columns.to.end * self.width);
        for (phase, plane) in to.chunks_exact_mut(self.plane()).enumerate() {
            let (margin, lines) = plane.split_at_mut(self.left * self.width);
            margin.fill(T::default());
            for (index, line) in lines.chunks_exact_mut(self.columns * self.width).enumerate() {
                let row = (index * self.step + phase) as isize - self.top as isize;
                let image = (row.max(0) as usize / self.rows).min(self.images - 1);
                let within = row - (image * self.rows) as isize;
                let first = (piece.row * self.step * self.sample) as isize + self.origin.0;
                let row = usize::try_from(first + within * self.sample as isize);
                let Some(row) = row.ok().filter(|&row| row < from.height && begin < end) else {
                    line.fill(T::default());
                    continue;
                };
                line[..begin].fill(T::default());
                copy(image, row, &columns, &mut line[begin..end]);
                line[end..].fill(T::default());
            }
        }
    }

    /// The columns of images of shape `from` that the lattice holds.
    fn copied_columns(&self, from: &Images) -> Columns {
        let source = |column: usize| (column * self.sample) as isize + self.origin.1;
        let inside = |&column: &usize| (0..from.width as isize).contains(&source(column));
        let start = (0..self.columns).find(inside).unwrap_or(self.columns);
        let end = (start..self.columns).find(|column| !inside(column)).unwrap_or(self.columns);
        Columns { to: start..end, first: source(start).max(0) as usize, step: self.sample }
    }
}

/// Columns to copy: lattice column `to.start + i` is source column `first + i * step`.
#[derive(Clone, Debug)]
pub struct Columns {
    pub to: Range<usize>,
    pub first: usize,
    pub step: usize,
}

#[cfg(test)]
mod tests {
    use super::super::super::class::Class;
    use super::super::super::images::Cut;
    use super::super::super::testing::geometry;
    use super::*;
    use crate::Conv2dGeometry;

    /// What every pixel reads by every tap, through the lattice, is the source's pixel, or 0 beyond the image.
    fn check(g: &Conv2dGeometry, class: &Class, pixels: usize) {
        let from = class.from;
        let value = |n: usize, h: usize, w: usize| ((n * from.height + h) * from.width + w + 1) as f32;
        let cut = Cut::new(class.batch, class.rows, class.columns, pixels);
        for piece in (0..cut.pieces()).map(|index| cut.piece(index)) {
            let lattice = Lattice::new(&class.taps, class.step, &from, &piece, class.columns, 1);
            let mut values = vec![f32::NAN; lattice.len()];
            lattice.fill(&from, &piece, &mut values, |n, h, columns, to| {
                for (i, to) in to.iter_mut().enumerate() {
                    *to = value(piece.image + n, h, columns.first + i * columns.step);
                }
            });
            assert!(values.iter().all(|value| !value.is_nan()));
            let mut pixels = vec![None; lattice.places()];
            lattice.map(&mut pixels, None, |n, i, j| Some((n, i, j)));
            for (place, (n, i, j)) in pixels.iter().enumerate().filter_map(|(p, pixel)| Some((p, (*pixel)?)))
            {
                for (tap, offset) in class.taps.iter().zip(lattice.offsets(&class.taps)) {
                    let h = ((piece.row + i) * class.step) as isize + tap.row;
                    let w = (j * class.step) as isize + tap.column;
                    let inside =
                        (0..from.height as isize).contains(&h) && (0..from.width as isize).contains(&w);
                    let expected = if inside { value(piece.image + n, h as usize, w as usize) } else { 0.0 };
                    let got = values[offset + place * lattice.pitch()];
                    assert_eq!(got, expected, "{g:?}, {piece:?}, {:?}, {tap:?}", (n, i, j));
                }
            }
            let count = pixels.iter().flatten().count();
            assert_eq!(count, piece.images * piece.rows * class.columns);
        }
    }

    #[test]
    fn pixels_read_what_their_taps_say() {
        for g in [
            geometry(5, 4, 4, 1, 1, (3, 3), 1, 1),
            geometry(3, 7, 9, 1, 1, (3, 3), 2, 1),
            geometry(3, 8, 6, 1, 1, (1, 1), 2, 0),
            geometry(2, 9, 9, 1, 1, (1, 1), 3, 1),
            geometry(2, 10, 11, 1, 1, (7, 7), 2, 3),
            geometry(3, 2, 2, 1, 1, (5, 5), 1, 4),
            geometry(3, 6, 6, 1, 1, (2, 3), 3, 1),
            geometry(2, 9, 5, 1, 1, (3, 3), 3, 0),
            geometry(2, 6, 7, 1, 1, (3, 3), 1, 0),
            geometry(2, 1, 1, 1, 1, (3, 3), 1, 3),
            geometry(1, 2, 1, 1, 1, (1, 1), 2, 1),
        ] {
            for pixels in [1, 20, 64, 1000] {
                check(&g, &Class::forward(&g), pixels);
                for row in 0..g.stride.min(g.in_height) {
                    for column in 0..g.stride.min(g.in_width) {
                        let class = Class::input(&g, row, column);
                        if !class.taps.is_empty() {
                            check(&g, &class, pixels);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn zeros_are_shared_by_neighbours() {
        let g = geometry(10, 4, 4, 1, 1, (3, 3), 1, 1);
        let class = Class::forward(&g);
        let piece = Cut::new(10, 4, 4, 1000).piece(0);
        let lattice = Lattice::new(&class.taps, 1, &class.from, &piece, 4, 1);
        assert_eq!(lattice.places(), 10 * 5 * 5 - 5 - 1);
    }
}
