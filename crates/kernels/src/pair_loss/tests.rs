use super::*;
use crate::Isa;
use crate::nt_xent::nt_xent_forward;
use crate::testing::{cpu, views};

const TEMPERATURE: f32 = 0.5;

/// Every loss, at margins that leave some triples active and others not.
const LOSSES: [PairLoss; 5] = [
    PairLoss { term: Term::Logistic, semi_hard: false },
    PairLoss { term: Term::Logistic, semi_hard: true },
    PairLoss { term: Term::Margin(0.4), semi_hard: false },
    PairLoss { term: Term::Margin(0.4), semi_hard: true },
    PairLoss { term: Term::Margin(0.0), semi_hard: false },
];

/// A worker's anchors, other views before and after them, width: tails of each kind, one tile and several, few images.
const SHAPES: [(usize, usize, usize, usize); 8] = [
    (4, 0, 0, 1),
    (4, 0, 0, 3),
    (6, 0, 0, 7),
    (2, 2, 4, 7),
    (20, 6, 0, 128),
    (254, 0, 0, 5),
    (140, 130, 20, 33),
    (258, 0, 300, 16),
];

fn shape_of((anchors, before, after, dim): (usize, usize, usize, usize)) -> ContrastiveShape {
    let views = before + anchors + after;
    ContrastiveShape { anchors, views, offset: before, dim, temperature: TEMPERATURE }
}

/// Runs the forward pass for a worker's anchors.
fn forward(cpu: &Cpu, shape: &ContrastiveShape, loss: PairLoss, all: &[f32]) -> (Vec<Pair>, Vec<f32>) {
    let mut anchors = vec![Anchor::default(); shape.anchors];
    nt_xent_forward(cpu, shape, all, &mut anchors);
    let (mut pairs, mut losses) = (vec![Pair::default(); shape.anchors], vec![f32::NAN; shape.anchors]);
    pair_loss_forward(cpu, shape, loss, all, &anchors, &mut pairs, &mut losses);
    (pairs, losses)
}

/// The similarities of view `i` to all views, in f64.
fn similarities(shape: &ContrastiveShape, all: &[f64], i: usize) -> Vec<f64> {
    let row = |k: usize| &all[k * shape.dim..][..shape.dim];
    let dot = |k: usize| row(i).iter().zip(row(k)).map(|(a, b)| a * b).sum::<f64>();
    (0..shape.views).map(|k| dot(k) / f64::from(shape.temperature)).collect()
}

/// The index of the negative to mine, by the definition.
fn mined(s: &[f64], i: usize, j: usize) -> usize {
    let negatives = || (0..s.len()).filter(|k| ![i, j].contains(k));
    let below = negatives().filter(|&k| s[k] < s[j]).reduce(|a, b| if s[b] > s[a] { b } else { a });
    below.unwrap_or_else(|| negatives().reduce(|a, b| if s[b] < s[a] { b } else { a }).unwrap())
}

/// l_i as the papers define it. `known` fixes the mined negative's index while z moves.
fn direct(
    shape: &ContrastiveShape,
    loss: PairLoss,
    all: &[f64],
    i: usize,
    j: usize,
    known: Option<usize>,
) -> f64 {
    let s = similarities(shape, all, i);
    let plus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let triple = |k: usize| match loss.term {
        Term::Logistic => plus(-s[j]) + plus(s[k]),
        Term::Margin(margin) => (f64::from(TEMPERATURE) * (s[k] - s[j]) + f64::from(margin)).max(0.0),
    };
    if loss.semi_hard {
        return triple(known.unwrap_or_else(|| mined(&s, i, j)));
    }
    let negatives: Vec<f64> = (0..shape.views).filter(|k| ![i, j].contains(k)).map(triple).collect();
    negatives.iter().sum::<f64>() / negatives.len() as f64
}

/// The positive of view `i`, where the views before this worker's own belong to one other worker, and those after
/// them to another.
fn positive(shape: &ContrastiveShape, i: usize) -> usize {
    let within = |start: usize, len: usize| start + (i - start + len / 2) % len;
    let end = shape.offset + shape.anchors;
    match i {
        i if i < shape.offset => within(0, shape.offset),
        i if i < end => within(shape.offset, shape.anchors),
        _ => within(end, shape.views - end),
    }
}

/// The shapes of all workers of a batch, which hold the views before, at and after `shape`'s own.
fn workers(shape: &ContrastiveShape) -> Vec<ContrastiveShape> {
    let end = shape.offset + shape.anchors;
    let parts = [(0, shape.offset), (shape.offset, shape.anchors), (end, shape.views - end)];
    let parts = parts.into_iter().filter(|(_, anchors)| *anchors > 0);
    parts.map(|(offset, anchors)| ContrastiveShape { anchors, offset, ..*shape }).collect()
}

#[test]
fn losses_are_those_of_the_definition_on_every_shape() {
    for sizes in SHAPES {
        let shape = shape_of(sizes);
        let all = views(shape.views, shape.dim);
        let wide: Vec<f64> = all.iter().map(|v| f64::from(*v)).collect();
        for (isa, loss) in Isa::all().into_iter().flat_map(|isa| LOSSES.map(|loss| (isa, loss))) {
            let (pairs, losses) = forward(&cpu(isa, 2), &shape, loss, &all);
            for (row, (pair, got)) in pairs.iter().zip(&losses).enumerate() {
                let (i, j) = (shape.offset + row, shape.positive(row));
                // Two nearly equal negatives may be mistaken for each other: the mined one must be as good.
                let s = similarities(&shape, &wide, i);
                let place = pair.negative as usize;
                let near = (s[place] - s[mined(&s, i, j)]).abs() < 1e-5;
                assert!(!loss.semi_hard || near && ![i, j].contains(&place), "{loss:?} {shape:?} {i}");
                let want = direct(&shape, loss, &wide, i, j, Some(place));
                assert!(
                    (f64::from(*got) - want).abs() < 2e-6 * (1.0 + want),
                    "{loss:?} {shape:?}: {got} {want}"
                );
            }
        }
    }
}

/// Compares with finite differences of the definition, including a view's part in other workers' losses.
#[test]
fn gradients_are_those_of_finite_differences_over_all_workers() {
    let step = 1e-6;
    for sizes in [(4, 0, 0, 1), (4, 0, 0, 3), (6, 0, 0, 7), (2, 2, 4, 7), (8, 6, 4, 5)] {
        let shape = shape_of(sizes);
        let all = views(shape.views, shape.dim);
        let wide: Vec<f64> = all.iter().map(|v| f64::from(*v)).collect();
        for loss in LOSSES {
            let cpu = cpu(Isa::detect(), 1);
            let pairs: Vec<Pair> =
                workers(&shape).iter().flat_map(|shape| forward(&cpu, shape, loss, &all).0).collect();
            let total = |z: &[f64]| -> f64 {
                let of = |i: usize| {
                    let known = pairs[i].negative as usize;
                    direct(&shape, loss, z, i, positive(&shape, i), Some(known))
                };
                (0..shape.views).map(of).sum()
            };
            let mut dz = vec![f32::NAN; shape.anchors * shape.dim];
            pair_loss_backward(&cpu, &shape, loss, &all, &pairs, 0.5, &mut dz);
            for (at, got) in dz.iter().enumerate() {
                let mut moved = wide.clone();
                let place = shape.offset * shape.dim + at;
                moved[place] = wide[place] + step;
                let up = total(&moved);
                moved[place] = wide[place] - step;
                let want = 0.5 * (up - total(&moved)) / (2.0 * step);
                let off = (f64::from(*got) - want).abs();
                assert!(off < 2e-5 * (1.0 + want.abs()), "{loss:?} {shape:?} {at}: {got} {want}");
            }
        }
    }
}

/// Compares the gradient's walk in tiles, with all its tails, with the sum in the module's documentation.
#[test]
fn gradients_are_those_of_the_sum_on_every_shape() {
    for sizes in SHAPES {
        let shape = shape_of(sizes);
        let all = views(shape.views, shape.dim);
        let wide: Vec<f64> = all.iter().map(|v| f64::from(*v)).collect();
        for (isa, loss) in Isa::all().into_iter().flat_map(|isa| LOSSES.map(|loss| (isa, loss))) {
            let cpu = cpu(isa, 2);
            let pairs: Vec<Pair> =
                workers(&shape).iter().flat_map(|shape| forward(&cpu, shape, loss, &all).0).collect();
            let mut dz = vec![f32::NAN; shape.anchors * shape.dim];
            pair_loss_backward(&cpu, &shape, loss, &all, &pairs, 1.0, &mut dz);
            let share = 1.0 / shape.negatives() as f64;
            let weight = |s: f64, i: usize, k: usize| match loss {
                PairLoss { semi_hard: true, .. } if pairs[i].negative as usize != k => 0.0,
                PairLoss { semi_hard: true, .. } => f64::from(pairs[i].push),
                PairLoss { term: Term::Logistic, .. } => share / (1.0 + (-s).exp()),
                PairLoss { term: Term::Margin(margin), .. } => {
                    let margin = f64::from(margin / TEMPERATURE);
                    if s - f64::from(pairs[i].positive) + margin > 0.0 { share } else { 0.0 }
                }
            };
            let unit = f64::from(loss.term.unit(TEMPERATURE) / TEMPERATURE);
            for row in (0..shape.anchors).step_by(17) {
                let (i, j) = (shape.offset + row, shape.positive(row));
                let s = similarities(&shape, &wide, i);
                // A triple near the threshold may be active in only one of the two computations.
                let nearly = |s: f64, i: usize| match loss {
                    PairLoss { term: Term::Margin(margin), semi_hard: false } => {
                        (s - f64::from(pairs[i].positive) + f64::from(margin / TEMPERATURE)).abs() < 1e-5
                    }
                    _ => false,
                };
                let others = (0..shape.views).filter(|&k| k != i && k != j);
                let slack: f64 = others
                    .map(|k| share * f64::from(u8::from(nearly(s[k], i)) + u8::from(nearly(s[k], k))))
                    .sum();
                let weights: Vec<f64> = (0..shape.views)
                    .map(|k| match k {
                        k if k == i => 0.0,
                        k if k == j => -f64::from(pairs[i].pull) - f64::from(pairs[j].pull),
                        k => weight(s[k], i, k) + weight(s[k], k, i),
                    })
                    .collect();
                for c in 0..shape.dim {
                    let column = weights.iter().enumerate().map(|(k, w)| w * wide[k * shape.dim + c]);
                    let (got, want) = (f64::from(dz[row * shape.dim + c]), unit * column.sum::<f64>());
                    assert!((got - want).abs() < 1e-5 + unit * slack, "{loss:?} {shape:?} {i}: {got} {want}");
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let shape = shape_of((600, 0, 0, 24));
    let z = views(600, 24);
    for loss in LOSSES {
        let run = |threads| {
            let cpu = cpu(Isa::detect(), threads);
            let (pairs, losses) = forward(&cpu, &shape, loss, &z);
            let mut dz = vec![f32::NAN; z.len()];
            pair_loss_backward(&cpu, &shape, loss, &z, &pairs, 1.0, &mut dz);
            (pairs, losses, dz)
        };
        let one = run(1);
        assert!([2, 4].map(run).iter().all(|other| *other == one), "{loss:?}");
    }
}

/// A view equal to the positive is as similar as it, whatever the temperature, and never mined.
#[test]
fn a_copy_of_the_positive_is_not_semi_hard() {
    for temperature in [0.07f32, 0.1, 0.2, 0.3, 0.5, 0.9] {
        for dim in [3, 24, 128] {
            let mut z = views(300, dim);
            // Views 0 to 149 are first views, whose positives 150 to 299 have copies among the first views.
            for i in 0..75 {
                z.copy_within((150 + i) * dim..(151 + i) * dim, (75 + i) * dim);
            }
            let shape = ContrastiveShape { temperature, ..shape_of((300, 0, 0, dim)) };
            let loss = PairLoss { term: Term::Margin(0.3), semi_hard: true };
            let (pairs, _) = forward(&cpu(Isa::detect(), 1), &shape, loss, &z);
            let wide: Vec<f64> = z.iter().map(|&v| f64::from(v)).collect();
            let mut asked = 0;
            for (i, pair) in pairs.iter().enumerate().take(75) {
                // Where no view is less similar than the positive, its copy is one of the least similar.
                let s = similarities(&shape, &wide, i);
                if s.iter().any(|&other| other < s[150 + i] - 1e-3) {
                    assert_ne!(pair.negative, (75 + i) as f32, "{temperature} {dim}: {pair:?}");
                    asked += 1;
                }
            }
            assert!(asked > 50, "{asked}");
        }
    }
    // View 1 is a copy of view 3, the positive of view 0; the most similar of the others is view 5.
    let z = [1.0, 0.65, 0.2, 0.65, 0.1, 0.3];
    let shape = ContrastiveShape { anchors: 6, views: 6, offset: 0, dim: 1, temperature: 0.1 };
    let loss = PairLoss { term: Term::Margin(0.4), semi_hard: true };
    let (pairs, losses) = forward(&cpu(Isa::detect(), 1), &shape, loss, &z);
    assert_eq!(pairs[0].negative, 5.0);
    assert!((losses[0] - 0.05).abs() < 1e-6, "{losses:?}");
}

/// Forward results for whole numbers, whose products are exact in every order, at a temperature of 1.
fn whole(z: &[f32], term: Term) -> (Vec<Pair>, Vec<f32>) {
    let shape = ContrastiveShape { anchors: z.len(), views: z.len(), offset: 0, dim: 1, temperature: 1.0 };
    forward(&cpu(Isa::detect(), 1), &shape, PairLoss { term, semi_hard: true }, z)
}

#[test]
fn of_equals_the_first_is_mined_and_one_as_similar_as_the_positive_is_not() {
    // View 0 is 1, so its similarity to each view is that view's value: 2 to its positive, view 5.
    let (pairs, losses) = whole(&[1.0, 0.0, 3.0, 2.0, 1.0, 2.0, 3.0, 0.0, 2.0, 1.0], Term::Margin(3.0));
    assert_eq!((pairs[0].positive, pairs[0].negative), (2.0, 4.0));
    assert_eq!(losses[0], 1.0 - 2.0 + 3.0);
    // View 1 is equally similar to all: none is less similar than its positive, so the first of the least is taken.
    assert_eq!((pairs[1].positive, pairs[1].negative, losses[1]), (0.0, 0.0, 3.0));
}

#[test]
fn an_anchor_without_a_semi_hard_negative_takes_the_least_similar() {
    // View 0's similarity to its positive is -1, and those to all others are greater: 4, 2, 3, 5.
    for (term, want) in [(Term::Margin(0.5), 2.0 + 1.0 + 0.5), (Term::Logistic, 0.0)] {
        let (pairs, losses) = whole(&[1.0, 4.0, 2.0, -1.0, 3.0, 5.0], term);
        assert_eq!((pairs[0].positive, pairs[0].negative), (-1.0, 2.0));
        let want = if want > 0.0 { want } else { (1f32.exp().ln_1p()) + (2f32.exp().ln_1p()) };
        assert!((losses[0] - want).abs() < 1e-5, "{term:?}: {} {want}", losses[0]);
    }
    // Triplets stay active even where all views have collapsed to one point.
    let (pairs, losses) = whole(&[1.0; 6], Term::Margin(0.5));
    assert!(pairs.iter().all(|pair| pair.push == 1.0) && losses == [0.5; 6]);
}

#[test]
fn a_nan_reaches_the_loss_of_its_own_view() {
    let shape = shape_of((6, 0, 0, 3));
    for (loss, place) in LOSSES.into_iter().flat_map(|loss| [0, 7, 17].map(|place| (loss, place))) {
        let mut z = views(6, 3);
        z[place] = f32::NAN;
        let (_, losses) = forward(&cpu(Isa::detect(), 1), &shape, loss, &z);
        assert!(losses[place / 3].is_nan(), "{loss:?}: {losses:?}");
    }
}
