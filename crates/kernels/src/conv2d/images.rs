//! Batches of images: how they are cut into pieces, and windows into them that may reach beyond their edges.

use crate::Conv2dGeometry;
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

    /// Numbers in an image.
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels
    }
}

/// How the pixels of a batch are cut into pieces: some whole images each, or some rows of one.
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
    /// Pieces of about `pixels` pixels of a batch of images of `height` times `width`.
    pub fn new(batch: usize, height: usize, width: usize, pixels: usize) -> Cut {
        let strips = (height * width).div_ceil(pixels.max(1)).min(height);
        Cut {
            batch,
            height,
            images: (pixels / (height * width)).clamp(1, batch),
            rows: height.div_ceil(strips),
        }
    }

    fn strips(&self) -> usize {
        self.height.div_ceil(self.rows)
    }

    /// How many pieces there are.
    pub fn pieces(&self) -> usize {
        self.batch.div_ceil(self.images) * self.strips()
    }

    /// Piece `index` of them.
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

/// A rectangle of pixels of every image, some of which may lie outside and are 0.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub row: isize,
    pub column: isize,
    pub rows: usize,
    pub columns: usize,
}

impl Window {
    /// Whether all its pixels exist.
    pub fn inside(&self, shape: &Images) -> bool {
        self.row >= 0
            && self.column >= 0
            && self.row as usize + self.rows <= shape.height
            && self.column as usize + self.columns <= shape.width
    }

    /// Copies some channels of the window of every image to `to`, (image, row, column, channel).
    pub fn copy(&self, images: &[f32], shape: &Images, channels: Range<usize>, to: &mut [f32]) {
        let len = channels.len();
        let left = ((-self.column).max(0) as usize).min(self.columns);
        let start = self.column.max(0) as usize;
        let known = (self.columns - left).min(shape.width.saturating_sub(start));
        for (index, row) in to.chunks_exact_mut(self.columns * len).enumerate() {
            let image = index / self.rows;
            let h = self.row + (index % self.rows) as isize;
            if h < 0 || h as usize >= shape.height || known == 0 {
                row.fill(0.0);
                continue;
            }
            let from = image * shape.len() + (h as usize * shape.width + start) * shape.channels;
            let from = &images[from..][..known * shape.channels];
            let (before, rest) = row.split_at_mut(left * len);
            let (inside, after) = rest.split_at_mut(known * len);
            before.fill(0.0);
            after.fill(0.0);
            if len == shape.channels {
                inside.copy_from_slice(from);
            } else {
                for (to, from) in inside.chunks_exact_mut(len).zip(from.chunks_exact(shape.channels)) {
                    to.copy_from_slice(&from[channels.clone()]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_row_of_every_image_once() {
        for (batch, height, width, pixels) in
            [(3, 32, 32, 200), (7, 4, 4, 40), (1, 1, 500, 96), (5, 9, 9, 1), (2, 7, 7, 1000)]
        {
            let cut = Cut::new(batch, height, width, pixels);
            let mut seen = vec![0; batch * height];
            for piece in (0..cut.pieces()).map(|i| cut.piece(i)) {
                for image in piece.image..piece.image + piece.images {
                    for row in piece.row..piece.row + piece.rows {
                        seen[image * height + row] += 1;
                    }
                }
                assert!(piece.images == 1 || piece.rows == height);
            }
            assert!(seen.iter().all(|&times| times == 1));
        }
    }

    #[test]
    fn a_window_reaches_beyond_the_image() {
        let shape = Images { height: 2, width: 2, channels: 2 };
        let images: Vec<f32> = (1..=8).map(|v| v as f32).collect();
        let window = Window { row: -1, column: 1, rows: 3, columns: 2 };
        let mut to = vec![9.0; 6];
        window.copy(&images, &shape, 1..2, &mut to);
        assert_eq!(to, [0.0, 0.0, 4.0, 0.0, 8.0, 0.0]);
        assert!(!window.inside(&shape));
    }
}
