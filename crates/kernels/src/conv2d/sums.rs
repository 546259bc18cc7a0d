//! Per-channel sums of a convolution's output, taken while it is still in the cache.

use crate::Element;
use crate::simd::Simd;

/// Pixels summed in f32 before their sum is added to an f64 sum.
const BLOCK: usize = 64;
/// The most channels summed at a time: four of the widest vectors.
const BUFFERED: usize = 64;

/// Writes [sum per channel, sum of squares per channel] of `y`, whose pixels have `sums.len() / 2` channels.
#[inline(always)]
pub fn channel_sums<S: Simd, E: Element>(simd: S, y: &[E], sums: &mut [f64]) {
    let channels = sums.len() / 2;
    assert_eq!(y.len() % channels, 0, "whole pixels");
    sums.fill(0.0);
    for block in y.chunks(BLOCK * channels) {
        let mut first = 0;
        while first < channels {
            // Four vectors at a time hide the latency of the additions.
            if channels - first >= 4 * S::LANES {
                add::<S, E, 4>(simd, block, (first, 4 * S::LANES), sums);
                first += 4 * S::LANES;
            } else {
                let here = S::LANES.min(channels - first);
                add::<S, E, 1>(simd, block, (first, here), sums);
                first += here;
            }
        }
    }
}

/// Adds the sums of `here` channels, from channel `first` on.
#[inline(always)]
fn add<S: Simd, E: Element, const NV: usize>(
    simd: S,
    y: &[E],
    (first, here): (usize, usize),
    sums: &mut [f64],
) {
    const { assert!(NV * S::LANES <= BUFFERED) };
    let channels = sums.len() / 2;
    let (plain, squares) = sums.split_at_mut(channels);
    let pixels = y.len() / channels;
    assert!(first + here <= channels);
    assert!((NV - 1) * S::LANES < here && here <= NV * S::LANES);
    let mut sum = [simd.splat(0.0); NV];
    let mut square = [simd.splat(0.0); NV];
    let last = here - (NV - 1) * S::LANES;
    for pixel in 0..pixels {
        for v in 0..NV {
            // SAFETY: `first + v * LANES + lanes <= first + here <= channels`, in pixel < pixels of `y`, and `last`
            // is from 1 to LANES, by the assertions.
            let y = unsafe {
                let from = y.as_ptr().add(pixel * channels + first + v * S::LANES);
                if v == NV - 1 { E::load_first(simd, from, last) } else { E::load(simd, from) }
            };
            sum[v] = simd.add(sum[v], y);
            square[v] = simd.mul_add(y, y, square[v]);
        }
    }
    let mut out = [[0.0f32; BUFFERED]; 2];
    for v in 0..NV {
        // SAFETY: NV * LANES <= BUFFERED, as asserted.
        unsafe {
            simd.store(out[0].as_mut_ptr().add(v * S::LANES), sum[v]);
            simd.store(out[1].as_mut_ptr().add(v * S::LANES), square[v]);
        }
    }
    for i in 0..here {
        plain[first + i] += f64::from(out[0][i]);
        squares[first + i] += f64::from(out[1][i]);
    }
}
