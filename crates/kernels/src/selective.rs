//! Selective kernels (arXiv:1903.06586) as in SimCLR v2: two streams of channels, mixed in proportions that are
//! computed for each channel of each image.
//!
//! Images (N, pixels, 2 C) hold C channels of one stream, then those of the other. `fuse` reduces them to (N, C),
//! from which a small network makes logits (N, 2 C); `select` mixes the streams by these logits to (N, pixels, C).

use crate::math::sigmoid;
use crate::{Cpu, Element, Write, scratch};

/// y (N, C): the mean over all pixels of the sum of both streams.
pub fn fuse_forward<E: Element>(cpu: &Cpu, x: &[E], pixels: usize, channels: usize, y: &mut [f32]) {
    assert_eq!(x.len(), 2 * y.len() * pixels);
    let image = 2 * pixels * channels;
    cpu.threads.run_chunks(y, channels, |n, y| {
        y.fill(0.0);
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for row in x[n * image..(n + 1) * image].chunks_exact(2 * channels) {
                    let (a, b) = row.split_at(channels);
                    y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y += a.widen() + b.widen());
                }
                y.iter_mut().for_each(|y| *y /= pixels as f32);
            },
        );
    });
}

/// dx of [`fuse_forward`], written or added: dy / pixels at every pixel of both streams.
pub fn fuse_backward<E: Element>(
    cpu: &Cpu,
    dy: &[f32],
    pixels: usize,
    channels: usize,
    dx: &mut [E],
    write: Write,
) {
    assert_eq!(dx.len(), 2 * dy.len() * pixels);
    let add = write == Write::Add;
    cpu.threads.run_chunks(dx, 2 * pixels * channels, |n, dx| {
        let dy = &dy[n * channels..(n + 1) * channels];
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                for row in dx.chunks_exact_mut(channels) {
                    for (dx, dy) in row.iter_mut().zip(dy) {
                        let each = dy / pixels as f32;
                        *dx = E::narrow(if add { dx.widen() + each } else { each });
                    }
                }
            },
        );
    });
}

/// y = a x1 + b x2, where x1 and x2 are the streams and (a, b), for each channel of each image, is the softmax of
/// its two logits.
pub fn select_forward<E: Element>(
    cpu: &Cpu,
    x: &[E],
    logits: &[f32],
    pixels: usize,
    channels: usize,
    y: &mut [E],
) {
    check(x.len(), logits.len(), pixels, channels, y.len());
    let image = 2 * pixels * channels;
    cpu.threads.run_chunks(y, pixels * channels, |n, y| {
        let mut shares = scratch::take::<f32>(2 * channels);
        softmax(cpu, &logits[n * 2 * channels..][..2 * channels], &mut shares);
        let (a, b) = shares.split_at(channels);
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                let rows = x[n * image..(n + 1) * image].chunks_exact(2 * channels);
                for (y, row) in y.chunks_exact_mut(channels).zip(rows) {
                    let (first, second) = row.split_at(channels);
                    let shares = a.iter().zip(b);
                    for (((y, first), second), (a, b)) in y.iter_mut().zip(first).zip(second).zip(shares) {
                        *y = E::narrow(a * first.widen() + b * second.widen());
                    }
                }
            },
        );
    });
}

/// Gradients of [`select_forward`]: x becomes dx, (a dy, b dy), and dlogits is a b times the sum over all pixels of
/// (x1 - x2) dy for the first stream, and its negative for the second.
pub fn select_backward<E: Element>(
    cpu: &Cpu,
    dy: &[E],
    logits: &[f32],
    pixels: usize,
    channels: usize,
    x: &mut [E],
    dlogits: &mut [f32],
) {
    check(x.len(), logits.len(), pixels, channels, dy.len());
    assert_eq!(dlogits.len(), logits.len());
    let (image, mixed) = (2 * pixels * channels, pixels * channels);
    let streams: &[E] = x;
    cpu.threads.run_chunks(dlogits, 2 * channels, |n, dlogits| {
        let mut shares = scratch::take::<f32>(2 * channels);
        softmax(cpu, &logits[n * 2 * channels..][..2 * channels], &mut shares);
        dlogits.fill(0.0);
        let (sum, negative) = dlogits.split_at_mut(channels);
        let (a, b) = shares.split_at(channels);
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                let rows = streams[n * image..(n + 1) * image].chunks_exact(2 * channels);
                for (dy, row) in dy[n * mixed..(n + 1) * mixed].chunks_exact(channels).zip(rows) {
                    let (first, second) = row.split_at(channels);
                    for (((sum, first), second), dy) in sum.iter_mut().zip(first).zip(second).zip(dy) {
                        *sum += (first.widen() - second.widen()) * dy.widen();
                    }
                }
                for ((sum, negative), (a, b)) in sum.iter_mut().zip(negative).zip(a.iter().zip(b)) {
                    *sum *= a * b;
                    *negative = -*sum;
                }
            },
        );
    });
    cpu.threads.run_chunks(x, image, |n, dx| {
        let mut shares = scratch::take::<f32>(2 * channels);
        softmax(cpu, &logits[n * 2 * channels..][..2 * channels], &mut shares);
        cpu.isa.vectorize(
            #[inline(always)]
            || {
                let dy = dy[n * mixed..(n + 1) * mixed].chunks_exact(channels);
                for (row, dy) in dx.chunks_exact_mut(2 * channels).zip(dy) {
                    for (stream, shares) in row.chunks_exact_mut(channels).zip(shares.chunks_exact(channels))
                    {
                        for ((dx, share), dy) in stream.iter_mut().zip(shares).zip(dy) {
                            *dx = E::narrow(share * dy.widen());
                        }
                    }
                }
            },
        );
    });
}

fn check(streams: usize, logits: usize, pixels: usize, channels: usize, mixed: usize) {
    assert!(channels > 0 && pixels > 0 && streams == 2 * mixed);
    assert!(logits.is_multiple_of(2 * channels) && logits * pixels == streams);
}

/// For each channel, the softmax over its two logits, one of each stream.
fn softmax(cpu: &Cpu, logits: &[f32], shares: &mut [f32]) {
    let channels = logits.len() / 2;
    let (first, second) = logits.split_at(channels);
    let (a, b) = shares.split_at_mut(channels);
    cpu.isa.vectorize(
        #[inline(always)]
        || {
            for (((a, b), first), second) in a.iter_mut().zip(b).zip(first).zip(second) {
                *a = sigmoid(first - second);
                *b = sigmoid(second - first);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{cpu, waves};

    const SHAPES: [(usize, usize, usize); 5] = [(1, 1, 1), (3, 49, 17), (2, 5, 64), (5, 16, 3), (1, 200, 8)];

    fn close(what: &str, got: &[f32], want: &[f64]) {
        let scale = want.iter().fold(1e-3f64, |most, v| most.max(v.abs()));
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((f64::from(*got) - want).abs() < 3e-6 * scale, "{what}[{i}]: {got}, not {want}");
        }
    }

    /// Compares with the definitions in f64; all instruction sets and numbers of threads must give the same bits.
    #[test]
    fn forward_and_backward_are_their_definitions() {
        for (batch, pixels, channels) in SHAPES {
            let (x, logits) = (waves(2 * batch * pixels * channels, 0.7), waves(2 * batch * channels, 1.9));
            let (dy, dfused) = (waves(batch * pixels * channels, 1.3), waves(batch * channels, 0.4));
            let at = |n: usize, p: usize, s: usize, c: usize| {
                f64::from(x[((n * pixels + p) * 2 + s) * channels + c])
            };
            let each = |n: usize, c: usize| [0, 1].map(|s| f64::from(logits[(2 * n + s) * channels + c]));
            let (mut fused, mut mixed) = (vec![0.0; batch * channels], vec![0.0; dy.len()]);
            let (mut dx, mut dlogits) = (vec![0.0; x.len()], vec![0.0; logits.len()]);
            let mut fused_dx = vec![0.0; x.len()];
            for (n, c) in (0..batch).flat_map(|n| (0..channels).map(move |c| (n, c))) {
                let mass = each(n, c).map(f64::exp);
                let shares = mass.map(|e| e / (mass[0] + mass[1]));
                let mut dshares = [0.0; 2];
                for p in 0..pixels {
                    let y = (n * pixels + p) * channels + c;
                    for s in 0..2 {
                        let place = ((n * pixels + p) * 2 + s) * channels + c;
                        fused[n * channels + c] += at(n, p, s, c) / pixels as f64;
                        mixed[y] += shares[s] * at(n, p, s, c);
                        dshares[s] += f64::from(dy[y]) * at(n, p, s, c);
                        dx[place] = shares[s] * f64::from(dy[y]);
                        fused_dx[place] = f64::from(dfused[n * channels + c]) / pixels as f64;
                    }
                }
                let mean = shares[0] * dshares[0] + shares[1] * dshares[1];
                for s in 0..2 {
                    dlogits[(2 * n + s) * channels + c] = shares[s] * (dshares[s] - mean);
                }
            }
            let mut results = Vec::new();
            for isa in Isa::all() {
                for threads in [1, 2, 4] {
                    let cpu = cpu(isa, threads);
                    let mut got =
                        [fused.len(), dy.len(), logits.len(), x.len()].map(|len| vec![f32::NAN; len]);
                    let [y, z, dl, fused_dx] = &mut got;
                    fuse_forward(&cpu, &x, pixels, channels, y);
                    fuse_backward(&cpu, &dfused, pixels, channels, fused_dx, Write::Over);
                    select_forward(&cpu, &x, &logits, pixels, channels, z);
                    let mut streams = x.clone();
                    select_backward(&cpu, &dy, &logits, pixels, channels, &mut streams, dl);
                    let mut sum = streams.clone();
                    fuse_backward(&cpu, &dfused, pixels, channels, &mut sum, Write::Add);
                    results.push((got, streams, sum));
                }
            }
            let ([y, z, dl, own_dx], streams, sum) = &results[0];
            close("fused", y, &fused);
            close("mixed", z, &mixed);
            close("dlogits", dl, &dlogits);
            close("dx of fuse", own_dx, &fused_dx);
            close("dx of select", streams, &dx);
            assert!(sum.iter().zip(streams).zip(own_dx).all(|((sum, a), b)| *sum == a + b));
            assert!(results.iter().all(|result| *result == results[0]), "{batch} {pixels} {channels}");
        }
    }

    #[test]
    fn logits_far_apart_choose_one_stream() {
        let cpu = cpu(Isa::PORTABLE, 1);
        let (mut x, logits) = (vec![3.0f32, 5.0], [1e30f32, -1e30]);
        let (mut y, mut dlogits) = ([0.0f32], [0.0f32; 2]);
        select_forward(&cpu, &x, &logits, 1, 1, &mut y);
        select_backward(&cpu, &[2.0], &logits, 1, 1, &mut x, &mut dlogits);
        assert_eq!((y, dlogits.map(f32::abs), x), ([3.0], [0.0; 2], vec![2.0, 0.0]));
    }
}
