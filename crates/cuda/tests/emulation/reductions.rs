use simclr_cuda::ops::reductions;
use simclr_kernels::verdict::{self, SOUND, STEPS};

use crate::support::*;
use simclr_stand_in::{Values, compiler, in_every_order};

#[test]
fn sums_of_pieces_and_values() {
    if compiler().is_none() {
        return;
    }
    for (pieces, width) in [(1, 1), (3, 70), (100, 33), (9, 1), (1500, 9)] {
        let partials: Vec<f64> = noise(pieces * width, 1).into_iter().map(f64::from).collect();
        let got = in_every_order(|gpu| {
            let (partials, mut out) = (Values::of(&partials), Values::<f64>::fresh(width));
            reductions::sum_pieces(gpu, partials.read(), pieces, out.write()).unwrap();
            out.get()
        });
        let want: Vec<f64> = (0..width).map(|i| partials.iter().skip(i).step_by(width).sum()).collect();
        assert_close(&format!("{pieces} x {width}"), &got, &want, 1e-12);
    }
    for len in [1, 31, 1024, 5000] {
        let values = noise(len, 3);
        let got = in_every_order(|gpu| {
            let (values, mut out) = (Values::of(&values), Values::<f64>::fresh(1));
            reductions::sum_values(gpu, values.read(), 0.5, out.write()).unwrap();
            out.get()
        });
        let want: f64 = values.iter().map(|&v| f64::from(v)).sum::<f64>() * 0.5;
        assert!((got[0] - want).abs() <= 1e-12 * (1.0 + want.abs()), "{len}: {} {want}", got[0]);
    }
}

#[test]
fn sums_in_f32_become_sums_in_f64() {
    if compiler().is_none() {
        return;
    }
    for (half, apart) in [(1, 1), (5, 8), (300, 300)] {
        let sums = noise(apart + half, 5);
        let got = in_every_order(|gpu| {
            let (sums, mut out) = (Values::of(&sums), Values::<f64>::fresh(2 * half));
            reductions::widen_sums(gpu, sums.read(), apart, out.write()).unwrap();
            assert!(reductions::widen_sums(gpu, sums.read(), apart + 1, out.write()).is_err());
            out.get()
        });
        let want: Vec<f64> = sums[..half].iter().chain(&sums[apart..]).map(|&v| f64::from(v)).collect();
        assert_eq!(got, want, "{half}, {apart} apart");
    }
}

#[test]
fn what_is_not_finite_is_noticed_and_the_scale_follows() {
    if compiler().is_none() {
        return;
    }
    // Steps are a loss and the squares of its gradient, over 4 views.
    let judged_at = |scale: Option<f32>, steps: &[(f64, f64)]| {
        let start = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.25, 1.0, 0.0f64];
        let got: Vec<f64> = in_every_order(|gpu| {
            let mut verdict = Values::of(&start);
            let scale = scale.map(|scale| [Values::of(&[scale]), Values::of(&[1.0 / scale])]);
            let scale = || scale.as_ref().map(|[scale, unscale]| [scale.read(), unscale.read()]);
            for &(loss, squares) in steps {
                let (sums, squares) = (Values::of(&[4.0 * loss, 2.0, 8.0]), Values::of(&[squares]));
                reductions::judge(gpu, sums.read(), squares.read(), 4, scale(), verdict.write()).unwrap();
            }
            // Bits, since NaN is not equal to itself.
            verdict.get().into_iter().map(f64::to_bits).collect::<Vec<_>>()
        })
        .into_iter()
        .map(f64::from_bits)
        .collect();
        let mut want = start;
        for &(loss, squares) in steps {
            let scale = scale.map(|scale| [scale, 1.0 / scale]);
            verdict::judge(&mut want, &[4.0 * loss, 2.0, 8.0], squares, 4, scale);
        }
        let same = |(got, want): (&f64, &f64)| got == want || got.is_nan() && want.is_nan();
        assert!(got.iter().zip(&want).all(same), "{got:?}, not {want:?}");
        got
    };
    let judged = |steps: &[(f64, f64)]| judged_at(None, steps);
    assert_eq!(judged(&[(3.0, 16.0), (1.0, 9.0)]), [1.0, 0.5, 2.0, 3.0, 1.0, 2.0, 4.5, 1.25, 1.0, 0.0]);
    // The first unsound step stays in the verdict, and is not counted.
    for bad in [(1.0, f64::INFINITY), (f64::NEG_INFINITY, 1.0)] {
        let want = [bad.0, 0.5, 2.0, f64::sqrt(bad.1), 0.0, 1.0, 3.5, 0.75, 0.0, 0.0];
        assert_eq!(judged(&[(3.0, 16.0), bad, (2.0, 4.0)]), want);
    }
    assert_eq!(judged(&[(1.0, f64::NAN), (2.0, 4.0)])[SOUND..=STEPS], [0.0, 0.0]);
    // |g| is reported without the loss scale. A step whose gradient overflows with a scale is skipped, but not one with
    // a non-finite loss, nor one whose gradient overflows without a scale.
    let infinite = (2.0, f64::INFINITY);
    let skipped = [2.0, 0.5, 2.0, 2.0, 1.0, 2.0, 5.5, 1.25, 0.0, 1.0];
    assert_eq!(judged_at(Some(4.0), &[(3.0, 64.0), infinite]), skipped);
    let taken = [1.0, 0.5, 2.0, 1.0, 1.0, 3.0, 6.5, 1.75, 1.0, 1.0];
    assert_eq!(judged_at(Some(4.0), &[(3.0, 64.0), infinite, (1.0, 16.0)]), taken);
    assert_eq!(judged_at(Some(1.0), &[infinite, (1.0, 1.0)])[SOUND..], [0.0, 0.0, 0.5, 0.25, 0.0, 0.0]);
    let bad = (f64::NAN, f64::INFINITY);
    assert_eq!(judged_at(Some(4.0), &[bad, (1.0, 1.0)])[SOUND..], [0.0, 0.0, 0.5, 0.25, 0.0, 0.0]);
    let after = |flags: &[f64]| {
        in_every_order(|gpu| {
            let mut state = [1024.0f32, 1.0 / 1024.0, 0.0].map(|value| Values::of(&[value]));
            for flag in flags {
                let flag = Values::of(&[*flag]);
                let state = state.each_mut().map(|value| value.write());
                reductions::update_loss_scale(gpu, flag.read(), state, 2).unwrap();
            }
            state.iter().flat_map(|value| value.get()).collect::<Vec<_>>()
        })
    };
    assert_eq!(after(&[1.0]), [1024.0, 1.0 / 1024.0, 1.0]);
    assert_eq!(after(&[1.0, 1.0]), [2048.0, 1.0 / 2048.0, 0.0]);
    assert_eq!(after(&[1.0, 0.0]), [512.0, 1.0 / 512.0, 0.0]);
    assert_eq!(after(&[0.0; 30])[0], 1.0);
    assert_eq!(after(&[1.0; 60])[0], 16_777_216.0);
}
