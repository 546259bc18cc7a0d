//! The form for similarities of any size: every row keeps a running maximum.

use super::{Anchor, Known};
use crate::Cpu;
use crate::contrastive::{ContrastiveShape, ROWS, gradient, values, walk};
use crate::math::{exp, exp_sums, max};

/// [`super::nt_xent_forward`].
pub fn forward(cpu: &Cpu, shape: &ContrastiveShape, all: &[f32], anchors: &mut [Anchor]) {
    cpu.threads.run_chunks(anchors, ROWS, |piece, anchors| {
        let mut values = values();
        cpu.isa.vectorize(
            #[inline(always)]
            || forward_rows(shape, all, piece * ROWS, anchors, &mut values),
        );
    });
}

#[inline(always)]
fn forward_rows(
    shape: &ContrastiveShape,
    all: &[f32],
    start: usize,
    anchors: &mut [Anchor],
    values: &mut [f32],
) {
    // The greatest s of each row's negatives so far, and the mass and moment of their exponentials relative to it.
    let mut running = [(f32::NEG_INFINITY, 0f32, 0f32); ROWS];
    walk(
        shape,
        all,
        (start, anchors.len()),
        values,
        #[inline(always)]
        |tile| {
            for (row, (anchor, (peak, mass, moment))) in anchors.iter_mut().zip(&mut running).enumerate() {
                if let Some(positive) = tile.positive(shape, row) {
                    anchor.positive = tile.values[row * tile.columns + positive];
                }
                let s = tile.negatives(shape, row);
                let highest = max(s).max(*peak);
                // -infinity: no negative so far, or a NaN, which must stay visible.
                let reference = if highest > f32::NEG_INFINITY { highest } else { 0.0 };
                let (tile_mass, tile_moment) = exp_sums(s, reference);
                if *peak > f32::NEG_INFINITY {
                    let (rise, shrink) = (*peak - highest, exp(*peak - highest));
                    (*mass, *moment) = (*mass * shrink, (*moment + *mass * rise) * shrink);
                }
                (*peak, *mass, *moment) = (highest, *mass + tile_mass, *moment + tile_moment);
            }
        },
    );
    for (anchor, (hardest, mass, moment)) in anchors.iter_mut().zip(running) {
        let reference = if hardest > f32::NEG_INFINITY { hardest } else { anchor.positive };
        *anchor = Anchor::new(reference, (mass, moment), anchor.positive, hardest);
    }
}

/// [`super::nt_xent_backward`].
pub fn backward(cpu: &Cpu, shape: &ContrastiveShape, all: &[f32], known: Known, factor: f32, dz: &mut [f32]) {
    let (scale, lse) = (factor / shape.temperature, known.lse);
    gradient(
        cpu,
        shape,
        all,
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
                    weights[positive] = known.positive_weight(shape, tile.start + row);
                }
            }
        },
    );
}
