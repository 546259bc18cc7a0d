use super::*;
use crate::Isa;
use crate::testing::{cpu, views};

/// The paper's loops (algorithm 1), as written there, in f64.
fn naive(z: &[f32], dim: usize, temperature: f32) -> f64 {
    let count = z.len() / dim;
    let s = |i: usize, k: usize| -> f64 {
        (0..dim).map(|c| f64::from(z[i * dim + c]) * f64::from(z[k * dim + c])).sum::<f64>()
            / f64::from(temperature)
    };
    let mut total = 0.0;
    for i in 0..count {
        let denominator: f64 = (0..count).filter(|&k| k != i).map(|k| s(i, k).exp()).sum();
        total -= (s(i, (i + count / 2) % count).exp() / denominator).ln();
    }
    total / count as f64
}

fn loss(cpu: &Cpu, z: &[f32], dim: usize, temperature: f32) -> (f64, Vec<f32>) {
    let anchors = z.len() / dim;
    let shape = ContrastiveShape { anchors, views: anchors, offset: 0, dim, temperature };
    let mut found = vec![Anchor::default(); anchors];
    nt_xent_forward(cpu, &shape, z, &mut found);
    let lse: Vec<f32> = found.iter().map(Anchor::lse).collect();
    let mut dz = vec![f32::NAN; z.len()];
    nt_xent_backward(cpu, &shape, z, &found, &lse, 1.0 / anchors as f32, &mut dz);
    (found.iter().map(|a| f64::from(a.loss)).sum::<f64>() / anchors as f64, dz)
}

#[test]
fn the_loss_is_the_papers_on_every_shape_of_tile() {
    for (count, dim) in [(2, 3), (6, 2), (254, 5), (256, 8), (258, 16), (600, 33)] {
        let z = views(count, dim);
        // Similarities up to 10, and up to 50: one temperature for each form.
        for (isa, temperature) in Isa::all().into_iter().flat_map(|isa| [(isa, 0.1), (isa, 0.02)]) {
            let (got, _) = loss(&cpu(isa, 2), &z, dim, temperature);
            let want = naive(&z, dim, temperature);
            assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{count}x{dim}: {got} {want}");
        }
    }
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    let (count, dim) = (10, 4);
    let mut z = views(count, dim);
    let (_, dz) = loss(&cpu(Isa::detect(), 1), &z, dim, 0.5);
    for i in 0..z.len() {
        let (value, step) = (z[i], 1e-2);
        z[i] = value + step;
        let up = naive(&z, dim, 0.5);
        z[i] = value - step;
        let down = naive(&z, dim, 0.5);
        z[i] = value;
        let want = (up - down) / f64::from((value + step) - (value - step));
        assert!((f64::from(dz[i]) - want).abs() < 1e-4, "{i}: {} {want}", dz[i]);
    }
}

/// Compares both forms on the same problem, also for a worker whose views lie between those of others.
#[test]
fn the_forms_agree() {
    for (anchors, views_before, views_after, dim) in [(2, 0, 0, 2), (300, 0, 0, 70), (140, 130, 20, 33)] {
        let all = views(views_before + anchors + views_after, dim);
        let count = all.len() / dim;
        let shape = ContrastiveShape { anchors, views: count, offset: views_before, dim, temperature: 0.1 };
        let z = &all[views_before * dim..][..anchors * dim];
        for isa in Isa::all() {
            let cpu = cpu(isa, 2);
            let bound = symmetric::bound(&cpu, &shape, &all).unwrap();
            let mut found = [vec![Anchor::default(); anchors], vec![Anchor::default(); anchors]];
            symmetric::forward(&cpu, &shape, &all, bound, &mut found[0]);
            online::forward(&cpu, &shape, &all, &mut found[1]);
            let near = |a: f32, b: f32| a == b || (a - b).abs() <= 2e-5 * (1.0 + b.abs());
            for (a, b) in found[0].iter().zip(&found[1]) {
                assert!(near(a.loss, b.loss) && near(a.positive, b.positive), "{a:?} {b:?}");
                assert!(near(a.entropy, b.entropy) && near(a.hardest, b.hardest), "{a:?} {b:?}");
            }
            // The forms must agree for any lse.
            let lse: Vec<f32> = (0..count).map(|i| 11.0 + (i % 7) as f32 * 0.3).collect();
            let mut gradients = [vec![f32::NAN; z.len()], vec![f32::NAN; z.len()]];
            let known = Known { anchors: &found[0], lse: &lse };
            symmetric::backward(&cpu, &shape, &all, known, bound, 0.5, &mut gradients[0]);
            online::backward(&cpu, &shape, &all, known, 0.5, &mut gradients[1]);
            let scale = gradients[1].iter().fold(0f32, |most, v| most.max(v.abs()));
            for (a, b) in gradients[0].iter().zip(&gradients[1]) {
                assert!((a - b).abs() <= 1e-5 * scale, "{anchors} {dim}: {a} {b}");
            }
        }
    }
}

#[test]
fn what_is_not_bounded_takes_the_other_form() {
    let shape = ContrastiveShape { anchors: 2, views: 2, offset: 0, dim: 1, temperature: 1.0 };
    let bound = |z: [f32; 2]| symmetric::bound(&cpu(Isa::detect(), 1), &shape, &z);
    assert_eq!(bound([3.0, -4.0]), Some(16.0));
    assert_eq!([bound([7.0, 0.0]), bound([f32::NAN, 0.0]), bound([0.0, f32::NAN])], [None; 3]);
    assert_eq!(bound([f32::INFINITY, 1.0]), None);
}

#[test]
fn workers_compute_the_gradient_of_one() {
    let (count, dim) = (8, 4);
    let z = views(2 * count, dim);
    let found_of = |shape: &ContrastiveShape| {
        let mut found = vec![Anchor::default(); shape.anchors];
        nt_xent_forward(&cpu(Isa::detect(), 1), shape, &z, &mut found);
        found
    };
    let halves: Vec<_> = (0..2)
        .map(|w| ContrastiveShape {
            anchors: count,
            views: 2 * count,
            offset: w * count,
            dim,
            temperature: 0.5,
        })
        .collect();
    let found: Vec<Anchor> = halves.iter().flat_map(found_of).collect();
    let lse: Vec<f32> = found.iter().map(Anchor::lse).collect();
    let total = |z: &[f32]| -> f64 {
        // The same loss by the definition, with positives within each worker's half.
        let s = |i: usize, k: usize| -> f64 {
            (0..dim).map(|c| f64::from(z[i * dim + c]) * f64::from(z[k * dim + c])).sum::<f64>() / 0.5
        };
        (0..2 * count)
            .map(|i| {
                let j = i / count * count + (i % count + count / 2) % count;
                let sum: f64 = (0..2 * count).filter(|&k| k != i).map(|k| s(i, k).exp()).sum();
                sum.ln() - s(i, j)
            })
            .sum()
    };
    let got: f64 = found.iter().map(|a| f64::from(a.loss)).sum();
    assert!((got - total(&z)).abs() < 1e-4);
    for (shape, found) in halves.iter().zip(found.chunks_exact(count)) {
        let mut dz = vec![0.0; count * dim];
        nt_xent_backward(&cpu(Isa::detect(), 1), shape, &z, found, &lse, 1.0, &mut dz);
        for (i, got) in dz.iter().enumerate() {
            let mut moved = z.clone();
            let at = shape.offset * dim + i;
            let step = 1e-2;
            moved[at] = z[at] + step;
            let up = total(&moved);
            let high = moved[at];
            moved[at] = z[at] - step;
            let want = (up - total(&moved)) / f64::from(high - moved[at]);
            assert!((f64::from(*got) - want).abs() < 2e-3, "{got} {want}");
        }
    }
}

#[test]
fn figures_of_an_anchor_are_those_of_its_softmax() {
    // The worked example: unnormalised products, tau = 0.1, views ordered as first views then second views.
    let pairs = [
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 0.0, 1.0],
        [-1.0, 0.0, 0.0],
        [0.9, 0.4, 0.0],
        [0.1, 0.9, 0.0],
        [0.0, 0.1, 0.9],
        [-0.9, -0.4, 0.0],
    ];
    let z: Vec<f32> = pairs.concat();
    let shape = ContrastiveShape { anchors: 8, views: 8, offset: 0, dim: 3, temperature: 0.1 };
    let mut found = [Anchor::default(); 8];
    nt_xent_forward(&cpu(Isa::detect(), 1), &shape, &z, &mut found);
    assert!((found[0].loss - 0.00071).abs() < 5e-6, "{}", found[0].loss);
    assert!((found[0].positive - 9.0).abs() < 1e-5 && (found[0].hardest - 1.0).abs() < 1e-5);
    assert!(found[0].entropy > 0.0 && found[0].entropy < 0.02);
}

#[test]
fn probabilities_are_at_most_1_however_large_similarities_are() {
    let (count, dim) = (48, 128);
    for (size, temperature) in [(1e3, 1.0), (3e3, 0.1), (1e4, 0.1), (1e6, 1.0)] {
        let z: Vec<f32> = views(count, dim).into_iter().map(|v| v * size).collect();
        let largest = z.iter().fold(0f32, |most, v| most.max(v.abs()));
        // Each of count views weighs at most 1 in the gradient of another view, and 1 in its own.
        let most = (count + 1) as f32 * largest / temperature / count as f32;
        for isa in Isa::all() {
            let (got, dz) = loss(&cpu(isa, 1), &z, dim, temperature);
            assert!(
                got.is_finite() && dz.iter().all(|v| v.abs() <= most),
                "{isa:?}, {size}, tau {temperature}"
            );
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let z = views(600, 24);
    for temperature in [0.2, 0.02] {
        let (one, gradient) = loss(&cpu(Isa::detect(), 1), &z, 24, temperature);
        for threads in [2, 4] {
            let (other, same) = loss(&cpu(Isa::detect(), threads), &z, 24, temperature);
            assert!(one == other && gradient == same);
        }
    }
}

/// z of 2^64 values, a product that wraps to 0.
#[test]
#[should_panic(expected = "z of")]
fn shapes_that_wrap_are_refused() {
    let shape = ContrastiveShape { anchors: 2, views: 2, offset: 0, dim: 1 << 63, temperature: 1.0 };
    nt_xent_forward(&cpu(Isa::detect(), 1), &shape, &[], &mut [Anchor::default(); 2]);
}

/// Pairs that each lie close to an axis, in either direction: views of one image are similar, all others orthogonal
/// or opposite.
fn separated(images: usize, dim: usize) -> Vec<f32> {
    let mut z = views(2 * images, dim);
    for (view, z) in z.chunks_exact_mut(dim).enumerate() {
        let image = view % images;
        z.iter_mut().for_each(|v| *v *= 0.15);
        z[image / 2] += if image.is_multiple_of(2) { 1.0 } else { -1.0 };
        let norm = z.iter().map(|v| v * v).sum::<f32>().sqrt();
        z.iter_mut().for_each(|v| *v /= norm);
    }
    z
}

/// [mean loss, mean entropy] and the gradient of the mean loss, in f64.
fn exact(z: &[f32], dim: usize, temperature: f32) -> ([f64; 2], Vec<f64>) {
    let count = z.len() / dim;
    let row = |i: usize| &z[i * dim..][..dim];
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let tau = f64::from(temperature);
    let positive = |i: usize| (i + count / 2) % count;
    // Relative to the positive's s, the greatest here: e^(s - s(i,j)) of all negatives, and their sum.
    let weights: Vec<(Vec<f64>, f64)> = (0..count)
        .map(|i| {
            let own = dot(row(i), row(positive(i)));
            let weight = |k| ((dot(row(i), row(k)) - own) / tau).exp();
            let weights: Vec<f64> =
                (0..count).map(|k| if k == i || k == positive(i) { 0.0 } else { weight(k) }).collect();
            let sum = weights.iter().sum();
            (weights, sum)
        })
        .collect();
    let (mut figures, mut dz) = ([0.0; 2], vec![0.0; z.len()]);
    for (i, (own, sum)) in weights.iter().enumerate() {
        let loss = sum.ln_1p();
        figures[0] += loss / count as f64;
        let spread: f64 = own.iter().filter(|&&w| w > 0.0).map(|w| w * -w.ln()).sum();
        figures[1] += (loss + spread / (1.0 + sum)) / count as f64;
        let mut add = |k: usize, weight: f64| {
            for (dz, z) in dz[i * dim..][..dim].iter_mut().zip(row(k)) {
                *dz += weight * f64::from(*z) / tau / count as f64;
            }
        };
        for k in (0..count).filter(|&k| k != i && k != positive(i)) {
            add(k, own[k] / (1.0 + sum) + weights[k].0[i] / (1.0 + weights[k].1));
        }
        let j = positive(i);
        add(j, -(sum / (1.0 + sum) + weights[j].1 / (1.0 + weights[j].1)));
    }
    (figures, dz)
}

/// Small losses keep their relative accuracy, on either side of the limit between the forms.
#[test]
fn small_losses_are_as_exact_as_large_ones() {
    let dim = 80;
    let z = separated(150, dim);
    for temperature in [0.1, 0.05, 1.0 / 41.9, 1.0 / 42.1, 0.02] {
        let (want, gradient) = exact(&z, dim, temperature);
        assert!(want[0] < 0.02 && want[1] < 0.2);
        for isa in Isa::all() {
            let shape = ContrastiveShape { anchors: 300, views: 300, offset: 0, dim, temperature };
            let mut found = vec![Anchor::default(); 300];
            nt_xent_forward(&cpu(isa, 1), &shape, &z, &mut found);
            let mean = |of: fn(&Anchor) -> f32| found.iter().map(|a| f64::from(of(a))).sum::<f64>() / 300.0;
            let (loss, dz) = loss(&cpu(isa, 1), &z, dim, temperature);
            for (got, want) in [loss, mean(|a| a.entropy)].into_iter().zip(want) {
                assert!((got / want - 1.0).abs() < 2e-5, "tau {temperature}, {isa:?}: {got:e} {want:e}");
            }
            let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
            let off = squares(&mut dz.iter().zip(&gradient).map(|(got, want)| f64::from(*got) - want));
            let size = squares(&mut gradient.iter().copied());
            assert!(off < 2e-5 * size, "tau {temperature}, {isa:?}: the gradient is off by {:e}", off / size);
        }
    }
}
