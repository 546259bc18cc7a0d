use simclr_cuda::ops::batch_norm::{self, BackwardSums};
use simclr_cuda::ops::norm_pair;
use simclr_kernels::batch_norm as cpu;

use crate::support::*;
use simclr_stand_in::{Values, in_every_order};

/// Rows and channels: one of each, channels that do not make whole packs, many columns, many pieces.
const SHAPES: [(usize, usize); 8] =
    [(1, 1), (7, 3), (700, 16), (130, 64), (33, 300), (9, 2048), (4100, 24), (9000, 8)];

#[test]
fn pairs_are_two_batch_norms_and_their_sum() {
    for_each_type!(pair);
}

fn pair<E: Stored>() {
    let portable = portable();
    for (rows, channels) in SHAPES {
        let (len, what) = (rows * channels, |part: &str| format!("{part} of {rows} x {channels}"));
        let x = [1, 2].map(|seed| narrowed::<E>(&noise(len, seed)));
        let dy = narrowed::<E>(&noise(len, 3));
        let coefficients = [4, 5].map(|seed| noise(4 * channels, seed));
        let abc = [6, 7].map(|seed| noise(3 * channels, seed));
        let (y, mask, sums, gradients, dx) = in_every_order(|gpu| {
            let xs = [&x[0], &x[1]].map(|x| Values::of(x));
            let (dy, by) =
                (Values::of(&dy), [&coefficients[0], &coefficients[1]].map(|values| Values::of(values)));
            let by = [by[0].read(), by[1].read()];
            let mut y = Values::<E>::fresh(len);
            let mut mask = Values::<u8>::fresh(batch_norm::mask_len::<E>(len, channels));
            norm_pair::forward(gpu, [xs[0].read(), xs[1].read()], by, y.write(), mask.write()).unwrap();
            let mut sums = [0; 2].map(|_| Values::<f64>::fresh(2 * channels));
            let mut gradients = [0; 4].map(|_| Values::<f32>::fresh(channels));
            let ([first, second], [g0, b0, g1, b1]) = (&mut sums, &mut gradients);
            let to = [(first, g0, b0), (second, g1, b1)].map(|(sums, dgamma, dbeta)| BackwardSums {
                sums: sums.write(),
                gradients: Some([dgamma.write(), dbeta.write()]),
                coefficients: None,
            });
            let (dy, mask_read) = (dy.read(), mask.read());
            norm_pair::backward_sums(gpu, dy, mask_read, [xs[0].read(), xs[1].read()], by, to).unwrap();
            let mut dx = [&x[0], &x[1]].map(|x| Values::of(x));
            let abc = [&abc[0], &abc[1]].map(|values| Values::of(values));
            let [branch, shortcut] = &mut dx;
            let to = [branch.write(), shortcut.write()];
            norm_pair::backward_input(gpu, dy, mask_read, to, [abc[0].read(), abc[1].read()]).unwrap();
            (
                y.get(),
                mask.get(),
                sums.each_ref().map(|sums| sums.get()),
                gradients.each_ref().map(|gradient| gradient.get()),
                dx.each_ref().map(|dx| dx.get()),
            )
        });
        let y = widened(&y);
        let affine = |k: usize, i: usize| {
            let by = &coefficients[k];
            f64::from(x[k][i].widen()) * f64::from(by[i % channels]) + f64::from(by[channels + i % channels])
        };
        let want: Vec<f32> = (0..len).map(|i| (affine(0, i) + affine(1, i)).max(0.0) as f32).collect();
        assert_close(&what("y"), &y, &want, tolerance::<E>());
        let width = len / mask.len();
        for (i, y) in y.iter().enumerate() {
            assert_eq!(mask[i / width] >> (i % width) & 1 == 1, *y > 0.0, "{}", what("the mask"));
        }
        let wide_dy = widened(&dy);
        for k in 0..2 {
            let wide_x = widened(&x[k]);
            let (mean, inv_std) =
                (&coefficients[k][2 * channels..3 * channels], &coefficients[k][3 * channels..]);
            let (mut g, mut expected) = (wide_dy.clone(), vec![0.0; 2 * channels]);
            let gate = cpu::Gate::Output(&y[..]);
            cpu::batch_norm_backward_sums(&portable, &mut g, gate, &wide_x, mean, true, &mut expected);
            assert_close(&what("sums"), &sums[k], &expected, 1e-5);
            for c in 0..channels {
                let dgamma = (sums[k][channels + c] * f64::from(inv_std[c])) as f32;
                assert_eq!((gradients[2 * k][c], gradients[2 * k + 1][c]), (dgamma, sums[k][c] as f32));
            }
            let parts = [0, 1, 2].map(|part| &abc[k][part * channels..][..channels]);
            let mut expected = wide_x;
            cpu::batch_norm_backward_input(&portable, &g, cpu::Gate::Open, &mut expected, parts);
            assert_close(&what("dx"), &widened(&dx[k]), &expected, tolerance::<E>());
        }
    }
}

#[test]
fn a_nan_of_either_reaches_the_output_alone() {
    for_each_type!(not_a_number);
}

fn not_a_number<E: Stored>() {
    let (rows, channels) = (4, 8);
    for k in 0..2 {
        let mut x = [1, 2].map(|seed| noise(rows * channels, seed));
        x[k][11] = f32::NAN;
        let x = [&x[0], &x[1]].map(|x| narrowed::<E>(x));
        let (y, mask) = in_every_order(|gpu| {
            let xs = [&x[0], &x[1]].map(|x| Values::of(x));
            let by = Values::of(&vec![1f32; 4 * channels]);
            let mut y = Values::<E>::fresh(rows * channels);
            let mut mask = Values::<u8>::fresh(batch_norm::mask_len::<E>(rows * channels, channels));
            let (y_to, mask_to) = (y.write(), mask.write());
            norm_pair::forward(gpu, [xs[0].read(), xs[1].read()], [by.read(); 2], y_to, mask_to).unwrap();
            let nan: Vec<bool> = widened(&y.get()).iter().map(|v| v.is_nan()).collect();
            (nan, mask.get())
        });
        assert!(y.iter().enumerate().all(|(i, nan)| *nan == (i == 11)));
        let width = y.len() / mask.len();
        assert_eq!(mask[11 / width] >> (11 % width) & 1, 0);
    }
}
