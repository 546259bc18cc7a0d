//! The gradients: a walk over all similarities where every negative counts, a few rows per anchor with mining.

use super::{Pair, Term};
use crate::Cpu;
use crate::contrastive::{ContrastiveShape, ROWS, gradient};
use crate::math::sigmoid;

/// The gradient of a loss in which all negatives count.
pub fn of_all(
    cpu: &Cpu,
    shape: &ContrastiveShape,
    term: Term,
    all: &[f32],
    pairs: &[Pair],
    scale: f32,
    dz: &mut [f32],
) {
    let share = 1.0 / shape.negatives() as f32;
    gradient(
        cpu,
        shape,
        all,
        scale,
        dz,
        #[inline(always)]
        |tile| {
            let others = &pairs[tile.first..][..tile.columns];
            for row in 0..tile.values.len() / tile.columns {
                let own = &pairs[shape.offset + tile.start + row];
                let positive = tile.positive(shape, row);
                let weights = &mut tile.values[row * tile.columns..][..tile.columns];
                // An anchor's similarity to itself is -infinity and weighs nothing.
                match term {
                    Term::Logistic => weights.iter_mut().for_each(|w| *w = 2.0 * share * sigmoid(*w)),
                    Term::Margin(margin) => {
                        let margin = margin / shape.temperature;
                        let active = |s: f32, pair: &Pair| {
                            if s - pair.positive + margin > 0.0 { share } else { 0.0 }
                        };
                        let weights = weights.iter_mut().zip(others);
                        weights.for_each(|(w, other)| *w = active(*w, own) + active(*w, other));
                    }
                }
                if let Some(column) = positive {
                    weights[column] = -(own.pull + others[column].pull);
                }
            }
        },
    );
}

/// The gradient of a loss with one mined negative per anchor.
pub fn of_mined(
    cpu: &Cpu,
    shape: &ContrastiveShape,
    all: &[f32],
    pairs: &[Pair],
    scale: f32,
    dz: &mut [f32],
) {
    let dim = shape.dim;
    let view = |k: usize| &all[k * dim..][..dim];
    cpu.threads.run_chunks(dz, ROWS * dim, |piece, dz| {
        let start = piece * ROWS;
        dz.fill(0.0);
        let mut add = |row: usize, weight: f32, view: &[f32]| {
            dz[row * dim..][..dim].iter_mut().zip(view).for_each(|(dz, z)| *dz += weight * z);
        };
        let rows = ROWS.min(shape.anchors - start);
        let first = shape.offset + start;
        for row in 0..rows {
            let (own, positive) = (&pairs[first + row], shape.positive(start + row));
            add(row, own.push, view(own.negative as usize));
            add(row, -(own.pull + pairs[positive].pull), view(positive));
        }
        // Anchors of any worker that mined one of these rows.
        for (k, pair) in pairs.iter().enumerate() {
            let row = (pair.negative as usize).wrapping_sub(first);
            if row < rows {
                add(row, pair.push, view(k));
            }
        }
        dz.iter_mut().for_each(|v| *v *= scale);
    });
}
