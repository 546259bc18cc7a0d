//! Evaluation on a GPU, or on its stand-in, against the CPU.

#![cfg(feature = "cuda")]

mod common;
#[path = "../../train/tests/on_gpu/mod.rs"]
mod on_gpu;

use simclr_engine::{Arithmetic, Device};
use simclr_eval::Targets;
use simclr_eval::logistic::{Labelled, LbfgsOptions, LogisticRegression, fit};
use simclr_metrics::Features;

/// 500 rows of 19 values, and targets of 7 classes that they show with some noise. All occur: the bias of one that does
/// not would have no best value.
fn rows() -> (Vec<f32>, Vec<u32>) {
    let values: Vec<f32> = (0..500 * 19).map(|i| ((i * 37 % 1009) as f32 * 0.13).sin()).collect();
    let label = |row: &[f32]| (((row[0] + row[3] * 0.5) * 3.4 + 3.5) as u32).min(6);
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
    // With these, the gradient is what ends both fits: no component exceeds the tolerance.
    let (l2, options) = (50.0, LbfgsOptions { tolerance: 3e-5, progress: 0.0, ..LbfgsOptions::default() });
    for targets in [Targets::One(labels), Targets::Several { classes: 7, shown }] {
        let on = |device: &Device| -> LogisticRegression {
            let data = Labelled { features, targets: &targets };
            fit(device, data, 7, l2, &options).unwrap()
        };
        let (here, there) = (on(&Device::cpu(2).unwrap()), on(&gpu));
        let apart = (here.objective - there.objective).abs();
        // By row, up to a constant, of which a softmax knows nothing.
        let [a, b] = [here, there].map(|model| model.scores(features).unwrap());
        let mut differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| f64::from(a - b)).collect();
        for row in differences.chunks_exact_mut(7) {
            let mean = row.iter().sum::<f64>() / 7.0;
            row.iter_mut().for_each(|difference| *difference -= mean);
        }
        let most = differences.iter().fold(0.0, |most: f64, difference| most.max(difference.abs()));
        // Standardised features have mean 0: the mean score of a class is its bias.
        let of_class = |class| differences.iter().skip(class).step_by(7).sum::<f64>() / 500.0;
        let biases: f64 = (0..7).map(|class| f64::abs(of_class(class))).sum();
        // The objective is convex, and along the 7 x 19 weights its curvature is at least l2 / n: from one solution to
        // the other it falls by at most |gradient|^2 / (2 l2 / n) along these, and by the gradient times the difference
        // along the biases.
        let far = 133.0 * options.tolerance.powi(2) / (2.0 * l2 / 500.0) + options.tolerance * biases;
        // The losses of rows are f32, of about 1.
        let rounding = 2e-7;
        assert!(apart <= far + rounding, "{apart} {far}");
        // As far apart as what the solver takes for the minimum allows.
        assert!(most < 5e-2, "{most}");
    }
    assert_eq!(gpu.set_arithmetic(Arithmetic::default()), fast);
}
