//! Pooling over channels-last images.

use crate::{Conv2dGeometry, Cpu};

/// Max pooling: y (N, P, Q, C) and, for backward, the place of each maximum as its tap r S + s in the window.
/// Padding never wins. `g.out_channels` is not used. The first of equal values wins.
pub fn max_pool_forward(cpu: &Cpu, g: &Conv2dGeometry, x: &[f32], y: &mut [f32], taps: &mut [u8]) {
    let (c, p, q) = (g.in_channels, g.out_height(), g.out_width());
    assert!(g.kernel_height * g.kernel_width <= 256 && g.padding < g.kernel_height.min(g.kernel_width));
    assert!(x.len() == g.input_len() && y.len() == g.batch * p * q * c && taps.len() == y.len());
    let image = g.in_height * g.in_width * c;
    cpu.threads.run_chunk_pairs(y, taps, p * q * c, |n, y, taps| {
        let x = &x[n * image..(n + 1) * image];
        for (pixel, (y, taps)) in y.chunks_exact_mut(c).zip(taps.chunks_exact_mut(c)).enumerate() {
            y.fill(f32::NEG_INFINITY);
            for_each_tap(g, pixel, |tap, source| {
                let x = &x[source * c..source * c + c];
                cpu.isa.vectorize(
                    #[inline(always)]
                    || {
                        for ((y, t), x) in y.iter_mut().zip(taps.iter_mut()).zip(x) {
                            // Written so that a NaN wins and is seen.
                            let wins = *x > *y || x.is_nan();
                            *y = if wins { *x } else { *y };
                            *t = if wins { tap as u8 } else { *t };
                        }
                    },
                );
            });
        }
    });
}

/// dx of [`max_pool_forward`]: each dy goes to where its maximum came from. Overwrites dx.
pub fn max_pool_backward(cpu: &Cpu, g: &Conv2dGeometry, dy: &[f32], taps: &[u8], dx: &mut [f32]) {
    let (c, p, q) = (g.in_channels, g.out_height(), g.out_width());
    assert!(dx.len() == g.input_len() && dy.len() == g.batch * p * q * c && taps.len() == dy.len());
    let image = p * q * c;
    cpu.threads.run_chunks(dx, g.in_height * g.in_width * c, |n, dx| {
        dx.fill(0.0);
        let (dy, taps) = (&dy[n * image..(n + 1) * image], &taps[n * image..(n + 1) * image]);
        for (pixel, (dy, taps)) in dy.chunks_exact(c).zip(taps.chunks_exact(c)).enumerate() {
            for_each_tap(g, pixel, |tap, source| {
                let dx = &mut dx[source * c..source * c + c];
                cpu.isa.vectorize(
                    #[inline(always)]
                    || {
                        for ((dx, t), dy) in dx.iter_mut().zip(taps).zip(dy) {
                            *dx += if usize::from(*t) == tap { *dy } else { 0.0 };
                        }
                    },
                );
            });
        }
    });
}

/// Calls `visit(tap, input pixel)` for each tap of output pixel `pixel` that lies inside the image.
#[inline(always)]
fn for_each_tap(g: &Conv2dGeometry, pixel: usize, mut visit: impl FnMut(usize, usize)) {
    let (row, column) = (pixel / g.out_width() * g.stride, pixel % g.out_width() * g.stride);
    for r in 0..g.kernel_height {
        for s in 0..g.kernel_width {
            let (h, w) = (
                (row + r).wrapping_sub(g.padding),
                (column + s).wrapping_sub(g.padding),
            );
            if h < g.in_height && w < g.in_width {
                visit(r * g.kernel_width + s, h * g.in_width + w);
            }
        }
    }
}

/// Global average pooling: x (N, pixels, C) to y (N, C).
pub fn global_avg_pool_forward(cpu: &Cpu, x: &[f32], pixels: usize, channels: usize, y: &mut [f32]) {
    assert_eq!(x.len(), y.len() * pixels);
    cpu.threads.run_chunks(y, channels, |n, y| {
        y.fill(0.0);
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for row in x[n * pixels * channels..(n + 1) * pixels * channels].chunks_exact(channels) {
                    y.iter_mut().zip(row).for_each(|(y, x)| *y += x);
                }
                y.iter_mut().for_each(|y| *y /= pixels as f32);
            },
        );
    });
}

/// dx of [`global_avg_pool_forward`]: dy / pixels at every pixel. Overwrites dx.
pub fn global_avg_pool_backward(cpu: &Cpu, dy: &[f32], pixels: usize, channels: usize, dx: &mut [f32]) {
    assert_eq!(dx.len(), dy.len() * pixels);
    cpu.threads.run_chunks(dx, pixels * channels, |n, dx| {
        let dy = &dy[n * channels..(n + 1) * channels];
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for row in dx.chunks_exact_mut(channels) {
                    row.iter_mut()
                        .zip(dy)
                        .for_each(|(dx, dy)| *dx = dy / pixels as f32);
                }
            },
        );
    });
}
