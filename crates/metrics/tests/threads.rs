//! The same bits for any number of threads.

use simclr_metrics::*;

/// Reproducible values in [-1, 1].
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn figures_do_not_depend_on_the_number_of_threads() {
    let (rows, dim) = (1500, 24);
    let (train, test) = (noise(rows * dim, 1), noise(600 * dim, 2));
    let labels: Vec<u32> = (0..rows as u32).map(|i| i % 7).collect();
    let figures = || {
        let (train, test) = (Features::new(&train, dim).unwrap(), Features::new(&test, dim).unwrap());
        let knn = Knn::default().evaluate(train, &labels, test, &labels[..600], 7).unwrap();
        let pairs = pair_figures(train, 0.1, true).unwrap();
        let bits = [
            rank_me(train).unwrap(),
            alignment(train).unwrap(),
            uniformity(train).unwrap(),
            spread(train).unwrap(),
            pairs.loss,
            pairs.entropy,
            pairs.contrastive_accuracy,
        ];
        let near = nearest_neighbours(test, train, 5).unwrap();
        (knn, bits.map(f64::to_bits), near)
    };
    let run =
        |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(figures);
    let one = run(1);
    for threads in [2, 3, 4] {
        assert_eq!(one, run(threads), "{threads} threads");
    }
}
