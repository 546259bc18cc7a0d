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
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for (pixel, y) in y.chunks_exact_mut(c).enumerate() {
                    y.fill(E::narrow(f32::NEG_INFINITY));
                    for (h, w) in taps(g, pixel) {
                        let x = &x[(h * g.in_width + w) * c..][..c];
                        for (y, x) in y.iter_mut().zip(x) {
                            let wide = x.widen();
                            *y = if wide > y.widen() || wide.is_nan() { *x } else { *y };
                        }
                    }
                }
            },
        );
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
        let x = &x[n * image..(n + 1) * image];
        let (y, dy) = (&y[n * pooled..(n + 1) * pooled], &dy[n * pooled..(n + 1) * pooled]);
        cpu.isa.vectorize(
            #[inline(always)]
            || image_backward(g, x, y, dy, dx),
        );
    });
}

/// [`max_pool_backward`] of one image.
#[inline(always)]
fn image_backward<E: Element>(g: &PoolGeometry, x: &[E], y: &[E], dy: &[E], dx: &mut [E]) {
    let c = g.channels;
    let line = g.in_width * c;
    // Sums of the rows that a row of windows touches, by the row modulo their number: the others are final or 0.
    let mut sums = scratch::take(g.side * line);
    sums.fill(0.0f32);
    // Each channel's gradient until its maximum is found, then 0.
    let mut left = scratch::take::<f32>(c);
    let mut rows = dx.chunks_exact_mut(line).enumerate();
    for (p, (y, dy)) in y.chunks_exact(g.out_width() * c).zip(dy.chunks_exact(g.out_width() * c)).enumerate()
    {
        for (q, (y, dy)) in y.chunks_exact(c).zip(dy.chunks_exact(c)).enumerate() {
            left.iter_mut().zip(dy).for_each(|(left, dy)| *left = dy.widen());
            for (h, w) in taps(g, p * g.out_width() + q) {
                let x = &x[h * line + w * c..][..c];
                let sums = &mut sums[h % g.side * line + w * c..][..c];
                for (((sum, left), x), y) in sums.iter_mut().zip(left.iter_mut()).zip(x).zip(y) {
                    let here = if x.widen() == y.widen() { *left } else { 0.0 };
                    *sum += here;
                    *left -= here;
                }
            }
        }
        // No later window touches the rows above the next window.
        let last = p + 1 == g.out_height();
        let above = if last { g.in_height } else { ((p + 1) * g.stride).saturating_sub(g.padding[0]) };
        while rows.len() > g.in_height.saturating_sub(above) {
            let Some((h, dx)) = rows.next() else { break };
            let sums = &mut sums[h % g.side * line..][..line];
            dx.iter_mut().zip(&*sums).for_each(|(dx, sum)| *dx = E::narrow(*sum));
            sums.fill(0.0);
        }
    }
}

/// The (row, column) of the input pixels of output pixel `pixel`, those inside the image.
#[inline(always)]
fn taps(g: &PoolGeometry, pixel: usize) -> impl Iterator<Item = (usize, usize)> {
    let inside = |first: usize, size: usize| {
        let start = first.saturating_sub(g.padding[0]);
        start..(first + g.side).saturating_sub(g.padding[0]).min(size)
    };
    let rows = inside(pixel / g.out_width() * g.stride, g.in_height);
    let columns = inside(pixel % g.out_width() * g.stride, g.in_width);
    rows.flat_map(move |h| columns.clone().map(move |w| (h, w)))
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
    fn each_gradient_goes_to_the_first_of_equal_maxima() {
        let cases = [
            (7, 5, 3, 2, [1, 1]),
            (7, 6, 2, 2, [0, 0]),
            (8, 7, 2, 3, [0, 0]),
            (5, 7, 3, 1, [1, 1]),
            (6, 6, 3, 2, [0, 1]),
            (9, 4, 5, 2, [2, 2]),
            (2, 3, 4, 2, [1, 1]),
        ];
        for (in_height, in_width, side, stride, padding) in cases {
            for channels in [3, 20] {
                let g = PoolGeometry { batch: 2, in_height, in_width, channels, side, stride, padding };
                // Few different values, so that windows have equal maxima.
                let x: Vec<f32> = (0..g.input_len()).map(|i| (i * i / 3 % 4) as f32 - 1.0).collect();
                let (rows, columns) = (g.out_height(), g.out_width());
                let mut y = vec![f32::NAN; 2 * rows * columns * channels];
                let dy: Vec<f32> = (1..=y.len()).map(|i| i as f32).collect();
                let (mut expected, mut maxima) = (vec![0.0; x.len()], vec![f32::NAN; y.len()]);
                for (i, maximum) in maxima.iter_mut().enumerate() {
                    let (pixel, channel) = (i / channels, i % channels);
                    let (n, p, q) = (pixel / columns / rows, pixel / columns % rows, pixel % columns);
                    let window = (0..side * side).filter_map(|tap| {
                        let h =
                            (p * stride + tap / side).checked_sub(padding[0]).filter(|&h| h < in_height)?;
                        let w =
                            (q * stride + tap % side).checked_sub(padding[0]).filter(|&w| w < in_width)?;
                        Some(((n * in_height + h) * in_width + w) * channels + channel)
                    });
                    let first = window.reduce(|a, b| if x[b] > x[a] { b } else { a }).unwrap();
                    *maximum = x[first];
                    expected[first] += dy[i];
                }
                for isa in Isa::all() {
                    let cpu = cpu(isa, 2);
                    let mut dx = vec![f32::NAN; x.len()];
                    max_pool_forward(&cpu, &g, &x, &mut y);
                    assert_eq!(y, maxima, "{g:?}, {isa:?}");
                    max_pool_backward(&cpu, &g, &x, &y, &dy, &mut dx);
                    assert_eq!(dx, expected, "{g:?}, {isa:?}");
                }
            }
        }
    }

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
