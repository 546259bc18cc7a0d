//! The form for similarities of any size: every row keeps a running maximum.

use super::Anchor;
use crate::Cpu;
use crate::contrastive::{ContrastiveShape, ROWS, gradient, walk, with_values};
use crate::math::{exp, exp_sums, max};

/// [`super::nt_xent_forward`].
pub fn forward(cpu: &Cpu, shape: &ContrastiveShape, z: &[f32], all: &[f32], anchors: &mut [Anchor]) {
    cpu.threads.run_chunks(anchors, ROWS, |piece, anchors| {
        with_values(|values| {
            cpu.isa.vectorize(
                #[inline(always)]
                || forward_rows(shape, (z, all), piece * ROWS, anchors, values),
            )
        });
    });
}

#[inline(always)]
fn forward_rows(
    shape: &ContrastiveShape,
    operands: (&[f32], &[f32]),
    start: usize,
    anchors: &mut [Anchor],
    values: &mut [f32],
) {
    // The running maximum of each row, and the mass and first moment of its softmax relative to that.
    let mut running = [(f32::NEG_INFINITY, 0f32, 0f32); ROWS];
    anchors.fill(Anchor { hardest: f32::NEG_INFINITY, ..Anchor::default() });
    walk(
        shape,
        operands,
        (start, anchors.len()),
        values,
        #[inline(always)]
        |tile| {
            for (row, (anchor, (peak, mass, moment))) in anchors.iter_mut().zip(&mut running).enumerate() {
                let positive = tile.positive(shape, row);
                let s = &mut tile.values[row * tile.columns..][..tile.columns];
                let mut highest = f32::NEG_INFINITY;
                if let Some(positive) = positive {
                    anchor.positive = s[positive];
                    highest = s[positive];
                    s[positive] = f32::NEG_INFINITY;
                }
                let hardest = max(s);
                if let Some(positive) = positive {
                    s[positive] = anchor.positive;
                }
                anchor.hardest = anchor.hardest.max(hardest);
                highest = highest.max(hardest).max(*peak);
                if highest == f32::NEG_INFINITY {
                    continue; // Nothing but the anchor itself so far.
                }
                let shrink = exp(*peak - highest);
                let (tile_mass, tile_moment) = exp_sums(s, highest);
                (*peak, *mass, *moment) =
                    (highest, *mass * shrink + tile_mass, *moment * shrink + tile_moment);
            }
        },
    );
    for (anchor, (peak, mass, moment)) in anchors.iter_mut().zip(running) {
        anchor.lse = peak + mass.ln();
        anchor.entropy = anchor.lse - moment / mass;
    }
}

/// [`super::nt_xent_backward`].
pub fn backward(
    cpu: &Cpu,
    shape: &ContrastiveShape,
    z: &[f32],
    all: &[f32],
    lse: &[f32],
    factor: f32,
    dz: &mut [f32],
) {
    let scale = factor / shape.temperature;
    gradient(
        cpu,
        shape,
        (z, all),
        scale,
        dz,
        #[inline(always)]
        |tile| {
            let others = &lse[tile.first..][..tile.columns];
            for row in 0..tile.values.len() / tile.columns {
                let own = lse[shape.offset + tile.start + row];
                let positive = tile.positive(shape, row);
                let weights = &mut tile.values[row * tile.columns..][..tile.columns];
                weights.iter_mut().zip(others).for_each(|(w, other)| *w = exp(*w - own) + exp(*w - other));
                if let Some(positive) = positive {
                    weights[positive] -= 2.0;
                }
            }
        },
    );
}
