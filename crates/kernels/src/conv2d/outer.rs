//! The register tile of the gradient of the weights: sums over pixels of P output channels times NV vectors of units
//! of 32 bits. A unit is the f32 of a pixel, or the two bf16 of the same pixel in two images.

use crate::Element;
use crate::simd::Simd;

/// Returns the tile (P, NV) that computes the fewest numbers beyond `out_channels` times `len`.
pub fn best_tile(out_channels: usize, len: usize, lanes: usize) -> (usize, usize) {
    // All keep enough sums in registers, 32 with 16 lanes and 16 with fewer, to hide the latency of additions. Of equal
    // tiles the first is taken, which is the fastest; the last waits for its loads, one for each product.
    let tiles: &[(usize, usize)] =
        if lanes == 16 { &[(8, 3), (8, 2), (6, 4), (12, 2), (16, 1)] } else { &[(6, 2), (12, 1)] };
    let computed =
        |&&(p, v): &&(usize, usize)| out_channels.next_multiple_of(p) * len.next_multiple_of(v * lanes);
    tiles.iter().min_by_key(computed).copied().unwrap_or(tiles[0])
}

/// Work that is written once for all register tiles.
pub trait Tiled {
    /// Does the work with tiles (P, NV). Must be `#[inline(always)]`, to be compiled for its caller's instruction set.
    fn run<S: Simd, const P: usize, const NV: usize>(self, simd: S);
}

/// Runs `work` with a tile returned by [`best_tile`].
#[inline(always)]
pub fn with_tile<S: Simd>(simd: S, tile: (usize, usize), work: impl Tiled) {
    match (S::LANES, tile) {
        (16, (8, 3)) => work.run::<S, 8, 3>(simd),
        (16, (6, 4)) => work.run::<S, 6, 4>(simd),
        (16, (12, 2)) => work.run::<S, 12, 2>(simd),
        (16, (8, 2)) => work.run::<S, 8, 2>(simd),
        (16, (16, 1)) => work.run::<S, 16, 1>(simd),
        (_, (6, 2)) => work.run::<S, 6, 2>(simd),
        (_, (12, 1)) => work.run::<S, 12, 1>(simd),
        (_, tile) => unreachable!("tile {tile:?} is not planned for {} lanes", S::LANES),
    }
}

/// The layout of the pixels to sum over: images, rows and columns.
pub struct Walk {
    /// The vectors of the first pixel, and the distances to the next image, row and pixel.
    pub x: *const f32,
    pub image: usize,
    pub line: usize,
    pub pixel: usize,
    /// Numbers of images, of rows in each, and of columns in each row.
    pub images: usize,
    pub rows: usize,
    pub columns: usize,
    /// The output channels of the first pixel, and the distance to those of the next pixel.
    pub dy: *const f32,
    pub dy_pixel: usize,
}

/// Computes P x NV vectors of sums of `dy[pixel][p] * x[pixel][v]` over all pixels, and adds them to `sums` if
/// `resume`, else overwrites `sums`.
///
/// # Safety
///
/// Every pixel of `walk` must have NV vectors and P numbers to read, and `sums` P * NV vectors to read and write.
#[inline(always)]
pub unsafe fn tile<S: Simd, E: Element, const P: usize, const NV: usize>(
    simd: S,
    walk: &Walk,
    sums: *mut f32,
    resume: bool,
) {
    let mut acc = [[simd.splat(0.0); NV]; P];
    let mut dy = walk.dy;
    // SAFETY: the caller's promises; the pointers move by the distances of `walk`, and are not read after moving past
    // the last pixel.
    unsafe {
        for image in 0..walk.images {
            for row in 0..walk.rows {
                let mut x = walk.x.add(image * walk.image + row * walk.line);
                for _ in 0..walk.columns {
                    let mut run = [simd.splat(0.0); NV];
                    for v in 0..NV {
                        run[v] = simd.load(x.add(v * S::LANES));
                    }
                    for p in 0..P {
                        let dy = simd.splat(*dy.add(p));
                        for v in 0..NV {
                            acc[p][v] = E::multiply_units(simd, dy, run[v], acc[p][v]);
                        }
                    }
                    dy = dy.wrapping_add(walk.dy_pixel);
                    x = x.wrapping_add(walk.pixel);
                }
            }
        }
        // Previous sums are added last: short sums of sums have less rounding error than one long sum.
        for p in 0..P {
            for v in 0..NV {
                let sum = sums.add((p * NV + v) * S::LANES);
                if resume {
                    acc[p][v] = simd.add(acc[p][v], simd.load(sum));
                }
                simd.store(sum, acc[p][v]);
            }
        }
    }
}
