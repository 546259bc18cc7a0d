//! Shared by the tests of this folder.

use crate::Conv2dGeometry;

/// The geometry with a batch of `n` images of h x w x c and `k` output channels.
pub fn geometry(
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    k: usize,
    kernel: (usize, usize),
    stride: usize,
    padding: usize,
) -> Conv2dGeometry {
    Conv2dGeometry {
        batch: n,
        in_height: h,
        in_width: w,
        in_channels: c,
        out_channels: k,
        kernel_height: kernel.0,
        kernel_width: kernel.1,
        stride,
        padding,
    }
}

/// `len` reproducible values in [-1, 1).
pub fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}
