//! Evaluation on a GPU, or on its stand-in, against the CPU.

#![cfg(feature = "cuda")]

mod common;
#[path = "../../train/tests/on_gpu/mod.rs"]
mod on_gpu;

use simclr_engine::{Arithmetic, Device};
use simclr_eval::Targets;
use simclr_eval::logistic::{Labelled, LbfgsOptions, LogisticRegression, fit};
use simclr_metrics::Features;

/// 500 rows of 19 values, and targets of 7 classes that they show with some noise.
fn rows() -> (Vec<f32>, Vec<u32>) {
    let values: Vec<f32> = (0..500 * 19).map(|i| ((i * 37 % 1009) as f32 * 0.13).sin()).collect();
    let label = |row: &[f32]| (((row[0] + row[3] * 0.5) * 2.0 + 3.5) as u32).min(6);
    let labels = values.chunks_exact(19).map(label).collect();
    (values, labels)
}

#[test]
fn logistic_regression_is_that_of_the_cpu() {
    let Some((gpu, _alone)) = on_gpu::gpu(2) else { return };
    // As for an encoder in bf16: the fit must not round to tf32 all the same, and must leave this as it was.
    let fast = Arithmetic { deterministic: true, tf32: true };
    gpu.set_arithmetic(fast);
    let (values, labels) = rows();
    let features = Features::new(&values, 19).unwrap();
    let shown = labels.iter().flat_map(|&label| (0..7).map(move |class| class >= label)).collect();
    for targets in [Targets::One(labels), Targets::Several { classes: 7, shown }] {
        let on = |device: &Device| -> LogisticRegression {
            let data = Labelled { features, targets: &targets };
            fit(device, data, 7, 1.0, &LbfgsOptions::default()).unwrap()
        };
        let (here, there) = (on(&Device::cpu(2).unwrap()), on(&gpu));
        assert!((here.objective - there.objective).abs() < 2e-6, "{} {}", here.objective, there.objective);
        let scores = [here, there].map(|model| model.scores(features).unwrap());
        let most = scores[0].iter().zip(&scores[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // As far apart as what the solver takes for the minimum allows.
        assert!(most < 5e-2, "{most}");
    }
    assert_eq!(gpu.set_arithmetic(Arithmetic::default()), fast);
}
