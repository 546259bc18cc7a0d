//! The form for similarities of any size: every row keeps a running maximum.

use std::cell::Cell;

use super::{Anchor, NtXentShape};
use crate::Cpu;
use crate::math::{exp, exp_sums, max};
use crate::product::{Operand, multiply};

/// Anchors in a tile.
const ROWS: usize = 128;
/// Other views in a tile: ROWS x COLUMNS similarities stay in the second-level cache.
const COLUMNS: usize = 256;

thread_local! {
    static TILE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's tile, allocated once.
fn with_tile<R>(body: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut tile = TILE.take();
    tile.resize(ROWS * COLUMNS, 0.0);
    let result = body(&mut tile);
    TILE.set(tile);
    result
}

/// Fills `tile` with s(i,k) = z_i . z_k / tau for `rows` anchors from `start` and `columns` views from `first`;
/// an anchor's similarity to itself becomes -infinity.
#[inline(always)]
fn similarities(
    shape: &NtXentShape,
    (z, all): (&[f32], &[f32]),
    (start, rows): (usize, usize),
    (first, columns): (usize, usize),
    tile: &mut [f32],
) {
    let d = shape.dim;
    let anchors = Operand::new(&z[start * d..(start + rows) * d], d);
    let others = Operand::new(&all[first * d..(first + columns) * d], d);
    multiply(anchors, others.t(), tile, false);
    tile.iter_mut().for_each(|s| *s /= shape.temperature);
    for row in 0..rows {
        let own = (shape.offset + start + row).wrapping_sub(first);
        if own < columns {
            tile[row * columns + own] = f32::NEG_INFINITY;
        }
    }
}

/// [`super::nt_xent_forward`].
pub fn forward(cpu: &Cpu, shape: &NtXentShape, z: &[f32], all: &[f32], anchors: &mut [Anchor]) {
    cpu.threads.run_chunks(anchors, ROWS, |piece, anchors| {
        let start = piece * ROWS;
        with_tile(|tile| {
            cpu.isa.vectorize(
                #[inline(always)]
                || forward_rows(shape, z, all, start, anchors, tile),
            )
        });
    });
}

#[inline(always)]
fn forward_rows(
    shape: &NtXentShape,
    z: &[f32],
    all: &[f32],
    start: usize,
    anchors: &mut [Anchor],
    tile: &mut [f32],
) {
    // The running maximum of each row, and the mass and first moment of its softmax relative to that.
    let mut running = [(f32::NEG_INFINITY, 0f32, 0f32); ROWS];
    anchors.fill(Anchor { hardest: f32::NEG_INFINITY, ..Anchor::default() });
    for first in (0..shape.views).step_by(COLUMNS) {
        let columns = COLUMNS.min(shape.views - first);
        let tile = &mut tile[..anchors.len() * columns];
        similarities(shape, (z, all), (start, anchors.len()), (first, columns), tile);
        let rows = tile.chunks_exact_mut(columns).zip(anchors.iter_mut()).zip(&mut running);
        for (row, ((s, anchor), (peak, mass, moment))) in rows.enumerate() {
            let positive = shape.positive(start + row).wrapping_sub(first);
            let mut highest = f32::NEG_INFINITY;
            if positive < columns {
                anchor.positive = s[positive];
                highest = s[positive];
                s[positive] = f32::NEG_INFINITY;
            }
            let hardest = max(s);
            if positive < columns {
                s[positive] = anchor.positive;
            }
            anchor.hardest = anchor.hardest.max(hardest);
            highest = highest.max(hardest).max(*peak);
            if highest == f32::NEG_INFINITY {
                continue; // Nothing but the anchor itself so far.
            }
            let shrink = exp(*peak - highest);
            let (tile_mass, tile_moment) = exp_sums(s, highest);
            (*peak, *mass, *moment) = (highest, *mass * shrink + tile_mass, *moment * shrink + tile_moment);
        }
    }
    for (anchor, (peak, mass, moment)) in anchors.iter_mut().zip(running) {
        anchor.lse = peak + mass.ln();
        anchor.entropy = anchor.lse - moment / mass;
    }
}

/// [`super::nt_xent_backward`].
pub fn backward(
    cpu: &Cpu,
    shape: &NtXentShape,
    z: &[f32],
    all: &[f32],
    lse: &[f32],
    factor: f32,
    dz: &mut [f32],
) {
    let d = shape.dim;
    cpu.threads.run_chunks(dz, ROWS * d, |piece, dz| {
        let (start, rows) = (piece * ROWS, dz.len() / d);
        with_tile(|tile| {
            for first in (0..shape.views).step_by(COLUMNS) {
                let columns = COLUMNS.min(shape.views - first);
                let tile = &mut tile[..rows * columns];
                cpu.isa.vectorize(
                    #[inline(always)]
                    || backward_weights(shape, (z, all), lse, (start, rows), (first, columns), tile),
                );
                let weights = Operand::new(tile, columns);
                let others = Operand::new(&all[first * d..(first + columns) * d], d);
                multiply(weights, others, dz, first > 0);
            }
        });
        let scale = factor / shape.temperature;
        dz.iter_mut().for_each(|v| *v *= scale);
    });
}

/// The weight of z_k in dz_i for a tile of (i, k).
#[inline(always)]
fn backward_weights(
    shape: &NtXentShape,
    operands: (&[f32], &[f32]),
    lse: &[f32],
    (start, rows): (usize, usize),
    (first, columns): (usize, usize),
    tile: &mut [f32],
) {
    similarities(shape, operands, (start, rows), (first, columns), tile);
    let others = &lse[first..first + columns];
    for (row, weights) in tile.chunks_exact_mut(columns).enumerate() {
        let own = lse[shape.offset + start + row];
        weights.iter_mut().zip(others).for_each(|(w, other)| *w = exp(*w - own) + exp(*w - other));
        let positive = shape.positive(start + row).wrapping_sub(first);
        if positive < columns {
            weights[positive] -= 2.0;
        }
    }
}
