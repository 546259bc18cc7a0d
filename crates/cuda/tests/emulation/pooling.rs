use simclr_cuda::ops::{avg_pool, pooling};
use simclr_kernels::avg_pool as cpu_avg_pool;
use simclr_kernels::{AvgPoolGeometry, PoolGeometry, Write, pooling as cpu};

use crate::support::*;
use simclr_stand_in::{Values, in_every_order};

#[test]
fn max_pooling_is_the_portable_form() {
    for_each_type!(max_pool);
}

fn max_pool<E: Stored>() {
    let cpu_of = portable();
    for (batch, in_height, in_width, channels, side, stride, padding) in [
        (1, 1, 1, 1, 1, 1, [0, 0]),
        (2, 8, 8, 16, 3, 2, [1, 1]),
        (3, 7, 9, 5, 3, 2, [1, 1]),
        (1, 6, 5, 3, 2, 2, [0, 0]),
        (2, 5, 5, 8, 3, 1, [1, 1]),
        (1, 9, 4, 24, 4, 3, [2, 2]),
        (2, 8, 6, 16, 3, 2, [0, 1]),
        (1, 4, 10, 3, 3, 2, [0, 1]),
        (2, 1, 6, 8, 3, 2, [1, 1]),
        (1, 13, 2, 16, 3, 2, [1, 1]),
        (1, 7, 6, 16, 5, 2, [2, 2]),
    ] {
        let g = PoolGeometry { batch, in_height, in_width, channels, side, stride, padding };
        // Few different values, so that windows have several equal maxima; one NaN.
        let mut coarse: Vec<f32> = noise(g.input_len(), 7).iter().map(|v| (v * 6.0).round() / 2.0).collect();
        if coarse.len() > 40 {
            coarse[33] = f32::NAN;
        }
        let x = narrowed::<E>(&coarse);
        let outputs = g.output_len();
        let dy = narrowed::<E>(&noise(outputs, 8));
        let got = in_every_order(|gpu| {
            let (x, dy) = (Values::of(&x), Values::of(&dy));
            let (mut y, mut dx) = (Values::<E>::fresh(outputs), Values::<E>::fresh(g.input_len()));
            pooling::max_pool_forward(gpu, &g, x.read(), y.write()).unwrap();
            pooling::max_pool_backward(gpu, &g, x.read(), y.read(), dy.read(), dx.write()).unwrap();
            // Bits, since NaN is not equal to itself.
            (
                widened(&y.get()).iter().map(|v| v.to_bits() & 0x7fc0_0000).collect::<Vec<_>>(),
                y.get().len(),
                widened(&dx.get()),
            )
        });
        let (mut y, mut dx) = (vec![0.0; outputs], vec![0.0; g.input_len()]);
        let wide = widened(&x);
        cpu::max_pool_forward(&cpu_of, &g, &wide, &mut y);
        cpu::max_pool_backward(&cpu_of, &g, &wide, &y, &widened(&dy), &mut dx);
        let bits: Vec<u32> = y.iter().map(|v| v.to_bits() & 0x7fc0_0000).collect();
        assert_eq!(got.0, bits, "{g:?}");
        assert_close(&format!("dx {g:?}"), &got.2, &dx, tolerance::<E>());
    }
}

#[test]
fn average_pooling_is_the_portable_form() {
    for_each_type!(average_pool);
}

fn average_pool<E: Stored>() {
    let cpu_of = portable();
    let shapes = [(1, 1, 1, 1), (2, 8, 6, 16), (3, 7, 9, 5), (1, 1, 4, 24), (2, 5, 2, 8), (1, 2, 1, 3)];
    for (batch, height, width, channels) in shapes {
        for (stride, zeros) in [(1, false), (1, true), (2, false), (2, true)] {
            let g = AvgPoolGeometry { batch, height, width, channels, stride, zeros };
            let x = narrowed::<E>(&noise(g.input_len(), 7));
            let (dy, known) = (narrowed::<E>(&noise(g.output_len(), 8)), narrowed::<E>(&noise(x.len(), 9)));
            let got = in_every_order(|gpu| {
                let (x, dy) = (Values::of(&x), Values::of(&dy));
                let (mut y, mut dx) = (Values::<E>::fresh(g.output_len()), Values::<E>::fresh(g.input_len()));
                let mut sum = Values::of(&known);
                avg_pool::avg_pool_forward(gpu, &g, x.read(), y.write()).unwrap();
                avg_pool::avg_pool_backward(gpu, &g, dy.read(), dx.write(), Write::Over).unwrap();
                avg_pool::avg_pool_backward(gpu, &g, dy.read(), sum.write(), Write::Add).unwrap();
                [y.get(), dx.get(), sum.get()].map(|values| widened(&values))
            });
            let (mut y, mut dx) = (vec![0.0; g.output_len()], vec![0.0; g.input_len()]);
            let mut sum = widened(&known);
            cpu_avg_pool::avg_pool_forward(&cpu_of, &g, &widened(&x), &mut y);
            cpu_avg_pool::avg_pool_backward(&cpu_of, &g, &widened(&dy), &mut dx, Write::Over);
            cpu_avg_pool::avg_pool_backward(&cpu_of, &g, &widened(&dy), &mut sum, Write::Add);
            for ((what, got), want) in ["y", "dx", "sum"].into_iter().zip(&got).zip([y, dx, sum]) {
                assert_close(&format!("{what} {g:?}"), got, &want, tolerance::<E>());
            }
        }
    }
}

#[test]
fn global_average_pooling_is_the_portable_form() {
    for_each_type!(global_avg_pool);
}

fn global_avg_pool<E: Stored>() {
    let cpu_of = portable();
    for (batch, pixels, channels) in [(1, 1, 1), (3, 49, 17), (5, 16, 512), (2, 1000, 3)] {
        let x = narrowed::<E>(&noise(batch * pixels * channels, 1));
        let dy = noise(batch * channels, 2);
        let got = in_every_order(|gpu| {
            let (x, dy) = (Values::of(&x), Values::of(&dy));
            let (mut y, mut dx) = (Values::<f32>::fresh(dy.get().len()), Values::<E>::fresh(x.get().len()));
            pooling::global_avg_pool_forward(gpu, x.read(), pixels, channels, y.write()).unwrap();
            pooling::global_avg_pool_backward(gpu, dy.read(), pixels, channels, dx.write()).unwrap();
            (y.get(), dx.get())
        });
        let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0f32; x.len()]);
        cpu::global_avg_pool_forward(&cpu_of, &widened(&x), pixels, channels, &mut y);
        cpu::global_avg_pool_backward(&cpu_of, &dy, pixels, channels, &mut dx);
        assert_close("y", &got.0, &y, 1e-5);
        assert_close("dx", &widened(&got.1), &dx, tolerance::<E>());
    }
}
