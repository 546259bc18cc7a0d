use simclr_cuda::ops::{cross_entropy, l2_normalize};
use simclr_kernels::{cross_entropy as cpu_cross_entropy, l2_normalize as cpu_l2};

use crate::support::*;
use simclr_stand_in::{Values, compiler, in_every_order};

#[test]
fn l2_normalisation_is_the_portable_form() {
    if compiler().is_none() {
        return;
    }
    for (rows, width) in [(1, 1), (9, 3), (20, 128), (3, 2048), (17, 33)] {
        let (mut x, dy) = (noise(rows * width, 1), noise(rows * width, 2));
        if rows > 1 {
            // A row of zeros has no direction, but must not give NaN.
            x[..width].fill(0.0);
        }
        let got = in_every_order(|gpu| {
            let (x, dy) = (Values::of(&x), Values::of(&dy));
            let (mut y, mut dx) = (Values::<f32>::fresh(rows * width), Values::<f32>::fresh(rows * width));
            l2_normalize::l2_normalize_forward(gpu, x.read(), width, y.write()).unwrap();
            l2_normalize::l2_normalize_backward(gpu, x.read(), dy.read(), width, dx.write()).unwrap();
            (y.get(), dx.get())
        });
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        cpu_l2::l2_normalize_forward(&portable(), &x, width, &mut y);
        cpu_l2::l2_normalize_backward(&portable(), &x, &dy, width, &mut dx);
        assert_close("y", &got.0, &y, 1e-5);
        // The gradient of the row of zeros is 1e12 times dy, which would dominate all others.
        let skip = if rows > 1 { width } else { 0 };
        let size = dy.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt();
        let error: f64 =
            got.1[skip..].iter().zip(&dx[skip..]).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        assert!(error <= 1e-5 * size, "{rows} x {width}: {error}");
        assert_close("dx of nothing", &got.1[..skip], &dx[..skip], 1e-5);
    }
}

/// Squares of these are beyond f32, and in the last row the norm is, too, which must not look like a row of zeros.
#[test]
fn l2_normalisation_of_huge_rows_is_the_portable_form() {
    if compiler().is_none() {
        return;
    }
    let (x, dy) = ([3e19f32, 4e19, 6e25, -8e25, 3e38, 3e38], [1.0f32, 1.0, 1.0, 2.0, 1.0, 1.0]);
    // Bits, since a NaN equals nothing.
    let bits = in_every_order(|gpu| {
        let (x, dy) = (Values::of(&x), Values::of(&dy));
        let (mut y, mut dx) = (Values::<f32>::fresh(6), Values::<f32>::fresh(6));
        l2_normalize::l2_normalize_forward(gpu, x.read(), 2, y.write()).unwrap();
        l2_normalize::l2_normalize_backward(gpu, x.read(), dy.read(), 2, dx.write()).unwrap();
        [y.get(), dx.get()].map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
    });
    let [got_y, got_dx] = bits.map(|bits| bits.into_iter().map(f32::from_bits).collect::<Vec<_>>());
    let (mut y, mut dx) = ([0f32; 6], [0f32; 6]);
    cpu_l2::l2_normalize_forward(&portable(), &x, 2, &mut y);
    cpu_l2::l2_normalize_backward(&portable(), &x, &dy, 2, &mut dx);
    for row in [0..2, 2..4] {
        assert_close("y", &got_y[row.clone()], &y[row.clone()], 1e-6);
        assert_close("dx", &got_dx[row.clone()], &dx[row], 1e-5);
    }
    assert!(got_y[4..].iter().chain(&got_dx[4..]).all(|value| value.is_nan()), "{got_y:?} {got_dx:?}");
}

#[test]
fn cross_entropy_is_the_portable_form() {
    if compiler().is_none() {
        return;
    }
    for (rows, classes, size) in [(1, 1, 1.0), (9, 10, 4.0), (5, 1000, 20.0), (33, 3, 500.0)] {
        let logits: Vec<f32> = noise(rows * classes, 1).iter().map(|v| v * size).collect();
        let labels: Vec<u32> = (0..rows).map(|i| (i * 7 % classes) as u32).collect();
        let got = in_every_order(|gpu| {
            let (logits, labels) = (Values::of(&logits), Values::of(&labels));
            let (mut losses, mut d) = (Values::<f32>::fresh(rows), Values::<f32>::fresh(rows * classes));
            let (read, to) = (logits.read(), losses.write());
            cross_entropy::softmax_cross_entropy(gpu, read, labels.read(), classes, to, d.write()).unwrap();
            (losses.get(), d.get())
        });
        let mut dlogits = vec![0.0; logits.len()];
        let want =
            cpu_cross_entropy::softmax_cross_entropy(&portable(), &logits, &labels, classes, &mut dlogits);
        let loss: f64 = got.0.iter().map(|&v| f64::from(v)).sum::<f64>() / rows as f64;
        assert!((loss - want).abs() <= 1e-5 * (1.0 + want), "{loss} {want}");
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 / rows as f32;
        assert!(got.1.iter().zip(&dlogits).all(close), "{rows} x {classes}");
    }
    let nan = in_every_order(|gpu| {
        let (logits, labels) = (Values::of(&[1.0f32, 2.0]), Values::of(&[7u32]));
        let (mut losses, mut d) = (Values::<f32>::fresh(1), Values::<f32>::fresh(2));
        cross_entropy::softmax_cross_entropy(gpu, logits.read(), labels.read(), 2, losses.write(), d.write())
            .unwrap();
        losses.get()[0].is_nan()
    });
    assert!(nan, "a label of no class");
}
