//! Batches of images with more than 2^32 values in all: pooling, selective kernels and a network's first convolution.
//! See `huge.rs`.
//!
//! For the first and the last image, the kernels' results must equal those for these images alone.

use half::bf16;
use simclr_cuda::ops::stem::{self, Packing};
use simclr_cuda::ops::{first_layer, pooling, selective};
use simclr_kernels::selective as portable_form;
use simclr_kernels::{Conv2dGeometry, PoolGeometry, Write};
use simclr_stand_in::{Emulator, Sparse, compiler};

use crate::support::*;

type E = bf16;

fn geometry(
    batch: usize,
    side: usize,
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Conv2dGeometry {
    Conv2dGeometry {
        batch,
        in_height: side,
        in_width: side,
        in_channels: channels[0],
        out_channels: channels[1],
        kernel_height: kernel,
        kernel_width: kernel,
        stride,
        padding,
    }
}

/// A sparse batch of images of `len` values each, some of which are given and the others 0.
fn images<T: Copy>(batch: usize, len: usize, given: &[(usize, &[T])]) -> Sparse<T> {
    let mut out = Sparse::zeros(batch * len);
    for (number, values) in given {
        out.put(number * len, values);
    }
    out
}

#[test]
fn max_pooling_counts_beyond_32_bits() {
    if compiler().is_none() {
        return;
    }
    let gpu = &Emulator::of_corners();
    const CHANNELS: usize = 64;
    // The part that a block covers: `BLOCK` values of the output, and their blocks of 2 x 2 pixels of the input, in
    // rows of `WIDE` values.
    const BLOCK: usize = 256 * 8;
    const WIDE: usize = BLOCK * 2;
    let one = PoolGeometry {
        batch: 1,
        in_height: 112,
        in_width: 112,
        channels: CHANNELS,
        side: 3,
        stride: 2,
        padding: [1, 1],
    };
    let many = PoolGeometry { batch: 8192, ..one };
    let (inputs, outputs) = (one.input_len(), one.output_len());
    assert!(many.input_len() > 1 << 32);
    let pairs = [(0, 1), (many.batch - 1, 2)].map(|(number, seed)| {
        let x: Vec<E> = narrowed(&noise(inputs, seed));
        // Winners are known only where a block was run.
        let mut dy: Vec<E> = narrowed(&noise(outputs, seed + 2));
        dy[BLOCK..outputs - BLOCK].fill(E::narrow(0.0));
        (number, x, dy)
    });
    let [first, last] = &pairs;
    let x = images(many.batch, inputs, &[(first.0, &first.1[..]), (last.0, &last.1)]);
    let dy = images(many.batch, outputs, &[(first.0, &first.2[..]), (last.0, &last.2)]);
    let mut y = Sparse::<E>::zeros(many.output_len());
    pooling::max_pool_forward(gpu, &many, x.read(), y.write()).unwrap();
    let mut dx = Sparse::<E>::zeros(many.input_len());
    pooling::max_pool_backward(gpu, &many, x.read(), y.read(), dy.read(), dx.write()).unwrap();
    for (number, own_x, own_dy) in &pairs {
        let (own_x, own_dy) = (images(1, inputs, &[(0, own_x)]), images(1, outputs, &[(0, own_dy)]));
        let (mut own_y, mut own_dx) = (Sparse::<E>::zeros(outputs), Sparse::<E>::zeros(inputs));
        pooling::max_pool_forward(gpu, &one, own_x.read(), own_y.write()).unwrap();
        pooling::max_pool_backward(gpu, &one, own_x.read(), own_y.read(), own_dy.read(), own_dx.write())
            .unwrap();
        for first in [0, outputs - BLOCK] {
            let got = y.part(number * outputs + first, BLOCK);
            assert!(
                got == own_y.part(first, BLOCK) && got.iter().any(|v| v.widen() > 0.0),
                "y of image {number}"
            );
        }
        let row = 112 * CHANNELS;
        // The first block covers the beginnings of the first two rows, the last one the ends of the last two.
        for first in [0, row, inputs - row - WIDE, inputs - WIDE] {
            let got = dx.part(number * inputs + first, WIDE);
            assert!(
                got == own_dx.part(first, WIDE) && got.iter().any(|v| v.widen() != 0.0),
                "dx of image {number}, from {first}"
            );
        }
    }
}

#[test]
fn global_average_pooling_counts_beyond_32_bits() {
    if compiler().is_none() {
        return;
    }
    let gpu = &Emulator::of_corners();
    let (batch, pixels, channels) = (65_536 + 3, 49, 2048);
    let len = pixels * channels;
    let x: Vec<E> = narrowed(&noise(len, 1));
    let many = images(batch, len, &[(0, &x[..]), (batch - 1, &x)]);
    let mut y = Sparse::<f32>::zeros(batch * channels);
    pooling::global_avg_pool_forward(gpu, many.read(), pixels, channels, y.write()).unwrap();
    let mut want = vec![0f64; channels];
    widened(&x).iter().enumerate().for_each(|(i, v)| want[i % channels] += f64::from(*v) / pixels as f64);
    let want: Vec<f32> = want.iter().map(|v| *v as f32).collect();
    let mut dx = many;
    pooling::global_avg_pool_backward(gpu, y.read(), pixels, channels, dx.write()).unwrap();
    for number in [0, batch - 1] {
        let y = y.part(number * channels, channels);
        assert_close("y", &y, &want, 1e-5);
        let each: Vec<E> = narrowed(&y.iter().map(|v| v / pixels as f32).collect::<Vec<_>>());
        assert!(
            dx.part(number * len, len).chunks(channels).all(|pixel| pixel == each),
            "dx of image {number}"
        );
    }
}

#[test]
fn selective_kernels_count_beyond_32_bits() {
    if compiler().is_none() {
        return;
    }
    let gpu = &Emulator::of_corners();
    // The last image is in the last row of blocks; the grid has the greatest possible number of rows.
    let (batch, pixels, channels) = (2 * 65_535, 49, 512);
    let (len, mixed) = (2 * pixels * channels, pixels * channels);
    assert!(batch * len > 1 << 32);
    let (x, dy): (Vec<E>, Vec<E>) = (narrowed(&noise(len, 1)), narrowed(&noise(mixed, 2)));
    let logits = noise(2 * channels, 3);
    let ends = [0, batch - 1];
    let all_logits = images(batch, 2 * channels, &ends.map(|end| (end, &logits[..])));
    let all_dy = images(batch, mixed, &ends.map(|end| (end, &dy[..])));
    let mut all = images(batch, len, &ends.map(|end| (end, &x[..])));
    let mut fused = Sparse::<f32>::zeros(batch * channels);
    selective::fuse_forward(gpu, all.read(), pixels, channels, fused.write()).unwrap();
    let mut y = Sparse::<E>::zeros(batch * mixed);
    selective::select_forward(gpu, all.read(), all_logits.read(), pixels, channels, y.write()).unwrap();
    let mut dlogits = Sparse::<f32>::zeros(batch * 2 * channels);
    let (to, own) = (all.write(), dlogits.write());
    selective::select_backward(gpu, all_dy.read(), all_logits.read(), pixels, channels, to, own).unwrap();
    selective::fuse_backward(gpu, fused.read(), pixels, channels, all.write(), Write::Add).unwrap();
    let (cpu, mut dx) = (portable(), widened(&x));
    let (mut want_fused, mut want_y) = (vec![0.0; channels], vec![0.0; mixed]);
    let mut want_dlogits = vec![0.0; 2 * channels];
    portable_form::fuse_forward(&cpu, &dx, pixels, channels, &mut want_fused);
    portable_form::select_forward(&cpu, &dx, &logits, pixels, channels, &mut want_y);
    let (dy, dl) = (widened(&dy), &mut want_dlogits);
    portable_form::select_backward(&cpu, &dy, &logits, pixels, channels, &mut dx, dl);
    portable_form::fuse_backward(&cpu, &want_fused, pixels, channels, &mut dx, Write::Add);
    for end in ends {
        assert_close("fused", &fused.part(end * channels, channels), &want_fused, 1e-5);
        assert_close("dlogits", &dlogits.part(end * 2 * channels, 2 * channels), &want_dlogits, 1e-5);
        assert_close("y", &widened(&y.part(end * mixed, mixed)), &want_y, tolerance::<E>());
        assert_close("dx", &widened(&all.part(end * len, len)), &dx, tolerance::<E>());
    }
}

#[test]
fn packing_counts_beyond_32_bits() {
    if compiler().is_none() {
        return;
    }
    let gpu = &Emulator::of_corners();
    // The first row of blocks has the first image and the last, since there are more images than rows. Without padding:
    // the corners would have nothing but its zeros.
    let one = geometry(1, 224, [3, 64], 7, 2, 0);
    let many = Conv2dGeometry { batch: 65_536, ..one };
    let (packing, packing_of_one) = (Packing::<E>::of(&many).unwrap(), Packing::<E>::of(&one).unwrap());
    let packed = packing_of_one.geometry().input_len();
    assert!(many.input_len() > 1 << 32);
    let x: Vec<E> = narrowed(&noise(one.input_len(), 1));
    let all = images(many.batch, one.input_len(), &[(0, &x[..]), (65_534, &x), (65_535, &x)]);
    let (mut out, mut alone) = (Sparse::<E>::zeros(65_536 * packed), Sparse::<E>::zeros(packed));
    stem::pack_images(gpu, &packing, all.read(), out.write()).unwrap();
    stem::pack_images(gpu, &packing_of_one, images(1, x.len(), &[(0, &x)]).read(), alone.write()).unwrap();
    // The parts that the first and the last block cover.
    let block = 256 * 8;
    let last = (packed - 1) / block * block;
    for (first, len) in [(0, block), (last, packed - last)] {
        let want = alone.part(first, len);
        assert!(want.iter().any(|v| v.widen() != 0.0));
        for number in [0, 65_534, 65_535] {
            assert!(out.part(number * packed + first, len) == want, "image {number}");
        }
    }
}

#[test]
fn the_first_convolution_counts_beyond_32_bits() {
    if compiler().is_none() {
        return;
    }
    let gpu = &Emulator::of_corners();
    // Four strips per image; 16 for each block of the forward pass, and 32 for each block of the backward pass.
    let one = geometry(1, 32, [3, 64], 3, 1, 1);
    let many = Conv2dGeometry { batch: 65_544, ..one };
    let (inputs, outputs) = (one.input_len(), one.output_len());
    assert!(many.output_len() > 1 << 32);
    let w = images(1, one.weight_len(), &[(0, &noise(one.weight_len(), 1)[..])]);
    let x: Vec<E> = narrowed(&noise(inputs, 2));
    let all = images(many.batch, inputs, &[(0, &x[..]), (many.batch - 1, &x)]);
    let alone = images(1, inputs, &[(0, &x[..])]);
    let [mut y, mut own_y] = [many, one].map(|g| Sparse::<E>::zeros(g.output_len()));
    // The shift of 10 makes all of y positive, so that the ReLU drops nothing.
    let coefficients: Vec<f32> = [1.0, 10.0, 10.0, 1.0].into_iter().flat_map(|v| [v; 64]).collect();
    let coefficients = images(1, coefficients.len(), &[(0, &coefficients[..])]);
    let coefficients = coefficients.read();
    first_layer::forward(gpu, &many, all.read(), w.read(), coefficients, y.write()).unwrap();
    first_layer::forward(gpu, &one, alone.read(), w.read(), coefficients, own_y.write()).unwrap();
    // The first block has the first strip, the last block the last one: 32 columns of 8 rows. These are the first row
    // of the first strip, and the last row of the last one.
    let strip = 32 * 64;
    for (number, first) in [(0, 0), (many.batch - 1, outputs - strip)] {
        let got = y.part(number * outputs + first, strip);
        assert!(got == own_y.part(first, strip) && got.iter().all(|v| v.widen() != 0.0), "image {number}");
    }

    // Gradients for these rows only.
    let noisy: Vec<E> = narrowed(&noise(strip, 3));
    let mut dy = Sparse::<E>::zeros(many.output_len());
    let mut own_dy = Sparse::<E>::zeros(one.output_len());
    for (number, first) in [(0, 0), (many.batch - 1, outputs - strip)] {
        dy.put(number * outputs + first, &noisy);
        own_dy.put(first, &noisy);
    }
    let gradient = |g: &Conv2dGeometry, x: &Sparse<E>, dy: &Sparse<E>| {
        let mut correlations = Sparse::<f64>::zeros(first_layer::correlations_len(g));
        let mut sums = Sparse::<f64>::zeros(2 * g.out_channels);
        let (x, dy, to) = (x.read(), dy.read(), sums.write().into());
        first_layer::backward_sums(gpu, g, x, w.read(), coefficients, dy, correlations.write(), to).unwrap();
        correlations.part(0, g.out_channels * 28)
    };
    let [got, want] = [gradient(&many, &all, &dy), gradient(&one, &alone, &own_dy)];
    assert!(want.iter().any(|v| *v != 0.0));
    assert_close("correlations", &got, &want, 1e-6);
}
