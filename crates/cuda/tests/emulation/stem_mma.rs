use half::{bf16, f16};
use simclr_cuda::ops::{stem_mma, sums};
use simclr_kernels::{Conv2dGeometry, conv2d as cpu};

use crate::support::*;
use simclr_stand_in::{Values, compiler, in_every_order};

/// Batch, height, width, channels out: images smaller than a strip, and several strips of which the last are cut.
const SHAPES: [[usize; 4]; 8] = [
    [1, 1, 1, 16],
    [3, 7, 5, 64],
    [3, 1, 1, 128],
    [3, 33, 17, 48],
    [1, 33, 17, 64],
    [1, 7, 5, 16],
    [1, 9, 40, 64],
    [1, 8, 32, 128],
];

fn geometry([batch, in_height, in_width, out_channels]: [usize; 4]) -> Conv2dGeometry {
    Conv2dGeometry {
        batch,
        in_height,
        in_width,
        in_channels: 3,
        out_channels,
        kernel_height: 3,
        kernel_width: 3,
        stride: 1,
        padding: 1,
    }
}

#[test]
fn first_convolutions_on_tensor_cores() {
    if compiler().is_some() {
        for g in SHAPES.map(geometry) {
            convolved::<bf16>(&g);
            convolved::<f16>(&g);
        }
        // Blocks for several strips.
        convolved::<bf16>(&geometry([1100, 1, 1, 16]));
    }
}

fn convolved<E: Stored>(g: &Conv2dGeometry) {
    let portable = portable();
    let (x, w) = (narrowed::<E>(&noise(g.input_len(), 1)), noise(g.weight_len(), 2));
    let dy = narrowed::<E>(&noise(g.output_len(), 3));
    let (got, of_stored, dw) = in_every_order(|gpu| {
        let (x, w, dy) = (Values::of(&x), Values::of(&w), Values::of(&dy));
        let mut y = Values::<E>::fresh(g.output_len());
        let [mut totals, mut again] = [0, 1].map(|_| Values::<f64>::fresh(2 * g.out_channels));
        stem_mma::forward(gpu, g, x.read(), w.read(), y.write(), Some(totals.write())).unwrap();
        let mut alone = Values::<E>::fresh(g.output_len());
        stem_mma::forward(gpu, g, x.read(), w.read(), alone.write(), None).unwrap();
        assert_eq!(y.get(), alone.get(), "{g:?}");
        sums::channel_sums(gpu, y.read(), g.out_channels, again.write()).unwrap();
        let mut dw = Values::<f32>::fresh(g.weight_len());
        stem_mma::backward_weight(gpu, g, x.read(), dy.read(), dw.write()).unwrap();
        (y.get(), [totals.get(), again.get()], dw.get())
    });
    let (x, w, dy) = (widened(&x), widened(&narrowed::<E>(&w)), widened(&dy));
    let mut want = vec![0f32; g.output_len()];
    cpu::conv2d_forward(&portable, g, &x, &w, &mut want, None);
    assert_close(&format!("{g:?}"), &widened(&got), &want, tolerance::<E>());
    // All but few are the exact ones, rounded: terms are added in another order.
    let same = narrowed::<E>(&want).iter().zip(&got).filter(|(a, b)| a == b).count();
    assert!(same * 100 >= got.len() * 99, "{g:?}: {same} of {}", got.len());
    for (what, part) in [("sums", 0..g.out_channels), ("squares", g.out_channels..2 * g.out_channels)] {
        let [got, want] = &of_stored;
        assert_close(&format!("{what} of {g:?}"), &got[part.clone()], &want[part], 1e-6);
    }
    let mut want = vec![0f32; g.weight_len()];
    cpu::conv2d_backward_weight(&portable, g, &x, &dy, &mut want);
    assert_close(&format!("dw of {g:?}"), &dw, &want, 1e-5);
}

#[test]
fn what_is_beyond_an_image_does_not_matter() {
    if compiler().is_none() {
        return;
    }
    // A NaN reaches the 3 x 3 outputs around it, and no other.
    let g = geometry([2, 5, 6, 16]);
    let mut x = noise(g.input_len(), 1);
    x[((5 + 2) * 6 + 3) * 3 + 1] = f32::NAN;
    let (x, w) = (narrowed::<bf16>(&x), noise(g.weight_len(), 2));
    let y = in_every_order(|gpu| {
        let (x, w, mut y) = (Values::of(&x), Values::of(&w), Values::<bf16>::fresh(g.output_len()));
        stem_mma::forward(gpu, &g, x.read(), w.read(), y.write(), None).unwrap();
        y.get().into_iter().map(bf16::to_bits).collect::<Vec<_>>()
    });
    for (i, bits) in y.into_iter().enumerate() {
        let (row, column) = (i / 16 / 6, i / 16 % 6);
        let around = (6..=8).contains(&row) && (2..=4).contains(&column);
        assert_eq!(bf16::from_bits(bits).is_nan(), around, "row {row}, column {column}");
    }
}

#[test]
fn other_convolutions_and_lengths_are_refused() {
    let g = geometry([2, 8, 8, 64]);
    assert!(stem_mma::serves::<bf16>(&g) && stem_mma::serves::<f16>(&g) && !stem_mma::serves::<f32>(&g));
    let others = [
        Conv2dGeometry { stride: 2, ..g },
        Conv2dGeometry { padding: 0, ..g },
        Conv2dGeometry { in_channels: 4, ..g },
        Conv2dGeometry { out_channels: 24, ..g },
        Conv2dGeometry { out_channels: 144, ..g },
        Conv2dGeometry { kernel_width: 5, ..g },
        Conv2dGeometry { batch: 0, ..g },
    ];
    assert!(others.iter().all(|g| !stem_mma::serves::<bf16>(g)));
    if compiler().is_none() {
        return;
    }
    in_every_order(|gpu| {
        let (x, w) = (Values::of(&[bf16::ONE; 384]), Values::of(&[1f32; 1728]));
        let mut y = Values::<bf16>::fresh(8192);
        let mut forward = |g: &Conv2dGeometry, x| {
            stem_mma::forward(gpu, g, x, w.read(), y.write(), None).unwrap_err().to_string()
        };
        assert!(forward(&others[0], x.read()).contains("stride 1, padding 1"));
        let short = Values::of(&[bf16::ONE; 12]);
        assert_eq!(forward(&g, short.read()), "stem_mma_forward: x has 12 values, 384 are needed");
    });
}
