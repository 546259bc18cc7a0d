//! Average pooling by windows of 2 x 2 pixels, channels last.

use crate::{AvgPoolGeometry, Cpu, Element, Write};

impl AvgPoolGeometry {
    /// The weight of each row or column of window number `window` in an image of `size` rows or columns.
    fn share(&self, window: usize, size: usize) -> f32 {
        if self.zeros || window * self.stride + 1 < size { 0.5 } else { 1.0 }
    }

    /// The rows or columns of a window with their weights. A lone row or column is listed twice, the second time
    /// with weight 0.
    fn window(&self, window: usize, size: usize) -> [(usize, f32); 2] {
        let (first, share) = (window * self.stride, self.share(window, size));
        [(first, share), if first + 1 < size { (first + 1, share) } else { (first, 0.0) }]
    }

    /// The windows that contain row or column `at`, with its weight in each; a lone window is listed twice likewise.
    fn windows(&self, at: usize, size: usize) -> [(usize, f32); 2] {
        let (first, last) = (at.saturating_sub(1).div_ceil(self.stride), at / self.stride);
        let share = |window| (window, self.share(window, size));
        [share(first), if last > first { share(last) } else { (first, 0.0) }]
    }
}

/// Average pooling: each value of y is the mean of its window of x.
pub fn avg_pool_forward<E: Element>(cpu: &Cpu, g: &AvgPoolGeometry, x: &[E], y: &mut [E]) {
    assert!(g.is_valid() && x.len() == g.input_len() && y.len() == g.output_len());
    let (image, width) = (g.height * g.width * g.channels, g.out_width());
    cpu.threads.run_chunks(y, g.out_height() * width * g.channels, |n, y| {
        let x = &x[n * image..(n + 1) * image];
        for (pixel, y) in y.chunks_exact_mut(g.channels).enumerate() {
            let rows = g.window(pixel / width, g.height);
            let columns = g.window(pixel % width, g.width);
            weigh(cpu, x, g.width, [rows, columns], y, Write::Over);
        }
    });
}

/// dx of [`avg_pool_forward`], written or added: for each pixel, the sum over its windows of its weight times dy.
pub fn avg_pool_backward<E: Element>(cpu: &Cpu, g: &AvgPoolGeometry, dy: &[E], dx: &mut [E], write: Write) {
    assert!(g.is_valid() && dx.len() == g.input_len() && dy.len() == g.output_len());
    let pooled = g.out_height() * g.out_width() * g.channels;
    cpu.threads.run_chunks(dx, g.height * g.width * g.channels, |n, dx| {
        let dy = &dy[n * pooled..(n + 1) * pooled];
        for (pixel, dx) in dx.chunks_exact_mut(g.channels).enumerate() {
            let rows = g.windows(pixel / g.width, g.height);
            let columns = g.windows(pixel % g.width, g.width);
            weigh(cpu, dy, g.out_width(), [rows, columns], dx, write);
        }
    });
}

/// Writes or adds a pixel to `to`: the weighted sum of four pixels of an image with rows of `width` pixels.
fn weigh<E: Element>(
    cpu: &Cpu,
    image: &[E],
    width: usize,
    [rows, columns]: [[(usize, f32); 2]; 2],
    to: &mut [E],
    write: Write,
) {
    let pixel = |i: usize| {
        let ((row, by), (column, times)) = (rows[i / 2], columns[i % 2]);
        (&image[(row * width + column) * to.len()..][..to.len()], by * times)
    };
    let [(a, wa), (b, wb), (c, wc), (d, wd)] = [0, 1, 2, 3].map(pixel);
    let add = write == Write::Add;
    cpu.isa.vectorize(
        #[inline(always)]
        || {
            for (((to, a), b), (c, d)) in to.iter_mut().zip(a).zip(b).zip(c.iter().zip(d)) {
                let upper = a.widen() * wa + b.widen() * wb;
                let sum = upper + (c.widen() * wc + d.widen() * wd);
                *to = E::narrow(if add { to.widen() + sum } else { sum });
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{cpu, waves};

    const SHAPES: [(usize, usize, usize, usize); 6] =
        [(1, 1, 1, 1), (2, 4, 6, 3), (3, 5, 7, 17), (1, 1, 4, 2), (2, 3, 2, 8), (1, 2, 1, 33)];

    /// The definition, window by window.
    fn by_definition(g: &AvgPoolGeometry, x: &[f32]) -> Vec<f32> {
        let mut y = Vec::new();
        for n in 0..g.batch {
            for (p, q) in (0..g.out_height()).flat_map(|p| (0..g.out_width()).map(move |q| (p, q))) {
                for c in 0..g.channels {
                    let inside = |&(h, w): &(usize, usize)| h < g.height && w < g.width;
                    let (top, left) = (p * g.stride, q * g.stride);
                    let window = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(r, s)| (top + r, left + s));
                    let taps: Vec<_> = window.into_iter().filter(inside).collect();
                    let at = |(h, w)| x[((n * g.height + h) * g.width + w) * g.channels + c];
                    let count = if g.zeros { 4 } else { taps.len() };
                    y.push(taps.into_iter().map(at).sum::<f32>() / count as f32);
                }
            }
        }
        y
    }

    fn geometries() -> impl Iterator<Item = AvgPoolGeometry> {
        SHAPES.into_iter().flat_map(|(batch, height, width, channels)| {
            [(1, false), (1, true), (2, false), (2, true)].map(|(stride, zeros)| AvgPoolGeometry {
                batch,
                height,
                width,
                channels,
                stride,
                zeros,
            })
        })
    }

    #[test]
    fn what_has_no_addresses_is_not_valid() {
        for (batch, height, width, channels) in [
            (1, 1 << 32, 1 << 32, 1),
            (1 << 63, 1, 1, 2),
            (usize::MAX, 1, 1, 1),
            (1 << 21, 1 << 21, 1 << 21, 2),
        ] {
            for stride in [1, 2] {
                let g = AvgPoolGeometry { batch, height, width, channels, stride, zeros: false };
                assert!(!g.is_valid(), "{g:?}");
            }
        }
    }

    #[test]
    fn forward_is_its_definition_and_backward_its_transpose() {
        for g in geometries() {
            let (x, dy) = (waves(g.input_len(), 0.7), waves(g.output_len(), 1.3));
            let want = by_definition(&g, &x);
            let mut results = Vec::new();
            for isa in Isa::all() {
                for threads in [1, 2, 4] {
                    let cpu = cpu(isa, threads);
                    let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
                    avg_pool_forward(&cpu, &g, &x, &mut y);
                    avg_pool_backward(&cpu, &g, &dy, &mut dx, Write::Over);
                    let off = y.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(off <= 1e-6, "{g:?}: off by {off}");
                    // <dy, pool x> = <x, pool^T dy> for all x and dy.
                    let dot =
                        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                    assert!((dot(&dy, &y) - dot(&x, &dx)).abs() < 1e-4, "{g:?}");
                    let mut twice = dx.clone();
                    avg_pool_backward(&cpu, &g, &dy, &mut twice, Write::Add);
                    assert!(twice.iter().zip(&dx).all(|(a, b)| *a == b + b), "{g:?}");
                    results.push((y, dx));
                }
            }
            assert!(results.iter().all(|result| *result == results[0]), "{g:?}");
        }
    }
}
