//! Pooling over channels-last images.

use crate::{Cpu, Element, PoolGeometry, scratch};

/// Max pooling to y (N, P, Q, C). Padding is never the maximum; a NaN always is.
pub fn max_pool_forward<E: Element>(cpu: &Cpu, g: &PoolGeometry, x: &[E], y: &mut [E]) {
    assert!(g.is_valid(), "every window must touch the image");
    let (c, outputs) = (g.channels, g.out_height() * g.out_width());
    assert!(x.len() == g.input_len() && y.len() == g.batch * outputs * c);
    let image = g.in_height * g.in_width * c;
    cpu.threads.run_chunks(y, outputs * c, |n, y| {
        let x = &x[n * image..(n + 1) * image];
        for (pixel, y) in y.chunks_exact_mut(c).enumerate() {
            y.fill(E::narrow(f32::NEG_INFINITY));
            for_each_tap(g, pixel, |source| {
                let x = &x[source * c..source * c + c];
                cpu.isa.vectorize(
                    #[inline(always)]
                    || {
                        for (y, x) in y.iter_mut().zip(x) {
                            let wide = x.widen();
                            *y = if wide > y.widen() || wide.is_nan() { *x } else { *y };
                        }
                    },
                );
            });
        }
    });
}

/// dx of [`max_pool_forward`]: each dy goes to its window's maximum, the first of equal ones. Overwrites dx.
pub fn max_pool_backward<E: Element>(cpu: &Cpu, g: &PoolGeometry, x: &[E], y: &[E], dy: &[E], dx: &mut [E]) {
    assert!(g.is_valid(), "every window must touch the image");
    let (c, outputs) = (g.channels, g.out_height() * g.out_width());
    assert!(x.len() == g.input_len() && dx.len() == x.len());
    assert!(y.len() == g.batch * outputs * c && dy.len() == y.len());
    let (image, pooled) = (g.in_height * g.in_width * c, outputs * c);
    cpu.threads.run_chunks(dx, image, |n, dx| {
        let mut sums = scratch::take(dx.len());
        sums.fill(0.0f32);
        let x = &x[n * image..(n + 1) * image];
        let windows = y[n * pooled..(n + 1) * pooled].chunks_exact(c).zip(dy[n * pooled..].chunks_exact(c));
        // Each channel's gradient until its maximum is found, then 0.
        let mut left = scratch::take::<f32>(c);
        for (pixel, (y, dy)) in windows.enumerate() {
            left.iter_mut().zip(dy).for_each(|(left, dy)| *left = dy.widen());
            for_each_tap(g, pixel, |source| {
                let (x, sums) = (&x[source * c..source * c + c], &mut sums[source * c..source * c + c]);
                cpu.isa.vectorize(
                    #[inline(always)]
                    || {
                        for (((sum, left), x), y) in sums.iter_mut().zip(left.iter_mut()).zip(x).zip(y) {
                            let here = if x.widen() == y.widen() { *left } else { 0.0 };
                            *sum += here;
                            *left -= here;
                        }
                    },
                );
            });
        }
        dx.iter_mut().zip(sums.iter()).for_each(|(dx, sum)| *dx = E::narrow(*sum));
    });
}

/// Calls `visit(input pixel)` for each tap of output pixel `pixel` that lies inside the image.
#[inline(always)]
fn for_each_tap(g: &PoolGeometry, pixel: usize, mut visit: impl FnMut(usize)) {
    let (row, column) = (pixel / g.out_width() * g.stride, pixel % g.out_width() * g.stride);
    for r in 0..g.side {
        for s in 0..g.side {
            let (h, w) = ((row + r).wrapping_sub(g.padding[0]), (column + s).wrapping_sub(g.padding[0]));
            if h < g.in_height && w < g.in_width {
                visit(h * g.in_width + w);
            }
        }
    }
}

/// Global average pooling: x (N, pixels, C) to y (N, C).
pub fn global_avg_pool_forward<E: Element>(
    cpu: &Cpu,
    x: &[E],
    pixels: usize,
    channels: usize,
    y: &mut [f32],
) {
    assert_eq!(x.len(), y.len() * pixels);
    cpu.threads.run_chunks(y, channels, |n, y| {
        y.fill(0.0);
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for row in x[n * pixels * channels..(n + 1) * pixels * channels].chunks_exact(channels) {
                    y.iter_mut().zip(row).for_each(|(y, x)| *y += x.widen());
                }
                y.iter_mut().for_each(|y| *y /= pixels as f32);
            },
        );
    });
}

/// dx of [`global_avg_pool_forward`]: dy / pixels at every pixel. Overwrites dx.
pub fn global_avg_pool_backward<E: Element>(
    cpu: &Cpu,
    dy: &[f32],
    pixels: usize,
    channels: usize,
    dx: &mut [E],
) {
    assert_eq!(dx.len(), dy.len() * pixels);
    cpu.threads.run_chunks(dx, pixels * channels, |n, dx| {
        let dy = &dy[n * channels..(n + 1) * channels];
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for row in dx.chunks_exact_mut(channels) {
                    row.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = E::narrow(dy / pixels as f32));
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::cpu;

    /// One pixel, padded on each side by as much as a window is wide, so that some windows would not touch the image.
    const BEYOND: PoolGeometry = PoolGeometry {
        batch: 1,
        in_height: 1,
        in_width: 1,
        channels: 1,
        side: 1,
        stride: 1,
        padding: [1, 1],
    };

    #[test]
    #[should_panic(expected = "every window must touch the image")]
    fn images_that_wrap_are_refused() {
        let cpu = cpu(Isa::PORTABLE, 1);
        let g = PoolGeometry {
            in_height: 1 << 32,
            in_width: 1 << 32,
            stride: 1 << 31,
            padding: [0, 0],
            ..BEYOND
        };
        max_pool_forward(&cpu, &g, &[0.0f32; 0], &mut [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "every window must touch the image")]
    fn windows_beside_the_image_have_no_gradient() {
        let cpu = cpu(Isa::PORTABLE, 1);
        max_pool_backward(&cpu, &BEYOND, &[1.0f32], &[1.0; 9], &[1.0; 9], &mut [0.0]);
    }
}
