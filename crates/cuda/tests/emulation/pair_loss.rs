use simclr_cuda::Launcher;
use simclr_cuda::ops::{nt_xent, pair_loss};
use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::nt_xent::{Anchor, nt_xent_forward};
use simclr_kernels::pair_loss::{self as cpu, Pair, PairLoss, Term};

use crate::support::*;
use simclr_stand_in::{Values, compiler, in_every_order};

const LOSSES: [PairLoss; 4] = [
    PairLoss { term: Term::Logistic, semi_hard: false },
    PairLoss { term: Term::Logistic, semi_hard: true },
    PairLoss { term: Term::Margin(0.4), semi_hard: false },
    PairLoss { term: Term::Margin(0.4), semi_hard: true },
];

/// Anchors, views before and after them, dimensions, temperature, largest value: one tile and several, tails of
/// each kind, one worker of several, enough views for several splits, similarities whose exponentials overflow a float.
const SHAPES: [(usize, usize, usize, usize, f32, i32); 5] = [
    (4, 0, 0, 1, 1.0, 2),
    (6, 0, 0, 7, 0.5, 1),
    (70, 66, 20, 33, 4.0, 1),
    (4, 130, 250, 8, 0.5, 1),
    (10, 6, 4, 129, 0.25, 3),
];

/// Whole numbers, whose products are exact in any order of addition: all forms mine the same negatives, and ties are
/// exact.
fn whole(len: usize, most: i32, seed: u32) -> Vec<f32> {
    noise(len, seed).iter().map(|v| (v * (2 * most + 1) as f32).round()).collect()
}

/// The results of forward and backward.
type Found = (Vec<f32>, Vec<f32>, Vec<f64>, Vec<f32>);

fn run(
    gpu: &dyn Launcher,
    shape: &ContrastiveShape,
    loss: PairLoss,
    all: &[f32],
    others: &[f32],
    (factor, dy): (f32, f32),
) -> Found {
    let (all, mut anchors) = (Values::of(all), Values::<f32>::fresh(4 * shape.anchors));
    nt_xent::forward(gpu, shape, all.read(), anchors.write()).unwrap();
    let (mut pairs, mut losses) =
        (Values::<f32>::fresh(4 * shape.anchors), Values::<f32>::fresh(shape.anchors));
    pair_loss::forward(gpu, shape, loss, all.read(), anchors.read(), pairs.write(), losses.write()).unwrap();
    let mut sums = Values::<f64>::fresh(3);
    pair_loss::figures(gpu, anchors.read(), losses.read(), sums.write()).unwrap();
    let mut known = others.to_vec();
    known[4 * shape.offset..][..4 * shape.anchors].copy_from_slice(&pairs.get());
    let (known, dy) = (Values::of(&known), Values::of(&[dy]));
    let mut dz = Values::<f32>::fresh(shape.anchors * shape.dim);
    pair_loss::backward(gpu, shape, loss, all.read(), known.read(), factor, dy.read(), dz.write()).unwrap();
    (pairs.get(), losses.get(), sums.get(), dz.get())
}

#[test]
fn losses_pairs_and_gradient_are_those_of_the_portable_form() {
    if compiler().is_none() {
        return;
    }
    for ((anchors, before, after, dim, temperature, most), loss) in
        SHAPES.into_iter().flat_map(|shape| LOSSES.map(|loss| (shape, loss)))
    {
        let count = before + anchors + after;
        let all = whole(count * dim, most, (count + dim) as u32);
        let shape = ContrastiveShape { anchors, views: count, offset: before, dim, temperature };
        let mut found = vec![Anchor::default(); anchors];
        nt_xent_forward(&portable(), &shape, &all, &mut found);
        let (mut pairs, mut losses) = (vec![Pair::default(); anchors], vec![0.0; anchors]);
        cpu::pair_loss_forward(&portable(), &shape, loss, &all, &found, &mut pairs, &mut losses);
        // Plausible values for the pairs of other workers.
        let mut known: Vec<Pair> = (0..count).map(|k| pairs[k % anchors]).collect();
        for (k, pair) in known.iter_mut().enumerate() {
            pair.negative = ((7 * k) % count) as f32;
        }
        let others: Vec<f32> = values_of(&known);
        known[before..before + anchors].copy_from_slice(&pairs);
        let (factor, dy) = (0.25, 2.0);
        let got = in_every_order(|gpu| run(gpu, &shape, loss, &all, &others, (factor, dy)));

        let what = format!("{loss:?} {shape:?}");
        let want_pairs = values_of(&pairs);
        for (i, (got, want)) in got.0.iter().zip(&want_pairs).enumerate() {
            let near = (got - want).abs() <= 1e-5 * (1.0 + want.abs());
            assert!(if i % 4 == 2 { got == want } else { near }, "{what}: {i}: {got} {want}");
        }
        for (got, want) in got.1.iter().zip(&losses) {
            assert!((got - want).abs() <= 2e-5 * (1.0 + want), "{what}: {got} {want}");
        }
        let sum = |of: fn(&Anchor) -> f64| found.iter().map(of).sum::<f64>();
        let close = |got: f64, want: f64| (got - want).abs() <= 1e-4 * (1.0 + want.abs());
        assert!(close(got.2[0], losses.iter().map(|l| f64::from(*l)).sum()), "{what}");
        assert_eq!(got.2[1], sum(|a| f64::from(u8::from(a.positive > a.hardest))), "{what}");
        let mut dz = vec![0.0; anchors * dim];
        cpu::pair_loss_backward(&portable(), &shape, loss, &all, &known, factor * dy, &mut dz);
        assert_close(&what, &got.3, &dz, 1e-5);
    }
}

/// The four values of each pair.
fn values_of(pairs: &[Pair]) -> Vec<f32> {
    pairs.iter().flat_map(|pair| [pair.positive, pair.pull, pair.negative, pair.push]).collect()
}

#[test]
fn a_nan_reaches_the_loss() {
    if compiler().is_none() {
        return;
    }
    let mut z = noise(32, 3);
    z[5] = f32::NAN;
    let shape = ContrastiveShape { anchors: 8, views: 8, offset: 0, dim: 4, temperature: 0.5 };
    for loss in LOSSES {
        let nan = in_every_order(|gpu| {
            let (_, losses, sums, _) = run(gpu, &shape, loss, &z, &[0.0; 32], (1.0, 1.0));
            losses[1].is_nan() && sums[0].is_nan()
        });
        assert!(nan, "{loss:?}");
    }
}

/// Indices of negatives that are out of range are not used as they are.
#[test]
fn lengths_and_places_are_checked() {
    if compiler().is_none() {
        return;
    }
    let z = noise(32, 3);
    let shape = ContrastiveShape { anchors: 8, views: 8, offset: 0, dim: 4, temperature: 0.5 };
    let sums = in_every_order(|gpu| {
        let (z, mut dz, dy) = (Values::of(&z), Values::<f32>::fresh(32), Values::of(&[1.0]));
        let pairs = Values::of(&[1.0, 0.5, 1e9, 0.5].repeat(8));
        let loss = PairLoss { term: Term::Logistic, semi_hard: true };
        pair_loss::backward(gpu, &shape, loss, z.read(), pairs.read(), 1.0, dy.read(), dz.write()).unwrap();
        let lonely = ContrastiveShape { anchors: 2, views: 2, ..shape };
        let (two, few) = (Values::of(&[1.0; 8]), Values::of(&[1.0; 8]));
        let (mut pairs, mut losses) = (Values::<f32>::fresh(8), Values::<f32>::fresh(2));
        let error =
            pair_loss::forward(gpu, &lonely, loss, two.read(), few.read(), pairs.write(), losses.write());
        assert!(error.unwrap_err().to_string().contains("negatives are needed"));
        dz.get()
    });
    assert!(sums.iter().all(|v| v.is_finite()));
}
