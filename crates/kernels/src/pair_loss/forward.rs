//! The forward pass: sums over the negatives of an anchor, or a search among them.

use super::{Pair, PairLoss, Term};
use crate::Cpu;
use crate::contrastive::{ContrastiveShape, ROWS, positives, values, walk};
use crate::math::{sigmoid, softplus};
use crate::nt_xent::Anchor;

/// Lanes of the fixed-order reductions: one AVX-512 vector, whatever the instruction set.
const LANES: usize = 16;

/// [`super::pair_loss_forward`].
pub fn forward(
    cpu: &Cpu,
    shape: &ContrastiveShape,
    loss: PairLoss,
    all: &[f32],
    anchors: &[Anchor],
    pairs: &mut [Pair],
    losses: &mut [f32],
) {
    cpu.threads.run_chunk_pairs(pairs, losses, ROWS, |piece, pairs, losses| {
        let start = piece * ROWS;
        let places = start..start + pairs.len();
        for (pair, anchor) in pairs.iter_mut().zip(&anchors[places]) {
            *pair = Pair { positive: anchor.positive, ..Pair::default() };
        }
        let values = &mut *values();
        cpu.isa.vectorize(
            #[inline(always)]
            || match loss {
                PairLoss { term, semi_hard: true } => {
                    of_mined(shape, term, all, start, pairs, losses, values)
                }
                PairLoss { term: Term::Logistic, .. } => {
                    let sums = over_negatives(
                        shape,
                        all,
                        (start, pairs),
                        values,
                        #[inline(always)]
                        |s, _| [softplus(s), 0.0],
                    );
                    for ((pair, loss), [sum, _]) in pairs.iter_mut().zip(losses).zip(sums) {
                        pair.pull = sigmoid(-pair.positive);
                        *loss = softplus(-pair.positive) + (sum / shape.negatives() as f64) as f32;
                    }
                }
                PairLoss { term: Term::Margin(margin), .. } => {
                    let margin = margin / shape.temperature;
                    let sums = over_negatives(
                        shape,
                        all,
                        (start, pairs),
                        values,
                        #[inline(always)]
                        |s, positive| {
                            let short = s - positive + margin;
                            [hinge(short), if short > 0.0 { 1.0 } else { 0.0 }]
                        },
                    );
                    for ((pair, loss), [sum, active]) in pairs.iter_mut().zip(losses).zip(sums) {
                        pair.pull = (active / shape.negatives() as f64) as f32;
                        *loss = shape.temperature * (sum / shape.negatives() as f64) as f32;
                    }
                }
            },
        )
    });
}

/// max(x, 0), or NaN if x is NaN.
#[inline(always)]
fn hinge(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// For each anchor, the sums over its negatives of the two terms of `terms(s(i,k), s(i,j))`, which must be 0 for a
/// similarity of -infinity.
#[inline(always)]
fn over_negatives(
    shape: &ContrastiveShape,
    all: &[f32],
    (start, pairs): (usize, &[Pair]),
    values: &mut [f32],
    terms: impl Fn(f32, f32) -> [f32; 2],
) -> [[f64; 2]; ROWS] {
    let mut sums = [[0f64; 2]; ROWS];
    walk(
        shape,
        all,
        (start, pairs.len()),
        values,
        #[inline(always)]
        |tile| {
            for (row, (pair, sums)) in pairs.iter().zip(&mut sums).enumerate() {
                let mut lanes = [[0f32; LANES]; 2];
                let s = tile.negatives(shape, row);
                let chunks = s.chunks_exact(LANES);
                let rest = chunks.remainder();
                for s in chunks {
                    for lane in 0..LANES {
                        let [first, second] = terms(s[lane], pair.positive);
                        lanes[0][lane] += first;
                        lanes[1][lane] += second;
                    }
                }
                for (lane, s) in rest.iter().enumerate() {
                    let [first, second] = terms(*s, pair.positive);
                    lanes[0][lane] += first;
                    lanes[1][lane] += second;
                }
                for (sum, lanes) in sums.iter_mut().zip(lanes) {
                    *sum += f64::from(lanes.iter().sum::<f32>());
                }
            }
        },
    );
    sums
}

/// The search for an anchor's semi-hard negative: what the tiles so far contained.
#[derive(Clone, Copy)]
struct Mined {
    /// The greatest similarity below the positive's, and its index.
    below: f32,
    below_at: usize,
    /// The least similarity of a negative, and its index.
    least: f32,
    least_at: usize,
}

#[inline(always)]
fn of_mined(
    shape: &ContrastiveShape,
    term: Term,
    all: &[f32],
    start: usize,
    pairs: &mut [Pair],
    losses: &mut [f32],
    values: &mut [f32],
) {
    positives(shape, all, (start, pairs.len()), values, |row, s| pairs[row].positive = s);
    let mut mined =
        [Mined { below: f32::NEG_INFINITY, below_at: 0, least: f32::INFINITY, least_at: 0 }; ROWS];
    walk(
        shape,
        all,
        (start, pairs.len()),
        values,
        #[inline(always)]
        |tile| {
            for (row, (pair, mined)) in pairs.iter().zip(&mut mined).enumerate() {
                let first = tile.first;
                let s = tile.negatives(shape, row);
                let (below, least) = extremes(s, pair.positive);
                // The index is searched for only after a better value has been found, which is rare.
                let place = |value: f32| first + s.iter().position(|&s| s == value).unwrap_or(0);
                if below > mined.below {
                    (mined.below, mined.below_at) = (below, place(below));
                }
                if least < mined.least {
                    (mined.least, mined.least_at) = (least, place(least));
                }
            }
        },
    );
    for ((pair, loss), mined) in pairs.iter_mut().zip(losses).zip(mined) {
        let (s, at) = match mined.below > f32::NEG_INFINITY {
            true => (mined.below, mined.below_at),
            false => (mined.least, mined.least_at),
        };
        pair.negative = at as f32;
        match term {
            Term::Logistic => {
                *loss = softplus(-pair.positive) + softplus(s);
                (pair.pull, pair.push) = (sigmoid(-pair.positive), sigmoid(s));
            }
            Term::Margin(margin) => {
                let short = s - pair.positive + margin / shape.temperature;
                *loss = shape.temperature * hinge(short);
                pair.push = if short > 0.0 { 1.0 } else { 0.0 };
                pair.pull = pair.push;
            }
        }
    }
}

/// The greatest value below `bound`, or -infinity if there is none, and the least above -infinity, or infinity.
#[inline(always)]
fn extremes(s: &[f32], bound: f32) -> (f32, f32) {
    let (mut below, mut least) = ([f32::NEG_INFINITY; LANES], [f32::INFINITY; LANES]);
    let chunks = s.chunks_exact(LANES);
    let rest = chunks.remainder();
    for s in chunks {
        for lane in 0..LANES {
            (below[lane], least[lane]) = joined(below[lane], least[lane], s[lane], bound);
        }
    }
    for (lane, s) in rest.iter().enumerate() {
        (below[lane], least[lane]) = joined(below[lane], least[lane], *s, bound);
    }
    let below = below.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (below, least.into_iter().fold(f32::INFINITY, f32::min))
}

/// Updates the running `below` and `least` of [`extremes`] with the value `s`.
#[inline(always)]
fn joined(below: f32, least: f32, s: f32, bound: f32) -> (f32, f32) {
    (
        if s < bound && s > below { s } else { below },
        if s > f32::NEG_INFINITY && s < least { s } else { least },
    )
}
