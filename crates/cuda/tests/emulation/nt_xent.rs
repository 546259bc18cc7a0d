use simclr_cuda::ops::nt_xent;
use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::nt_xent::{self as cpu, Anchor};

use crate::support::*;
use simclr_stand_in::{Values, compiler, in_every_order};

/// Unit vectors, or vectors with values between about -`size` and `size`.
fn views(count: usize, dim: usize, size: Option<f32>) -> Vec<f32> {
    let mut z = noise(count * dim, (count + dim) as u32);
    for row in z.chunks_exact_mut(dim) {
        let factor = size.map_or_else(|| 1.0 / length(row), |size| 2.0 * size);
        row.iter_mut().for_each(|v| *v *= factor);
    }
    z
}

fn length(row: &[f32]) -> f32 {
    row.iter().map(|v| v * v).sum::<f32>().sqrt()
}

/// Anchors, views before and after them, dimensions, temperature, size: one tile and several, tails of each kind, one
/// worker of several, similarities whose exponentials overflow a float, large values and small ones.
const SHAPES: [(usize, usize, usize, usize, f32, Option<f32>); 12] = [
    (2, 0, 0, 1, 0.5, None),
    (6, 0, 0, 2, 0.1, None),
    (64, 0, 0, 16, 0.1, None),
    (66, 0, 0, 33, 0.1, None),
    (140, 130, 20, 70, 0.2, None),
    (130, 0, 0, 200, 0.02, None),
    (34, 0, 0, 128, 0.005, Some(0.5)),
    (10, 64, 64, 257, 1.0, Some(0.5)),
    (18, 37, 10, 130, 0.05, None),
    (26, 5, 130, 100, 0.07, None),
    (30, 3, 40, 5, 2e5, Some(1e3)),
    (16, 1, 0, 24, 1e-5, Some(1e-3)),
];

#[test]
fn anchors_and_gradient_are_those_of_the_portable_form() {
    if compiler().is_none() {
        return;
    }
    for (anchors, before, after, dim, temperature, size) in SHAPES {
        let count = before + anchors + after;
        let all = views(count, dim, size);
        let shape = ContrastiveShape { anchors, views: count, offset: before, dim, temperature };
        let mut want = vec![Anchor::default(); anchors];
        cpu::nt_xent_forward(&portable(), &shape, &all, &mut want);
        // A plausible value for the anchors of other workers.
        let mut lse = vec![want[0].lse(); count];
        let (factor, dy) = (0.25, 2.0);
        let got = in_every_order(|gpu| {
            let all = Values::of(&all);
            let mut out = Values::<f32>::fresh(4 * anchors);
            nt_xent::forward(gpu, &shape, all.read(), out.write()).unwrap();
            let (mut sums, mut own) = (Values::<f64>::fresh(3), Values::<f32>::fresh(anchors));
            nt_xent::figures(gpu, out.read(), sums.write(), own.write()).unwrap();
            let mut lse = lse.clone();
            lse[before..before + anchors].copy_from_slice(&own.get());
            let (lse, dy, mut dz) =
                (Values::of(&lse), Values::of(&[dy]), Values::<f32>::fresh(anchors * dim));
            let found = (out.read(), lse.read());
            nt_xent::backward(gpu, &shape, all.read(), found, factor, dy.read(), dz.write()).unwrap();
            // A single pair has no negatives: the hardest is minus infinity.
            (out.get(), sums.get(), own.get(), dz.get())
        });
        let what = format!("{shape:?}");
        let near = |got: f32, want: f32| got == want || (got - want).abs() <= 2e-5 * (1.0 + want.abs());
        for (got, want) in got.0.chunks_exact(4).zip(&want) {
            let fits = near(got[0], want.loss) && near(got[1], want.positive) && near(got[3], want.hardest);
            // Similarities are rounded differently, which affects the entropy.
            let entropy = (got[2] - want.entropy).abs() <= 1e-4 + 2e-6 * want.lse().abs();
            assert!(fits && entropy, "{what}: {got:?} {want:?}");
        }
        // s(i,j) and s(j,i) have the same bits.
        let positive = |i: usize| got.0[4 * (i % anchors) + 1];
        assert!((0..anchors).all(|i| positive(i) == positive(i + anchors / 2)), "{what}");
        let sum = |of: fn(&Anchor) -> f64| want.iter().map(of).sum::<f64>();
        let close = |got: f64, want: f64| (got - want).abs() <= 1e-4 * (1.0 + want.abs());
        assert!(close(got.1[0], sum(|a| f64::from(a.loss))), "{what}");
        assert_eq!(got.1[1], sum(|a| f64::from(u8::from(a.positive > a.hardest))), "{what}");
        let fits = |lse: f32, a: &[f32]| lse == (a[1] + a[0]).max(a[1]).max(a[3]);
        assert!(got.2.iter().zip(got.0.chunks_exact(4)).all(|(lse, anchor)| fits(*lse, anchor)), "{what}");
        lse[before..before + anchors].iter_mut().zip(&want).for_each(|(lse, anchor)| *lse = anchor.lse());
        let mut dz = vec![0.0; anchors * dim];
        cpu::nt_xent_backward(&portable(), &shape, &all, &want, &lse, factor * dy, &mut dz);
        let scale = dz.iter().fold(0f32, |most, v| most.max(v.abs()));
        // NaN counts as the worst.
        let off = got.3.iter().zip(&dz).map(|(a, b)| (a - b).abs());
        let worst = off.fold(0f32, |worst, v| if v > worst || v.is_nan() { v } else { worst });
        // The difference of two exponentials may be small compared with either of them.
        let longest = all.chunks_exact(dim).map(length).fold(0f32, f32::max);
        assert!(
            worst <= 2e-5 * scale.max(0.5 / temperature * factor * longest),
            "{what}: {worst} of {scale}"
        );
    }
}

/// Enough views for splits of several tiles, the last of which is partial.
#[test]
fn many_views_are_cut_into_splits_that_join_again() {
    if compiler().is_none() {
        return;
    }
    let (anchors, dim, offset) = (6, 70, 128);
    let count = 64 * 600 + 5;
    let all = views(count, dim, None);
    let shape = ContrastiveShape { anchors, views: count, offset, dim, temperature: 0.1 };
    let mut want = vec![Anchor::default(); anchors];
    cpu::nt_xent_forward(&portable(), &shape, &all, &mut want);
    // A plausible value for the anchors of other workers.
    let lse = vec![want[0].lse(); count];
    let mut gradient = vec![0.0; anchors * dim];
    cpu::nt_xent_backward(&portable(), &shape, &all, &want, &lse, 1.0, &mut gradient);
    let (found, dz) = in_every_order(|gpu| {
        let (all, lse, dy) = (Values::of(&all), Values::of(&lse), Values::of(&[1.0]));
        let (mut out, mut dz) = (Values::<f32>::fresh(4 * anchors), Values::<f32>::fresh(anchors * dim));
        nt_xent::forward(gpu, &shape, all.read(), out.write()).unwrap();
        let found = (out.read(), lse.read());
        nt_xent::backward(gpu, &shape, all.read(), found, 1.0, dy.read(), dz.write()).unwrap();
        (out.get(), dz.get())
    });
    let losses: Vec<f32> = found.iter().step_by(4).copied().collect();
    assert_close("losses", &losses, &want.iter().map(|a| a.loss).collect::<Vec<_>>(), 1e-6);
    assert_close("the gradient", &dz, &gradient, 1e-5);
}

#[test]
fn probabilities_are_at_most_1_however_large_similarities_are() {
    if compiler().is_none() {
        return;
    }
    let (anchors, dim) = (48, 128);
    for (size, temperature) in [(90.0, 1.0), (270.0, 0.1), (900.0, 0.1)] {
        let z = views(anchors, dim, Some(size));
        let largest = z.iter().fold(0f32, |most, v| most.max(v.abs()));
        let shape = ContrastiveShape { anchors, views: anchors, offset: 0, dim, temperature };
        let dz = in_every_order(|gpu| {
            let (z, mut out) = (Values::of(&z), Values::<f32>::fresh(4 * anchors));
            nt_xent::forward(gpu, &shape, z.read(), out.write()).unwrap();
            let (mut sums, mut lse) = (Values::<f64>::fresh(3), Values::<f32>::fresh(anchors));
            nt_xent::figures(gpu, out.read(), sums.write(), lse.write()).unwrap();
            let (dy, mut dz) = (Values::of(&[1.0]), Values::<f32>::fresh(anchors * dim));
            let found = (out.read(), lse.read());
            nt_xent::backward(gpu, &shape, z.read(), found, 1.0, dy.read(), dz.write()).unwrap();
            dz.get()
        });
        // Each view's weight is at most 1 in the gradient of another view, and 1 in its own.
        let most = (anchors + 1) as f32 * largest / temperature;
        assert!(dz.iter().all(|v| v.abs() <= most), "{size}, tau {temperature}");
    }
}

#[test]
fn a_nan_reaches_the_loss() {
    if compiler().is_none() {
        return;
    }
    for what in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(reaches_the_loss(what), "{what}");
    }
}

fn reaches_the_loss(what: f32) -> bool {
    let mut z = views(8, 4, None);
    z[5] = what;
    let shape = ContrastiveShape { anchors: 8, views: 8, offset: 0, dim: 4, temperature: 0.1 };
    in_every_order(|gpu| {
        let (z, mut out) = (Values::of(&z), Values::<f32>::fresh(32));
        nt_xent::forward(gpu, &shape, z.read(), out.write()).unwrap();
        let (mut sums, mut lse) = (Values::<f64>::fresh(3), Values::<f32>::fresh(8));
        nt_xent::figures(gpu, out.read(), sums.write(), lse.write()).unwrap();
        sums.get()[0].is_nan()
    })
}

/// Pairs that are each close to an axis, in either direction: views of one image are similar, all others are orthogonal
/// or opposite.
fn separated(images: usize, dim: usize) -> Vec<f32> {
    let mut z = views(2 * images, dim, None);
    for (view, z) in z.chunks_exact_mut(dim).enumerate() {
        let image = view % images;
        z.iter_mut().for_each(|v| *v *= 0.15);
        z[image / 2] += if image.is_multiple_of(2) { 1.0 } else { -1.0 };
        let norm = z.iter().map(|v| v * v).sum::<f32>().sqrt();
        z.iter_mut().for_each(|v| *v /= norm);
    }
    z
}

/// Small losses are as precise as in the portable form.
#[test]
fn small_losses_are_as_exact_as_large_ones() {
    if compiler().is_none() {
        return;
    }
    let (anchors, dim) = (140, 40);
    let z = separated(anchors / 2, dim);
    for temperature in [0.05, 0.02] {
        let shape = ContrastiveShape { anchors, views: anchors, offset: 0, dim, temperature };
        let mut want = vec![Anchor::default(); anchors];
        cpu::nt_xent_forward(&portable(), &shape, &z, &mut want);
        let lse: Vec<f32> = want.iter().map(Anchor::lse).collect();
        let mut gradient = vec![0.0; z.len()];
        cpu::nt_xent_backward(&portable(), &shape, &z, &want, &lse, 1.0, &mut gradient);
        let (found, dz) = in_every_order(|gpu| {
            let (z, mut out, mut dz) =
                (Values::of(&z), Values::<f32>::fresh(4 * anchors), Values::<f32>::fresh(anchors * dim));
            nt_xent::forward(gpu, &shape, z.read(), out.write()).unwrap();
            let (mut sums, mut lse) = (Values::<f64>::fresh(3), Values::<f32>::fresh(anchors));
            nt_xent::figures(gpu, out.read(), sums.write(), lse.write()).unwrap();
            let (dy, found) = (Values::of(&[1.0]), (out.read(), lse.read()));
            nt_xent::backward(gpu, &shape, z.read(), found, 1.0, dy.read(), dz.write()).unwrap();
            (out.get(), dz.get())
        });
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let off = |got: &mut dyn Iterator<Item = f32>, want: &[f32]| {
            let apart = &mut got.zip(want).map(|(got, want)| f64::from(got) - f64::from(*want));
            norm(apart) / norm(&mut want.iter().map(|v| f64::from(*v)))
        };
        let every_fourth = |from: usize| found.iter().skip(from).step_by(4).copied();
        let [losses, entropies]: [Vec<f32>; 2] =
            [want.iter().map(|a| a.loss).collect(), want.iter().map(|a| a.entropy).collect()];
        assert!(losses.iter().all(|&loss| loss > 0.0 && loss < 0.02));
        for (what, off) in [
            ("losses", off(&mut every_fourth(0), &losses)),
            ("entropies", off(&mut every_fourth(2), &entropies)),
            ("the gradient", off(&mut dz.iter().copied(), &gradient)),
        ] {
            println!("tau {temperature}: {what} off by {off:.1e}");
            assert!(off < 2e-5, "tau {temperature}: {what} off by {off:.1e}");
        }
    }
}
