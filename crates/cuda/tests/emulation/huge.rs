//! Row and elementwise passes on tensors of more than 2^32 values, as in a ResNet-50 with 8,192 views of 224 x 224
//! pixels.
//!
//! Memory is sparse, and only the blocks at the corners of each grid run. Some of the parts that these cover are
//! filled, above all from 2^31 and 2^32 on.

use half::bf16;
use simclr_cuda::Element;
use simclr_cuda::ops::{batch_norm, cross_entropy, elementwise, l2_normalize, norm_pair, optimizer, sums};
use simclr_kernels::l2_normalize as cpu_l2;
use simclr_stand_in::{Emulator, Sparse, compiler};

use crate::support::*;

type E = bf16;
const ROWS: usize = 8192 * 112 * 112;

/// Parts that the first and the last of `blocks` blocks cover in their rounds over `len` values, `each` values per
/// round: those of the first round, of the rounds at 2^31 and at 2^32, and of the last.
fn parts(len: usize, blocks: usize, each: usize) -> Vec<(usize, usize)> {
    let round = blocks * each;
    let after =
        |position: usize| [position.div_ceil(round) * round, position.div_ceil(round) * round + round - each];
    let last = len / round * round;
    let mut starts = [after(0), after(1 << 31), after(1 << 32), [last - each, last]].concat();
    starts.sort();
    starts.dedup();
    starts.into_iter().filter(|start| *start < len).map(|start| (start, each.min(len - start))).collect()
}

/// A sparse tensor with noise in these parts.
fn noisy(len: usize, parts: &[(usize, usize)], seed: u32) -> Sparse<E> {
    let mut out = Sparse::zeros(len);
    for (number, (start, count)) in parts.iter().enumerate() {
        out.put(*start, &narrowed(&noise(*count, seed + 10 * number as u32)));
    }
    out
}

fn dense<T: Copy>(values: &[T]) -> Sparse<T> {
    let mut out = Sparse::zeros(values.len());
    out.put(0, values);
    out
}

#[test]
fn batch_norm_counts_beyond_32_bits() {
    if compiler().is_none() {
        return;
    }
    // Channels, blocks and pieces of the sums: whole packs in rounds of 8192 blocks, and single values in rounds of a
    // multiple of the channels.
    batch_norm_of(64, 8192, 3168);
    batch_norm_of(63, 8253, 1584);
}

fn batch_norm_of(channels: usize, blocks: usize, pieces: usize) {
    let gpu = &Emulator::of_corners();
    let len = ROWS * channels;
    let width = if channels.is_multiple_of(E::TYPE.width()) { E::TYPE.width() } else { 1 };
    let parts = parts(len, blocks, 256 * width);
    assert!(len > 1 << 32 && parts.len() >= 6, "{parts:?}");
    let [x, residual] = [1, 2].map(|seed| noisy(len, &parts, seed));
    let (mut x, mut dy) = (x, noisy(len, &parts, 3));
    let [scale, shift, mean, inv_std] = [4, 5, 6, 7].map(|seed| noise(channels, seed));
    let coefficients = dense(&[&scale[..], &shift, &mean, &inv_std].concat());
    let factors = noise(3 * channels, 8);
    let abc = dense(&factors);
    let (mut y, mut mask) =
        (Sparse::<E>::zeros(len), Sparse::<u8>::zeros(batch_norm::mask_len::<E>(len, channels)));
    batch_norm::forward(
        gpu,
        x.read(),
        coefficients.read(),
        Some(residual.read()),
        true,
        y.write(),
        Some(mask.write()),
    )
    .unwrap();
    let [mut of_x, mut of_g] = [0; 2].map(|_| Sparse::<f64>::zeros(2 * channels));
    sums::channel_sums(gpu, x.read(), channels, of_x.write()).unwrap();
    let given: Vec<Vec<f32>> = parts.iter().map(|(start, count)| widened(&dy.part(*start, *count))).collect();
    let gate = batch_norm::Gate::Mask(mask.read());
    batch_norm::backward_sums(gpu, dy.write(), gate, x.read(), coefficients.read(), true, of_g.write())
        .unwrap();

    // Only the first and the last piece are summed.
    let rows_per_piece = ROWS.div_ceil(pieces);
    let (first, last) = (rows_per_piece * channels, (ROWS - 1) / rows_per_piece * rows_per_piece * channels);
    let (mut want_x, mut want_g) = (vec![0f64; 2 * channels], vec![0f64; 2 * channels]);
    let (mut summed, mut expected) = (0, Vec::new());
    for ((start, count), dy_there) in parts.iter().zip(&given) {
        let [x, residual, y, g] =
            [&x, &residual, &y, &dy].map(|values| widened(&values.part(*start, *count)));
        let bits = mask.part(start / width, count / width);
        let mut dx = Vec::new();
        for i in 0..*count {
            let (c, at) = ((start + i) % channels, start + i);
            let want = (x[i].mul_add(scale[c], shift[c]) + residual[i]).max(0.0);
            let what = || format!("value {at} of {ROWS} x {channels}");
            assert_eq!(y[i], E::narrow(want).widen(), "{}", what());
            let open = bits[i / width] >> (i % width) & 1 == 1;
            assert_eq!(open, y[i] > 0.0, "{}", what());
            let gated = if open { dy_there[i] } else { 0.0 };
            if at < first || at >= last {
                summed += 1;
                assert_eq!(g[i], gated, "{}", what());
                for (sums, terms) in
                    [(&mut want_x, [x[i], x[i] * x[i]]), (&mut want_g, [gated, gated * (x[i] - mean[c])])]
                {
                    sums[c] += f64::from(terms[0]);
                    sums[channels + c] += f64::from(terms[1]);
                }
            } else {
                assert_eq!(g[i], dy_there[i], "{}", what());
            }
            let [a, b, shift] = [0, 1, 2].map(|k| factors[k * channels + c]);
            dx.push(E::narrow(gated.mul_add(a, x[i].mul_add(b, shift))).widen());
        }
        expected.push(dx);
    }
    assert!(summed >= 2 * 256 * width, "{summed} values of the first and the last piece");
    assert_close("sums of x", &of_x.part(0, 2 * channels), &want_x, 1e-5);
    assert_close("sums of g", &of_g.part(0, 2 * channels), &want_g, 1e-5);

    batch_norm::backward_input(gpu, dy.read(), gate, x.write(), coefficients.read(), abc.read()).unwrap();
    for ((start, count), dx) in parts.iter().zip(expected) {
        assert!(widened(&x.part(*start, *count)) == dx, "dx from value {start} of {ROWS} x {channels} on");
    }
}

/// A pair whose second BatchNorm adds nothing must equal the first alone, with the same blocks and pieces.
#[test]
fn pairs_of_batch_norms_count_beyond_32_bits() {
    if compiler().is_none() {
        return;
    }
    for (channels, blocks) in [(64, 8192), (63, 8253)] {
        let gpu = &Emulator::of_corners();
        let len = ROWS * channels;
        let width = if channels.is_multiple_of(E::TYPE.width()) { E::TYPE.width() } else { 1 };
        let parts = parts(len, blocks, 256 * width);
        let [mut x, mut again, mut other] = [1, 1, 2].map(|seed| noisy(len, &parts, seed));
        let mut dy = noisy(len, &parts, 3);
        let coefficients = dense(&noise(4 * channels, 4));
        let nothing = dense(&vec![0f32; 4 * channels]);
        let (abc, of_other) = (dense(&noise(3 * channels, 5)), dense(&noise(3 * channels, 6)));
        let [mut y, mut alone] = [0; 2].map(|_| Sparse::<E>::zeros(len));
        let [mut mask, mut own_mask] =
            [0; 2].map(|_| Sparse::<u8>::zeros(batch_norm::mask_len::<E>(len, channels)));
        let [mut sums, mut other_sums, mut own_sums] = [0; 3].map(|_| Sparse::<f64>::zeros(2 * channels));

        let by = [coefficients.read(), nothing.read()];
        norm_pair::forward(gpu, [x.read(), other.read()], by, y.write(), mask.write()).unwrap();
        let to = [sums.write().into(), other_sums.write().into()];
        let xs = [x.read(), other.read()];
        norm_pair::backward_sums(gpu, dy.read(), mask.read(), xs, by, to).unwrap();
        let before: Vec<Vec<E>> = parts.iter().map(|(start, count)| other.part(*start, *count)).collect();
        let xs = [x.write(), other.write()];
        norm_pair::backward_input(gpu, dy.read(), mask.read(), xs, [abc.read(), of_other.read()]).unwrap();

        let (to, by) = (alone.write(), coefficients.read());
        batch_norm::forward(gpu, again.read(), by, None, true, to, Some(own_mask.write())).unwrap();
        let gate = batch_norm::Gate::Mask(own_mask.read());
        let to = own_sums.write();
        batch_norm::backward_sums(gpu, dy.write(), gate, again.read(), by, false, to).unwrap();
        batch_norm::backward_input(gpu, dy.read(), gate, again.write(), by, abc.read()).unwrap();

        assert!(sums.part(0, 2 * channels) == own_sums.part(0, 2 * channels));
        assert!(other_sums.part(0, channels) == own_sums.part(0, channels));
        let factors = of_other.part(0, 3 * channels);
        for ((start, count), before) in parts.iter().zip(before) {
            let what = format!("from value {start} of {ROWS} x {channels} on");
            assert!(y.part(*start, *count) == alone.part(*start, *count), "y {what}");
            assert!(x.part(*start, *count) == again.part(*start, *count), "dx {what}");
            let bits = mask.part(start / width, count / width);
            assert!(bits == own_mask.part(start / width, count / width), "the mask {what}");
            let (dy, dx) = (dy.part(*start, *count), other.part(*start, *count));
            for i in 0..*count {
                let [a, b, c] = [0, 1, 2].map(|k| factors[k * channels + (start + i) % channels]);
                let open = bits[i / width] >> (i % width) & 1 == 1;
                let g = if open { dy[i].widen() } else { 0.0 };
                assert!(
                    dx[i] == E::narrow(g.mul_add(a, before[i].widen().mul_add(b, c))),
                    "value {i} {what}"
                );
            }
        }
    }
}

#[test]
fn passes_over_values_count_beyond_32_bits() {
    if compiler().is_none() {
        return;
    }
    let gpu = &Emulator::of_corners();
    // A few values at the end do not make a whole pack.
    let len = ROWS * 64 + 5;
    let parts = parts(len - 5, 8192, 256 * E::TYPE.width());
    let (mut a, b) = (noisy(len, &parts, 1), noisy(len, &parts, 2));
    a.put(len - 5, &[E::narrow(1.5); 5]);
    let before: Vec<Vec<f32>> = parts.iter().map(|(start, count)| widened(&a.part(*start, *count))).collect();
    elementwise::add_assign(gpu, a.write(), b.read()).unwrap();
    for ((start, count), before) in parts.iter().zip(before) {
        let (a, b) = (widened(&a.part(*start, *count)), widened(&b.part(*start, *count)));
        let want: Vec<f32> = before.iter().zip(b).map(|(a, b)| E::narrow(a + b).widen()).collect();
        assert!(a == want, "from value {start} on");
    }
    elementwise::scale_by(gpu, a.write(), dense(&[2.0f32]).read()).unwrap();
    assert_eq!(widened(&a.part(len - 5, 5)), [3.0; 5]);

    let mut bytes = Sparse::<u8>::zeros(len);
    bytes.put(len - 2053, &[51; 2053]);
    elementwise::unit_from_bytes(gpu, bytes.read(), a.write()).unwrap();
    assert_eq!(widened(&a.part(len - 2053, 2053)), [E::narrow(0.2).widen(); 2053]);
}

#[test]
fn rows_and_lists_count_beyond_32_bits() {
    if compiler().is_none() {
        return;
    }
    let gpu = &Emulator::of_corners();
    // With 32 threads per row, there are more than 2^32 threads.
    let (rows, width) = ((1 << 27) + 24, 40);
    let last = (rows - 8) * width;
    let values = noise(8 * width, 1);
    let (mut x, mut y) = (Sparse::<f32>::zeros(rows * width), Sparse::<f32>::zeros(rows * width));
    x.put(last, &values);
    l2_normalize::l2_normalize_forward(gpu, x.read(), width, y.write()).unwrap();
    let (gradients, mut dy) = (noise(8 * width, 2), Sparse::<f32>::zeros(rows * width));
    dy.put(last, &gradients);
    let mut dx = Sparse::<f32>::zeros(rows * width);
    l2_normalize::l2_normalize_backward(gpu, x.read(), dy.read(), width, dx.write()).unwrap();
    let [mut want_y, mut want_dx] = [0; 2].map(|_| vec![0.0; 8 * width]);
    cpu_l2::l2_normalize_forward(&portable(), &values, width, &mut want_y);
    cpu_l2::l2_normalize_backward(&portable(), &values, &gradients, width, &mut want_dx);
    assert_close("y", &y.part(last, 8 * width), &want_y, 1e-5);
    assert_close("dx", &dx.part(last, 8 * width), &want_dx, 1e-5);

    let (mut labels, mut losses) = (Sparse::<u32>::zeros(rows), Sparse::<f32>::zeros(rows));
    labels.put(rows - 8, &[3; 8]);
    cross_entropy::softmax_cross_entropy(gpu, x.read(), labels.read(), width, losses.write(), dx.write())
        .unwrap();
    for (row, loss) in values.chunks(width).zip(losses.part(rows - 8, 8)) {
        let mass: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
        assert!((f64::from(loss) - (mass.ln() - f64::from(row[3]))).abs() < 1e-5, "{loss}");
    }

    // A list with one tensor of 5.4e9 values, where only the last block has values other than 0.
    let mut list = optimizer::TensorList::new();
    list.push_gradient(x.read()).unwrap();
    let mut sum = Sparse::<f64>::zeros(1);
    optimizer::gradient_squares(gpu, &list, sum.write()).unwrap();
    let want: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
    assert_close("the sum of squares", &sum.part(0, 1), &[want], 1e-9);
}
