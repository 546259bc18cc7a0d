//! The convolution by its definition, which the fast forms must reproduce; naive on purpose.
//!
//! Sums are in f64, so that the fast forms are compared with a more exact result.

use crate::{Conv2dGeometry, Threads};

/// `y[n, p, q, k] = sum over r, s, c of x[n, p * stride + r - padding, q * stride + s - padding, c] * w[k, r, s, c]`.
pub fn conv2d_forward(threads: &Threads, g: &Conv2dGeometry, x: &[f32], w: &[f32], y: &mut [f32]) {
    let (height, width) = (g.out_height(), g.out_width());
    threads.run_chunks(y, height * width * g.out_channels, |n, y| {
        let x = &x[n * image_len(g)..][..image_len(g)];
        for p in 0..height {
            for q in 0..width {
                for k in 0..g.out_channels {
                    let mut sum = 0.0;
                    for r in 0..g.kernel_height {
                        for s in 0..g.kernel_width {
                            if let Some(pixel) = input_pixel(g, p, q, r, s) {
                                let x = &x[pixel * g.in_channels..][..g.in_channels];
                                let w = &w[weight_at(g, k, r, s)..][..g.in_channels];
                                sum += dot(x, w);
                            }
                        }
                    }
                    y[(p * width + q) * g.out_channels + k] = sum as f32;
                }
            }
        }
    });
}

/// `dx[n, h, w, c]`: the sum of `dy[n, p, q, k] * w[k, r, s, c]` over all (p, q, r, s, k) that read x[n, h, w, c].
pub fn conv2d_backward_input(threads: &Threads, g: &Conv2dGeometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let (height, width) = (g.out_height(), g.out_width());
    let dy_len = height * width * g.out_channels;
    threads.run_chunks(dx, image_len(g), |n, dx| {
        let dy = &dy[n * dy_len..][..dy_len];
        let mut sum = vec![0.0f64; dx.len()];
        for p in 0..height {
            for q in 0..width {
                for r in 0..g.kernel_height {
                    for s in 0..g.kernel_width {
                        let Some(pixel) = input_pixel(g, p, q, r, s) else {
                            continue;
                        };
                        let sum = &mut sum[pixel * g.in_channels..][..g.in_channels];
                        for k in 0..g.out_channels {
                            let dy = f64::from(dy[(p * width + q) * g.out_channels + k]);
                            let w = &w[weight_at(g, k, r, s)..][..g.in_channels];
                            for (sum, &w) in sum.iter_mut().zip(w) {
                                *sum += dy * f64::from(w);
                            }
                        }
                    }
                }
            }
        }
        for (dx, sum) in dx.iter_mut().zip(sum) {
            *dx = sum as f32;
        }
    });
}

/// `dw[k, r, s, c] = sum over n, p, q of dy[n, p, q, k] * x[n, p * stride + r - padding, q * stride + s - padding, c]`.
pub fn conv2d_backward_weight(threads: &Threads, g: &Conv2dGeometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (height, width) = (g.out_height(), g.out_width());
    let filter_len = g.kernel_height * g.kernel_width * g.in_channels;
    threads.run_chunks(dw, filter_len, |k, dw| {
        let mut sum = vec![0.0f64; filter_len];
        for n in 0..g.batch {
            let x = &x[n * image_len(g)..][..image_len(g)];
            for p in 0..height {
                for q in 0..width {
                    let dy = f64::from(dy[((n * height + p) * width + q) * g.out_channels + k]);
                    for r in 0..g.kernel_height {
                        for s in 0..g.kernel_width {
                            let Some(pixel) = input_pixel(g, p, q, r, s) else {
                                continue;
                            };
                            let x = &x[pixel * g.in_channels..][..g.in_channels];
                            let sum = &mut sum[(r * g.kernel_width + s) * g.in_channels..][..g.in_channels];
                            for (sum, &x) in sum.iter_mut().zip(x) {
                                *sum += dy * f64::from(x);
                            }
                        }
                    }
                }
            }
        }
        for (dw, sum) in dw.iter_mut().zip(sum) {
            *dw = sum as f32;
        }
    });
}

/// Writes `[sum of y per channel, sum of y * y per channel]` over all pixels of `y`, whose rows have
/// `sums.len() / 2` channels.
pub fn channel_sums(y: &[f32], sums: &mut [f64]) {
    let channels = sums.len() / 2;
    sums.fill(0.0);
    for pixel in y.chunks_exact(channels) {
        for (k, &y) in pixel.iter().enumerate() {
            let y = f64::from(y);
            sums[k] += y;
            sums[channels + k] += y * y;
        }
    }
}

fn image_len(g: &Conv2dGeometry) -> usize {
    g.in_height * g.in_width * g.in_channels
}

/// Index h * W + w of the input pixel that tap (r, s) reads for output pixel (p, q); `None` in the padding.
fn input_pixel(g: &Conv2dGeometry, p: usize, q: usize, r: usize, s: usize) -> Option<usize> {
    let h = (p * g.stride + r).checked_sub(g.padding)?;
    let w = (q * g.stride + s).checked_sub(g.padding)?;
    (h < g.in_height && w < g.in_width).then_some(h * g.in_width + w)
}

fn weight_at(g: &Conv2dGeometry, k: usize, r: usize, s: usize) -> usize {
    ((k * g.kernel_height + r) * g.kernel_width + s) * g.in_channels
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv2d::testing::{geometry, values};

    /// A hand-computed case: 3 x 3 image, one channel, 2 x 2 kernel.
    #[test]
    fn forward_of_a_known_image() {
        let g = geometry(1, 3, 3, 1, 1, (2, 2), 1, 0);
        let x: Vec<f32> = (1..=9).map(|v| v as f32).collect();
        let w = [1.0, 10.0, 100.0, 1000.0];
        let mut y = vec![0.0; 4];
        conv2d_forward(&Threads::new(1).unwrap(), &g, &x, &w, &mut y);
        assert_eq!(y, [5421.0, 6532.0, 8754.0, 9865.0]);
    }

    /// With padding 1 and stride 2, a 3 x 3 kernel of ones counts the image's pixels under it.
    #[test]
    fn forward_counts_pixels_under_the_kernel() {
        let g = geometry(2, 4, 5, 1, 1, (3, 3), 2, 1);
        let mut y = vec![0.0; g.output_len()];
        conv2d_forward(&Threads::new(2).unwrap(), &g, &[1.0; 40], &[1.0; 9], &mut y);
        let image = [4.0, 6.0, 4.0, 6.0, 9.0, 6.0];
        assert_eq!(y, [image, image].concat());
    }

    /// The convolution is linear in x and in w, so `<y(x), dy> = <x, dx(dy)> = <w, dw(x, dy)>` for any operands.
    #[test]
    fn backward_passes_are_the_adjoints_of_forward() {
        let threads = Threads::new(2).unwrap();
        for g in [
            geometry(2, 5, 7, 3, 4, (3, 3), 1, 1),
            geometry(3, 8, 6, 2, 5, (3, 3), 2, 1),
            geometry(1, 7, 7, 1, 1, (5, 5), 3, 2),
            geometry(2, 4, 4, 5, 3, (1, 1), 2, 0),
            geometry(2, 9, 11, 3, 2, (7, 7), 2, 3),
        ] {
            let x = values(g.input_len(), 1);
            let w = values(g.weight_len(), 2);
            let dy = values(g.output_len(), 3);
            let mut y = vec![0.0; g.output_len()];
            let mut dx = vec![f32::NAN; g.input_len()];
            let mut dw = vec![f32::NAN; g.weight_len()];
            conv2d_forward(&threads, &g, &x, &w, &mut y);
            conv2d_backward_input(&threads, &g, &dy, &w, &mut dx);
            conv2d_backward_weight(&threads, &g, &x, &dy, &mut dw);
            let forward = dot(&y, &dy);
            let scale = dot(&y, &y).sqrt() * dot(&dy, &dy).sqrt();
            assert!((forward - dot(&x, &dx)).abs() < 1e-6 * scale, "{g:?}");
            assert!((forward - dot(&w, &dw)).abs() < 1e-6 * scale, "{g:?}");
        }
    }

    #[test]
    fn sums_by_channel() {
        let mut sums = [f64::NAN; 4];
        channel_sums(&[1.0, 10.0, 2.0, -20.0, 3.0, 30.0], &mut sums);
        assert_eq!(sums, [6.0, 20.0, 14.0, 1400.0]);
    }
}
