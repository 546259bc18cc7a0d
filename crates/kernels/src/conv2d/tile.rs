//! The register tile of the direct convolution: P pixels by NV vectors of output channels.
//!
//! Source and weights consist of units of 32 bits, one f32 or two bf16 of neighbouring input channels. The tile sums in
//! f32 and writes the type of the destination.

use crate::Element;
use crate::shared::SharedMut;
use crate::simd::Simd;

/// A run of contiguous units in the source, at `offset` from a pixel's first unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub offset: usize,
    pub len: usize,
}

/// The arguments that all tiles of a loop over pixels share.
#[derive(Clone, Copy)]
pub struct Panel<'a> {
    /// The source units to multiply and sum, in the order of the packed weights.
    pub runs: &'a [Run],
    /// Packed weights: NV vectors for each unit of the runs.
    pub weights: &'a [f32],
    /// Output channels; they may fill the last vector only in part.
    pub channels: usize,
    /// Whether to add to the destination.
    pub resume: bool,
}

/// An iterator over the places that each pixel reads from and writes to.
pub trait Pixels {
    /// Offsets into source and destination of the next pixel; called at most `len` times.
    fn next(&mut self) -> (usize, usize);
    /// The number of pixels left.
    fn len(&self) -> usize;
}

/// Computes `channels` output channels of every pixel from units of E, and writes them as D.
///
/// # Safety
///
/// For every pixel (s, d): `src` is valid for reading at `s + run.offset + i`, i < `run.len`, for all runs; `dst`
/// is valid for reading and writing `d..d + channels`, which nothing else may use.
#[inline(always)]
pub unsafe fn over_pixels<S: Simd, E: Element, D: Element>(
    simd: S,
    panel: Panel,
    src: *const f32,
    dst: SharedMut<D>,
    pixels: impl Pixels,
) {
    let vectors = panel.channels.div_ceil(S::LANES);
    let products: usize = panel.runs.iter().map(|run| run.len).sum();
    assert!(panel.weights.len() >= products * vectors * S::LANES, "packed weights are too short");
    // The tiles fill the registers: 32 with 16 lanes, 16 with fewer.
    // SAFETY: the caller's promise is that of `tiles`; the assertion above covers the weights.
    unsafe {
        match (S::LANES, vectors) {
            (16, 4) => tiles::<S, E, D, 6, 4>(simd, panel, src, dst, pixels),
            (16, 3) => tiles::<S, E, D, 8, 3>(simd, panel, src, dst, pixels),
            (16, 2) => tiles::<S, E, D, 12, 2>(simd, panel, src, dst, pixels),
            (_, 2) => tiles::<S, E, D, 6, 2>(simd, panel, src, dst, pixels),
            (_, 1) => tiles::<S, E, D, 12, 1>(simd, panel, src, dst, pixels),
            _ => unreachable!("blocks have at most {} vectors", max_vectors(S::LANES)),
        }
    }
}

/// The most vectors of output channels, of `lanes` numbers each, in a tile.
pub const fn max_vectors(lanes: usize) -> usize {
    if lanes == 16 { 4 } else { 2 }
}

#[inline(always)]
unsafe fn tiles<S: Simd, E: Element, D: Element, const P: usize, const NV: usize>(
    simd: S,
    panel: Panel,
    src: *const f32,
    dst: SharedMut<D>,
    mut pixels: impl Pixels,
) {
    // The last tile computes its missing pixels from its first pixel's input and writes them here.
    let mut spare = [D::default(); 64];
    let spare: *mut D = spare.as_mut_ptr();
    while pixels.len() > 0 {
        let mut from = [src; P];
        let mut to = [spare; P];
        for p in 0..P {
            if pixels.len() == 0 {
                from[p] = from[0];
                continue;
            }
            let (s, d) = pixels.next();
            from[p] = src.wrapping_add(s);
            to[p] = dst.at(d);
        }
        // SAFETY: the caller vouches for the pointers, except for `spare`, which holds NV * LANES <= 64 numbers.
        unsafe { tile::<S, E, D, P, NV>(simd, &panel, from, to) }
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, E: Element, D: Element, const P: usize, const NV: usize>(
    simd: S,
    panel: &Panel,
    src: [*const f32; P],
    dst: [*mut D; P],
) {
    let last = panel.channels - (NV - 1) * S::LANES;
    let mut acc = [[simd.splat(0.0); NV]; P];
    // SAFETY: `over_pixels` states what makes these pointers valid; the weights are read in order, NV vectors for each
    // unit of the runs, which its assertion covers.
    unsafe {
        let mut weights = panel.weights.as_ptr();
        for run in panel.runs {
            let mut from = src;
            for p in 0..P {
                from[p] = src[p].add(run.offset);
            }
            for i in 0..run.len {
                let mut w = [simd.splat(0.0); NV];
                for v in 0..NV {
                    w[v] = simd.load(weights.add(v * S::LANES));
                }
                for p in 0..P {
                    // A unit of bf16 need not be aligned as an f32.
                    let x = simd.splat(from[p].add(i).read_unaligned());
                    for v in 0..NV {
                        acc[p][v] = E::multiply_units(simd, x, w[v], acc[p][v]);
                    }
                }
                weights = weights.add(NV * S::LANES);
            }
        }
        // The destination's value is added last: short sums of sums have less rounding error than one long sum.
        if panel.resume {
            for p in 0..P {
                for v in 0..NV - 1 {
                    acc[p][v] = simd.add(acc[p][v], D::load(simd, dst[p].add(v * S::LANES)));
                }
                let before = D::load_first(simd, dst[p].add((NV - 1) * S::LANES), last);
                acc[p][NV - 1] = simd.add(acc[p][NV - 1], before);
            }
        }
        if last == S::LANES {
            for p in 0..P {
                for v in 0..NV {
                    D::store(simd, dst[p].add(v * S::LANES), acc[p][v]);
                }
            }
        } else {
            for p in 0..P {
                for v in 0..NV - 1 {
                    D::store(simd, dst[p].add(v * S::LANES), acc[p][v]);
                }
                D::store_first(simd, dst[p].add((NV - 1) * S::LANES), acc[p][NV - 1], last);
            }
        }
    }
}
