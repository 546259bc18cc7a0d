use simclr_cuda::ops::elementwise;

use crate::support::*;
use simclr_stand_in::{Values, in_every_order};

#[test]
fn each_pass_does_what_it_says() {
    for_each_type!(passes);
}

fn passes<E: Stored>() {
    for len in [1, 7, 8, 9, 255, 2048 + 5, 70_001] {
        let mut wide = noise(len, 1);
        if len > 8 {
            wide[3] = 0.0;
            wide[5] = f32::NAN;
        }
        let (a, b) = (narrowed::<E>(&wide), narrowed::<E>(&noise(len, 2)));
        let bytes: Vec<u8> = (0..len).map(|i| (i * 37 % 256) as u8).collect();
        let run = in_every_order(|gpu| {
            let (x, b) = (Values::of(&a), Values::of(&b));
            let mut relu = Values::<E>::fresh(len);
            elementwise::relu_forward(gpu, x.read(), relu.write()).unwrap();
            let mut gated = Values::of(&b.get());
            elementwise::relu_backward(gpu, relu.read(), gated.write()).unwrap();
            let mut sum = Values::of(&a);
            elementwise::add_assign(gpu, sum.write(), b.read()).unwrap();
            let (mut half, factor) = (Values::of(&a), Values::of(&[0.5f32]));
            elementwise::scale_by(gpu, half.write(), factor.read()).unwrap();
            let mut filled = Values::<E>::fresh(len);
            elementwise::fill(gpu, filled.write(), 1.5).unwrap();
            let (mut wide, mut narrow) = (Values::<f32>::fresh(len), Values::<E>::fresh(len));
            elementwise::widen(gpu, x.read(), wide.write()).unwrap();
            elementwise::narrow(gpu, wide.read(), narrow.write()).unwrap();
            let (bytes, mut unit) = (Values::of(&bytes), Values::<E>::fresh(len));
            elementwise::unit_from_bytes(gpu, bytes.read(), unit.write()).unwrap();
            let outs = [relu, gated, sum, half, filled, narrow, unit];
            let bits = |v: f32| if v.is_nan() { f32::INFINITY } else { v };
            outs.map(|out| widened(&out.get()).into_iter().map(bits).collect::<Vec<f32>>())
        });
        for i in 0..len {
            let (x, y) = (a[i].widen(), b[i].widen());
            let rounded = |v: f32| if v.is_nan() { f32::INFINITY } else { E::narrow(v).widen() };
            let want = [
                if 0.0 > x { 0.0 } else { x },
                if x > 0.0 { y } else { 0.0 },
                x + y,
                x * 0.5,
                1.5,
                x,
                f32::from(bytes[i]) / 255.0,
            ];
            for (pass, want) in want.into_iter().enumerate() {
                assert_eq!(run[pass][i], rounded(want), "pass {pass}, value {i} of {len}");
            }
        }
    }
}

#[test]
fn every_rounding_is_that_of_the_types_own_crate() {
    for_each_type!(roundings);
}

/// Values of every magnitude, including halfway cases and those just below infinity.
fn roundings<E: Stored>() {
    let mut values: Vec<f32> = (0..60_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b1))).collect();
    values.extend([
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        65_519.9,
        65_520.0,
        5.96e-8,
        2.98e-8,
        2.99e-8,
    ]);
    values.extend((0..3000).map(|i| 1.0 + i as f32 / 8192.0));
    values.extend((0..3000).map(|i| (i as f32 + 0.5) * 5.960_464_5e-8));
    values.retain(|v| !v.is_nan());
    let got = in_every_order(|gpu| {
        let (x, mut narrow) = (Values::of(&values), Values::<E>::fresh(values.len()));
        elementwise::narrow(gpu, x.read(), narrow.write()).unwrap();
        let mut wide = Values::<f32>::fresh(values.len());
        elementwise::widen(gpu, narrow.read(), wide.write()).unwrap();
        wide.get().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    });
    for (got, value) in got.into_iter().zip(values) {
        assert_eq!(got, E::narrow(value).widen().to_bits(), "{value:e}");
    }
}
