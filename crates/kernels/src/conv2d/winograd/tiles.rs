//! Tiles of 4 x 4 output pixels over a batch, and how to find their pixels.

use crate::Element;
use crate::conv2d::images::Images;
use crate::conv2d::tile::Pixels;
use crate::shared::SharedMut;
use crate::simd::{LINE, Simd};
use std::ops::Range;

/// Rows and columns of output pixels in a tile.
pub const SIDE: usize = 4;
/// Products for each tile and pair of channels: 6 x 6.
pub const PRODUCTS: usize = 36;
/// The tiles of a batch, numbered by image, row and column.
#[derive(Clone, Copy, Debug)]
pub struct Tiles {
    pub batch: usize,
    rows: usize,
    columns: usize,
}

impl Tiles {
    /// The tiles that cover the output.
    pub fn new(batch: usize, output: &Images) -> Tiles {
        Tiles { batch, rows: output.height.div_ceil(SIDE), columns: output.width.div_ceil(SIDE) }
    }

    pub fn len(&self) -> usize {
        self.batch * self.rows * self.columns
    }

    /// The image of tile `t`, and the row and column of its first output pixel.
    pub fn place(&self, t: usize) -> (usize, isize, isize) {
        let (image, t) = (t / (self.rows * self.columns), t % (self.rows * self.columns));
        let (row, column) = (t / self.columns * SIDE, t % self.columns * SIDE);
        (image, row as isize, column as isize)
    }
}

/// The offset of pixel (row, column) into the batch, if the pixel exists.
#[inline(always)]
fn offset(shape: &Images, image: usize, row: isize, column: isize) -> Option<usize> {
    let (h, w) = (usize::try_from(row).ok()?, usize::try_from(column).ok()?);
    (h < shape.height && w < shape.width)
        .then(|| image * shape.len() + (h * shape.width + w) * shape.channels)
}

/// Pointers to the N x N pixels from (row, column) on, or to `zeros`, one for each channel, for pixels outside.
#[inline(always)]
pub fn sources<E: Element, const N: usize>(
    images: &[E],
    shape: &Images,
    (image, row, column): (usize, isize, isize),
    zeros: &[E],
) -> [[*const E; N]; N] {
    assert!(zeros.len() >= shape.channels);
    let mut pixels = [[zeros.as_ptr(); N]; N];
    let last = (N - 1) as isize;
    let corners = (offset(shape, image, row, column), offset(shape, image, row + last, column + last));
    if let (Some(first), Some(last)) = corners {
        // All pixels are inside, by far the most frequent case in large images.
        let inside = images[first..last + shape.channels].as_ptr();
        for i in 0..N {
            for j in 0..N {
                pixels[i][j] = inside.wrapping_add((i * shape.width + j) * shape.channels);
            }
        }
        return pixels;
    }
    for (i, line) in pixels.iter_mut().enumerate() {
        for (j, pixel) in line.iter_mut().enumerate() {
            if let Some(at) = offset(shape, image, row + i as isize, column + j as isize) {
                *pixel = images[at..at + shape.channels].as_ptr();
            }
        }
    }
    pixels
}

/// Prefetches some channels of the pixels that the tile below reads beyond the N x N pixels from (row, column) on. The
/// hardware prefetcher misses them, since a tile reads short pieces of many rows.
#[inline(always)]
pub fn prefetch_below<S: Simd, E: Element, const N: usize>(
    simd: S,
    images: &[E],
    shape: &Images,
    (image, row, column): (usize, isize, isize),
    channels: Range<usize>,
) {
    let above = N - SIDE;
    for i in 0..SIDE {
        let pixel = (row + (N + i) as isize) * shape.width as isize + column + above as isize;
        let pixel = (image * shape.len()) as isize + pixel * shape.channels as isize;
        let row = images.as_ptr().wrapping_offset(pixel).wrapping_add(channels.start);
        // Pixels are contiguous if all their channels are wanted.
        let (pixels, values) = if channels.len() == shape.channels {
            (1, SIDE * channels.len())
        } else {
            (SIDE, channels.len())
        };
        for j in 0..pixels {
            let pixel = row.wrapping_add(j * shape.channels).cast::<f32>();
            for at in (0..values * size_of::<E>()).step_by(LINE) {
                simd.prefetch(pixel.wrapping_byte_add(at));
            }
        }
    }
}

/// Pointers to the pixels of an output tile, and how many of its rows and columns exist.
#[inline(always)]
pub fn destinations<E>(
    images: SharedMut<E>,
    shape: &Images,
    (image, row, column): (usize, isize, isize),
) -> ([[*mut E; SIDE]; SIDE], usize, usize) {
    let (row, column) = (row as usize, column as usize);
    let first = image * shape.len() + (row * shape.width + column) * shape.channels;
    let mut pixels = [[images.at(first); SIDE]; SIDE];
    for i in 0..SIDE {
        for j in 0..SIDE {
            pixels[i][j] = images.at(first + (i * shape.width + j) * shape.channels);
        }
    }
    (pixels, SIDE.min(shape.height - row), SIDE.min(shape.width - column))
}

/// Reads one vector of each pixel.
///
/// # Safety
///
/// The pointers must be valid for reading `lanes` numbers from `channel` on.
#[inline(always)]
pub unsafe fn load<S: Simd, E: Element, const N: usize>(
    simd: S,
    pixels: &[[*const E; N]; N],
    channel: usize,
    lanes: usize,
) -> [[S::V; N]; N] {
    let mut d = [[simd.splat(0.0); N]; N];
    for i in 0..N {
        for j in 0..N {
            // SAFETY: the caller's promise.
            d[i][j] = unsafe { E::load_some(simd, pixels[i][j].add(channel), lanes) };
        }
    }
    d
}

/// Writes the vectors of all products, `step` numbers apart.
///
/// If `step` is a constant at the call site, the 36 addresses need no registers; otherwise they cost as much as the
/// arithmetic.
///
/// # Safety
///
/// `to` must be valid for writing a vector at every multiple of `step` below `36 * step`.
#[inline(always)]
pub unsafe fn store_products<S: Simd>(simd: S, products: &[[S::V; 6]; 6], to: *mut f32, step: usize) {
    for i in 0..6 {
        for j in 0..6 {
            // SAFETY: the caller's promise.
            unsafe { simd.store(to.add((i * 6 + j) * step), products[i][j]) };
        }
    }
}

/// Reads what [`store_products`] writes.
///
/// # Safety
///
/// `from` must be valid for reading a vector at every multiple of `step` below `36 * step`.
#[inline(always)]
pub unsafe fn load_products<S: Simd>(simd: S, from: *const f32, step: usize) -> [[S::V; 6]; 6] {
    let mut products = [[simd.splat(0.0); 6]; 6];
    for i in 0..6 {
        for j in 0..6 {
            // SAFETY: the caller's promise.
            products[i][j] = unsafe { simd.load(from.add((i * 6 + j) * step)) };
        }
    }
    products
}

/// Iterates over rows of transformed tiles at fixed steps.
#[derive(Clone)]
pub struct Rows {
    pub left: usize,
    pub from: usize,
    pub from_step: usize,
    pub to: usize,
    pub to_step: usize,
}

impl Pixels for Rows {
    #[inline(always)]
    fn next(&mut self) -> (usize, usize) {
        let here = (self.from, self.to);
        self.left -= 1;
        self.from += self.from_step;
        self.to += self.to_step;
        here
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.left
    }
}
