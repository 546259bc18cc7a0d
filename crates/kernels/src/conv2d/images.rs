//! Batches of images: cutting them into pieces, and windows into them that may reach beyond their edges.

use crate::{Conv2dGeometry, Element};
use std::ops::Range;

/// The shape of each image of a batch, channels last.
#[derive(Clone, Copy, Debug)]
pub struct Images {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Images {
    pub fn input(g: &Conv2dGeometry) -> Images {
        Images { height: g.in_height, width: g.in_width, channels: g.in_channels }
    }

    pub fn output(g: &Conv2dGeometry) -> Images {
        Images { height: g.out_height(), width: g.out_width(), channels: g.out_channels }
    }

    /// The number of values in an image.
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels
    }
}

/// Cuts the pixels of a batch into pieces, each of some whole images or of some rows of one image.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    batch: usize,
    height: usize,
    images: usize,
    rows: usize,
}

/// One piece: images `image..image + images`, rows `row..row + rows` of each.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub image: usize,
    pub images: usize,
    pub row: usize,
    pub rows: usize,
}

impl Cut {
    /// Cuts a batch of images of `height` times `width` into pieces of about `pixels` pixels.
    pub fn new(batch: usize, height: usize, width: usize, pixels: usize) -> Cut {
        let strips = (height * width).div_ceil(pixels.max(1)).min(height);
        Cut {
            batch,
            height,
            images: (pixels / (height * width)).clamp(1, batch),
            rows: height.div_ceil(strips),
        }
    }

    /// Cuts a batch of images of `height` rows into pieces of `images` images, and these by rows if there are fewer than
    /// `pieces`.
    pub fn at_least(batch: usize, height: usize, images: usize, pieces: usize) -> Cut {
        let images = images.clamp(1, batch);
        let strips = pieces.div_ceil(batch.div_ceil(images)).clamp(1, height);
        Cut { batch, height, images, rows: height.div_ceil(strips) }
    }

    fn strips(&self) -> usize {
        self.height.div_ceil(self.rows)
    }

    /// The number of pieces.
    pub fn pieces(&self) -> usize {
        self.batch.div_ceil(self.images) * self.strips()
    }

    /// The pieces of part `part` of `parts`.
    pub fn part(&self, part: usize, parts: usize) -> Range<usize> {
        let pieces = self.pieces();
        part * pieces / parts..(part + 1) * pieces / parts
    }

    /// Piece number `index`.
    pub fn piece(&self, index: usize) -> Piece {
        let image = index / self.strips() * self.images;
        let row = index % self.strips() * self.rows;
        Piece {
            image,
            images: self.images.min(self.batch - image),
            row,
            rows: self.rows.min(self.height - row),
        }
    }
}

/// A rectangle of pixels of every image. Pixels that lie outside the image are 0.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub row: isize,
    pub column: isize,
    pub rows: usize,
    pub columns: usize,
}

impl Window {
    /// Whether all pixels of the window lie inside the image.
    pub fn inside(&self, shape: &Images) -> bool {
        self.row >= 0
            && self.column >= 0
            && self.row as usize + self.rows <= shape.height
            && self.column as usize + self.columns <= shape.width
    }

    /// Copies all channels of the window of every image to `to`, (image, row, column, channel), each pixel padded
    /// with zeros to `width` channels.
    pub fn copy<E: Element>(&self, images: &[E], shape: &Images, width: usize, to: &mut [E]) {
        let inside = self.columns_inside(shape);
        for (index, row) in to.chunks_exact_mut(self.columns * width).enumerate() {
            let Some(from) = self.row_of(images, shape, index / self.rows, index % self.rows) else {
                row.fill(E::default());
                continue;
            };
            row[..inside.start * width].fill(E::default());
            row[inside.end * width..].fill(E::default());
            let row = &mut row[inside.start * width..inside.end * width];
            if width == shape.channels {
                row.copy_from_slice(from);
                continue;
            }
            for (to, from) in row.chunks_exact_mut(width).zip(from.chunks_exact(shape.channels)) {
                to[..from.len()].copy_from_slice(from);
                to[from.len()..].fill(E::default());
            }
        }
    }

    /// Copies some channels of the window as units to `to`, (unit of images, row, column, channel): a unit holds the
    /// same channel of `E::PER_UNIT` images, or zero for a missing image.
    #[inline(always)]
    pub fn copy_units<E: Element>(
        &self,
        images: &[E],
        shape: &Images,
        channels: Range<usize>,
        to: &mut [f32],
    ) {
        let len = channels.len();
        let inside = self.columns_inside(shape);
        for (index, row) in to.chunks_exact_mut(self.columns * len).enumerate() {
            let image = index / self.rows * E::PER_UNIT;
            let h = index % self.rows;
            let Some(first) = self.row_of(images, shape, image, h) else {
                row.fill(0.0);
                continue;
            };
            row[..inside.start * len].fill(0.0);
            row[inside.end * len..].fill(0.0);
            let row = &mut row[inside.start * len..inside.end * len];
            let second = if E::PER_UNIT == 2 { self.row_of(images, shape, image + 1, h) } else { None };
            join_row(first, second, shape.channels, channels.clone(), row);
        }
    }

    /// The columns of the window that lie inside the image, counted from the window's first.
    fn columns_inside(&self, shape: &Images) -> Range<usize> {
        let left = ((-self.column).max(0) as usize).min(self.columns);
        let start = self.column.max(0) as usize;
        left..left + (self.columns - left).min(shape.width.saturating_sub(start))
    }

    /// All channels of the pixels in row `row` of the window that lie inside the image; `None` if there are none or
    /// there is no such image.
    fn row_of<'i, E>(&self, images: &'i [E], shape: &Images, image: usize, row: usize) -> Option<&'i [E]> {
        let h = usize::try_from(self.row + row as isize).ok().filter(|&h| h < shape.height)?;
        let columns = self.columns_inside(shape);
        if columns.is_empty() || (image + 1) * shape.len() > images.len() {
            return None;
        }
        let start = self.column.max(0) as usize;
        let from = image * shape.len() + (h * shape.width + start) * shape.channels;
        Some(&images[from..][..columns.len() * shape.channels])
    }
}

/// The images of a piece of a batch that is counted in units of images; the last unit may lack its second image.
pub fn of_units<'i, E: Element>(batch: &'i [E], shape: &Images, piece: &Piece) -> &'i [E] {
    let start = piece.image * E::PER_UNIT * shape.len();
    let end = start + piece.images * E::PER_UNIT * shape.len();
    &batch[start..end.min(batch.len())]
}

/// Joins the `chosen` channels of the pixels of a row, or of the same row in two images, into units.
#[inline(always)]
fn join_row<E: Element>(
    first: &[E],
    second: Option<&[E]>,
    channels: usize,
    chosen: Range<usize>,
    to: &mut [f32],
) {
    if chosen.len() == channels {
        return join(first, second, to);
    }
    for (pixel, to) in to.chunks_exact_mut(chosen.len()).enumerate() {
        let at = pixel * channels + chosen.start;
        join(&first[at..][..chosen.len()], second.map(|second| &second[at..][..chosen.len()]), to);
    }
}

/// Joins values of two images into units, with zeros if there is no second image.
#[inline(always)]
pub fn join<E: Element>(first: &[E], second: Option<&[E]>, to: &mut [f32]) {
    let (first, first_rest) = first.as_chunks::<JOINED>();
    let (to, to_rest) = to.as_chunks_mut::<JOINED>();
    match second {
        Some(second) => {
            let (second, second_rest) = second.as_chunks::<JOINED>();
            for (to, (a, b)) in to.iter_mut().zip(first.iter().zip(second)) {
                *to = std::array::from_fn(|i| E::unit([a[i], b[i]]));
            }
            for (to, (a, b)) in to_rest.iter_mut().zip(first_rest.iter().zip(second_rest)) {
                *to = E::unit([*a, *b]);
            }
        }
        None => {
            let alone = |a: E| E::unit([a, E::default()]);
            to.iter_mut().zip(first).for_each(|(to, a)| *to = a.map(alone));
            to_rest.iter_mut().zip(first_rest).for_each(|(to, a)| *to = alone(*a));
        }
    }
}

/// Values joined at a time: one vector of the widest registers.
const JOINED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// Checks that the pieces of a cut hold every row of every image once.
    fn check_covers(cut: &Cut) {
        let mut seen = vec![0; cut.batch * cut.height];
        for piece in (0..cut.pieces()).map(|i| cut.piece(i)) {
            for image in piece.image..piece.image + piece.images {
                for row in piece.row..piece.row + piece.rows {
                    seen[image * cut.height + row] += 1;
                }
            }
        }
        assert!(seen.iter().all(|&times| times == 1), "{cut:?}");
    }

    #[test]
    fn pieces_cover_every_row_of_every_image_once() {
        for (batch, height, width, pixels) in
            [(3, 32, 32, 200), (7, 4, 4, 40), (1, 1, 500, 96), (5, 9, 9, 1), (2, 7, 7, 1000)]
        {
            let cut = Cut::new(batch, height, width, pixels);
            check_covers(&cut);
            assert!(cut.images == 1 || cut.rows == height);
        }
        for (batch, height, images, pieces) in
            [(256, 4, 32, 8), (16, 7, 16, 8), (33, 5, 16, 8), (1, 3, 16, 8), (9, 4, 16, 2)]
        {
            let cut = Cut::at_least(batch, height, images, pieces);
            check_covers(&cut);
            assert!(cut.pieces() >= pieces.min(height), "{cut:?}");
        }
    }

    #[test]
    fn a_window_reaches_beyond_the_image() {
        let shape = Images { height: 2, width: 2, channels: 2 };
        let images: Vec<f32> = (1..=8).map(|v| v as f32).collect();
        let window = Window { row: -1, column: 1, rows: 3, columns: 2 };
        let mut to = vec![9.0; 6];
        window.copy_units(&images, &shape, 1..2, &mut to);
        assert_eq!(to, [0.0, 0.0, 4.0, 0.0, 8.0, 0.0]);
        let mut to = vec![9.0; 18];
        window.copy(&images, &shape, 3, &mut to);
        let row = |a, b| [a, b, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(to, [row(0.0, 0.0), row(3.0, 4.0), row(7.0, 8.0)].concat());
        assert!(!window.inside(&shape));
    }

    #[test]
    fn bf16_images_are_joined_in_twos() {
        let shape = Images { height: 1, width: 2, channels: 2 };
        let images: Vec<bf16> = (1..=12).map(|v| bf16::narrow(v as f32)).collect();
        let window = Window { row: 0, column: 0, rows: 1, columns: 3 };
        let mut to = vec![9.0; 6];
        window.copy_units(&images, &shape, 1..2, &mut to);
        let pair = |a: f32, b: f32| bf16::unit([a, b].map(bf16::narrow));
        assert_eq!(to, [pair(2.0, 6.0), pair(4.0, 8.0), 0.0, pair(10.0, 0.0), pair(12.0, 0.0), 0.0]);
        window.copy_units(&images, &shape, 0..2, &mut [0.0; 12]);
    }
}
