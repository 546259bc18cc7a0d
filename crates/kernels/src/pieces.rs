//! Fixed pieces: how long tensors are cut, and how sums over rows give the same bits for any number of threads.

use crate::Cpu;
use crate::scratch::{self, Scratch};

/// Values in a piece of an elementwise pass: many enough to repay the hand-over to a thread, few enough to fit a cache.
pub(crate) const PIECE: usize = 1 << 15;

/// The number of rows of `width` values that make a piece of about [`PIECE`] values.
pub(crate) fn rows_per_piece(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}

/// Sums `width` quantities over `pieces` pieces: `piece(i, acc)` adds piece i's share to `acc` (`width` zeros), and
/// the shares are added in the order of i into `out`, which is overwritten.
pub(crate) fn sum_pieces(
    cpu: &Cpu,
    pieces: usize,
    out: &mut [f64],
    piece: impl Fn(usize, &mut [f64]) + Sync,
) {
    let width = out.len();
    let mut partial = scratch::take::<f64>(pieces * width);
    partial.fill(0.0);
    cpu.threads.run_chunks(&mut partial, width.max(1), &piece);
    out.fill(0.0);
    for share in partial.chunks_exact(width.max(1)) {
        for (total, value) in out.iter_mut().zip(share) {
            *total += value;
        }
    }
}

/// How many copies of a row of `channels` values make a row wide enough to fill vector registers.
///
/// Passes over channels-last data apply per-channel constants to rows of `channels` values. For narrow rows the
/// constants are repeated, so that the inner loop covers a few hundred values whatever the width.
pub(crate) fn repeats(channels: usize) -> usize {
    (256 / channels.max(1)).max(1)
}

/// `values` repeated `times` times.
pub(crate) fn repeated(values: &[f32], times: usize) -> Scratch<f32> {
    let mut wide = scratch::take(values.len() * times);
    wide.chunks_exact_mut(values.len().max(1)).for_each(|row| row.copy_from_slice(values));
    wide
}
