use simclr_cuda::ops::selective;
use simclr_kernels::Write;
use simclr_kernels::selective as cpu;

use crate::support::*;
use simclr_stand_in::{Values, in_every_order};

#[test]
fn selective_kernels_are_the_portable_form() {
    for_each_type!(selective_kernels);
}

fn selective_kernels<E: Stored>() {
    let cpu_of = portable();
    for (batch, pixels, channels) in [(1, 1, 1), (3, 49, 17), (5, 16, 64), (2, 1000, 3), (2, 100, 24)] {
        let x = narrowed::<E>(&noise(2 * batch * pixels * channels, 1));
        let logits: Vec<f32> = noise(2 * batch * channels, 2).iter().map(|v| 8.0 * v).collect();
        let (dy, dfused) = (narrowed::<E>(&noise(x.len() / 2, 3)), noise(batch * channels, 4));
        let got = in_every_order(|gpu| {
            let (x, dy, dfused) = (Values::of(&x), Values::of(&dy), Values::of(&dfused));
            let logits = Values::of(&logits);
            let (mut fused, mut dlogits) =
                (Values::<f32>::fresh(batch * channels), Values::<f32>::fresh(2 * batch * channels));
            let (mut y, mut spread) = (Values::<E>::fresh(dy.get().len()), Values::<E>::fresh(x.get().len()));
            let mut dx = Values::of(&x.get());
            selective::fuse_forward(gpu, x.read(), pixels, channels, fused.write()).unwrap();
            selective::select_forward(gpu, x.read(), logits.read(), pixels, channels, y.write()).unwrap();
            let (to, dl) = (dx.write(), dlogits.write());
            selective::select_backward(gpu, dy.read(), logits.read(), pixels, channels, to, dl).unwrap();
            let own = dx.get();
            selective::fuse_backward(gpu, dfused.read(), pixels, channels, dx.write(), Write::Add).unwrap();
            selective::fuse_backward(gpu, dfused.read(), pixels, channels, spread.write(), Write::Over)
                .unwrap();
            let typed = [y.get(), own, dx.get(), spread.get()].map(|values| widened(&values));
            (fused.get(), dlogits.get(), typed)
        });
        let (wide, wide_dy) = (widened(&x), widened(&dy));
        let (mut fused, mut dlogits) = (vec![0.0; dfused.len()], vec![0.0; logits.len()]);
        let (mut y, mut dx, mut spread) = (vec![0.0; dy.len()], wide.clone(), vec![0.0; x.len()]);
        cpu::fuse_forward(&cpu_of, &wide, pixels, channels, &mut fused);
        cpu::select_forward(&cpu_of, &wide, &logits, pixels, channels, &mut y);
        cpu::select_backward(&cpu_of, &wide_dy, &logits, pixels, channels, &mut dx, &mut dlogits);
        cpu::fuse_backward(&cpu_of, &dfused, pixels, channels, &mut spread, Write::Over);
        assert_close("fused", &got.0, &fused, 1e-5);
        assert_close("dlogits", &got.1, &dlogits, 1e-5);
        let sum: Vec<f32> = dx.iter().zip(&spread).map(|(a, b)| a + b).collect();
        for (what, got, want) in [
            ("y", &got.2[0], &y),
            ("dx", &got.2[1], &dx),
            ("dx of both", &got.2[2], &sum),
            ("dx of fuse", &got.2[3], &spread),
        ] {
            assert_close(what, got, want, tolerance::<E>());
        }
    }
}
