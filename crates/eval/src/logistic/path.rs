//! The L2 weight chosen on a validation split.

use super::objective::Objective;
use super::standardize::Standardizer;
use super::{Labelled, LbfgsOptions, LogisticRegression, check, check_l2, fit_from, lbfgs, scores};
use simclr_engine::Device;
use simclr_metrics::{Features, MetricsError};

use crate::{EvalError, Metric, Targets};

/// The weights to try, and how hard to try.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PathOptions {
    /// The L2 weights to choose from.
    pub weights: Vec<f64>,
    /// The metric by which the weight is chosen.
    pub metric: Metric,
    /// The path stops after this many weights in a row that improve neither the metric nor the loss on the validation
    /// rows.
    pub patience: usize,
    /// The solver along the path.
    pub search: LbfgsOptions,
    /// The solver of the final fit.
    pub refit: LbfgsOptions,
}

impl Default for PathOptions {
    /// 45 log-spaced weights from 1e-6 to 1e5 (four per decade), chosen by top-1 accuracy; a patience of 8, which is
    /// two decades.
    fn default() -> Self {
        let weights = (0..45).map(|i| 10f64.powf(-6.0 + 11.0 * f64::from(i) / 44.0)).collect();
        let refit = LbfgsOptions { max_iterations: 500, ..LbfgsOptions::default() };
        // The choice needs only the order of the accuracies; each weight starts from its neighbour's solution.
        let search = LbfgsOptions { max_iterations: 200, progress: 1e-7, ..refit };
        PathOptions { weights, metric: Metric::Top1, patience: 8, search, refit }
    }
}

/// One weight's score on the validation split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PathPoint {
    /// The L2 weight.
    pub l2: f64,
    /// The metric on the validation rows.
    pub score: f64,
    /// The mean loss on the validation rows.
    pub loss: f64,
    /// Iterations, starting from the solution of the next stronger weight.
    pub iterations: usize,
}

/// The chosen classifier and how it was chosen.
#[derive(Debug, Clone)]
pub(crate) struct PathOutcome {
    /// Fitted on training and validation rows together, with the chosen weight.
    pub model: LogisticRegression,
    /// The weight with the highest score; among equals the one with the lowest loss.
    pub chosen: PathPoint,
    /// Every weight tried, strongest first.
    pub tried: Vec<PathPoint>,
}

/// Fits on `train` with each weight, on `device`, scores on `validation`, and refits on both with the best weight.
///
/// Goes from strong to weak weights, each fit starting from the one before. `watch` is told how many weights were
/// tried, and of how many; the path may end before the last.
///
/// # Errors
/// An empty split, targets that do not fit or are of the wrong kind for the metric, splits of different widths, no
/// weights, a negative one, or a GPU that fails.
pub(crate) fn fit_path(
    device: &Device,
    train: Labelled,
    validation: Labelled,
    classes: usize,
    options: &PathOptions,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<PathOutcome, EvalError> {
    check(train, classes)?;
    check(validation, classes)?;
    let dim = train.features.dim();
    if validation.features.dim() != dim {
        let got = validation.features.dim();
        return Err(MetricsError::Shape { what: "values per validation row", expected: dim, got }.into());
    }
    options.weights.iter().try_for_each(|&l2| check_l2(l2))?;
    let mut weights = options.weights.clone();
    weights.sort_by(|a, b| b.total_cmp(a));

    let standardizer = Standardizer::new(train.features);
    let rows = standardizer.apply(train.features);
    let held_out = standardizer.apply(validation.features);
    let mut objective = Objective::new(device, &rows, train.targets, dim, classes)?;
    let mut parameters = vec![0.0; classes * (dim + 1)];
    let mut best: Option<(PathPoint, Vec<f64>)> = None;
    let mut lowest = f64::INFINITY;
    let mut idle = 0;
    let mut tried = Vec::new();
    let of = weights.len();
    for l2 in weights {
        watch(tried.len(), of);
        objective.set_l2(l2);
        let solution = lbfgs::minimize(|x, g| objective.evaluate(x, g), &mut parameters, &options.search)?;
        let mut scores = scores(&parameters, &held_out, dim, classes);
        let score = options.metric.of(&scores, validation.targets, classes)?;
        let loss = mean_loss(&mut scores, validation.targets, classes);
        let point = PathPoint { l2, score, loss, iterations: solution.iterations };
        tried.push(point);
        let known = best.as_ref().map(|(best, _)| *best);
        let better = known.is_none_or(|best| score > best.score);
        idle = if better || loss < lowest { 0 } else { idle + 1 };
        lowest = lowest.min(loss);
        if better || known.is_some_and(|best| score == best.score && loss < best.loss) {
            best = Some((point, parameters.clone()));
        }
        if idle >= options.patience.max(1) {
            break;
        }
    }
    watch(of, of);
    // Before as much memory is taken again for the last fit.
    drop(objective);
    drop((rows, held_out));
    let Some((chosen, start)) = best else {
        return Err(MetricsError::TooFew { what: "L2 weights", least: 1, got: 0 }.into());
    };
    let values = [train.features.values(), validation.features.values()].concat();
    let targets = train.targets.then(validation.targets)?;
    let both = Labelled { features: Features::new(&values, dim)?, targets: &targets };
    let model = fit_from(device, both, classes, chosen.l2, &options.refit, start)?;
    Ok(PathOutcome { model, chosen, tried })
}

/// Returns the mean loss of rows of scores, and replaces the scores by its gradient.
fn mean_loss(scores: &mut [f32], targets: &Targets, classes: usize) -> f64 {
    let rows = scores.chunks_exact_mut(classes).enumerate();
    rows.map(|(row, scores)| targets.of(row).loss(scores)).sum::<f64>() / targets.rows() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu() -> Device {
        Device::cpu(1).unwrap()
    }

    /// One informative column of `dim`, the rest noise; a tenth of the labels are wrong.
    fn noisy(rows: usize, dim: usize, seed: u64) -> (Vec<f32>, Targets) {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let labels: Vec<u32> = (0..rows as u32).map(|i| i % 2).collect();
        let mut values: Vec<f32> = (0..rows * dim).map(|_| next()).collect();
        for (row, &label) in values.chunks_exact_mut(dim).zip(&labels) {
            let shown = if next() > 0.8 { 1 - label } else { label };
            row[0] = row[0] * 0.3 + shown as f32;
        }
        (values, Targets::One(labels))
    }

    #[test]
    fn prefers_a_weight_that_generalises() {
        let (dim, options) = (60, PathOptions::default());
        let ((a, a_labels), (b, b_labels)) = (noisy(100, dim, 1), noisy(400, dim, 2));
        let of = |values, targets| Labelled { features: Features::new(values, dim).unwrap(), targets };
        let outcome =
            fit_path(&cpu(), of(&a, &a_labels), of(&b, &b_labels), 2, &options, &mut |_, _| ()).unwrap();
        // Weak weights fit the noise of 60 columns to 100 rows.
        assert!(outcome.chosen.l2 > 1e-1, "{:?}", outcome.chosen);
        assert!(outcome.chosen.score > 0.72, "{:?}", outcome.chosen);
        assert_eq!(outcome.model.l2, outcome.chosen.l2);
        assert!(outcome.tried.windows(2).all(|pair| pair[0].l2 > pair[1].l2));
        assert!(outcome.tried.iter().all(|point| point.score <= outcome.chosen.score));
        let (test, test_labels) = noisy(1000, dim, 3);
        let scores = outcome.model.scores(Features::new(&test, dim).unwrap()).unwrap();
        assert!(Metric::Top1.of(&scores, &test_labels, 2).unwrap() > 0.72);
        // The path ended before the weakest weight.
        assert!(outcome.tried.len() < 45, "{}", outcome.tried.len());
    }

    #[test]
    fn the_last_fit_learns_from_the_validation_rows_too() {
        let (dim, options) = (5, PathOptions::default());
        let ((a, a_labels), (b, b_labels)) = (noisy(40, dim, 1), noisy(60, dim, 2));
        let of = |values, targets| Labelled { features: Features::new(values, dim).unwrap(), targets };
        let PathOutcome { model, chosen, .. } =
            fit_path(&cpu(), of(&a, &a_labels), of(&b, &b_labels), 2, &options, &mut |_, _| ()).unwrap();
        let (values, labels) = ([&a[..], &b[..]].concat(), a_labels.then(&b_labels).unwrap());
        let all = crate::logistic::fit(&cpu(), of(&values, &labels), 2, chosen.l2, &options.refit).unwrap();
        assert!((model.objective - all.objective).abs() < 1e-4 * all.objective, "{model:?}, not {all:?}");
    }

    #[test]
    fn of_equal_scores_the_lowest_loss_decides() {
        // One column without noise: every weight, however strong, separates the classes.
        let values: Vec<f32> = (0..40).map(|i| (i % 2) as f32).collect();
        let labels = Targets::One((0..40).map(|i| i % 2).collect());
        let data = Labelled { features: Features::new(&values, 1).unwrap(), targets: &labels };
        let PathOutcome { chosen, tried, .. } =
            fit_path(&cpu(), data, data, 2, &PathOptions::default(), &mut |_, _| ()).unwrap();
        assert!(tried.len() > 20 && tried.iter().all(|point| point.score == 1.0), "{tried:?}");
        assert!(tried.iter().all(|point| point.loss >= chosen.loss), "{chosen:?} of {tried:?}");
    }

    #[test]
    fn the_default_weights_are_those_of_the_protocol() {
        let weights = PathOptions::default().weights;
        assert_eq!(weights.len(), 45);
        assert!((weights[0] - 1e-6).abs() < 1e-18 && (weights[44] - 1e5).abs() < 1e-6);
    }

    #[test]
    fn refuses_what_it_cannot_choose_from() {
        let (values, labels) = noisy(10, 3, 1);
        let data = Labelled { features: Features::new(&values, 3).unwrap(), targets: &labels };
        let (none, zeros) = (Targets::One(Vec::new()), Targets::One(vec![0; 30]));
        let empty = Labelled { features: Features::new(&[], 3).unwrap(), targets: &none };
        let narrow = Labelled { features: Features::new(&values, 1).unwrap(), targets: &zeros };
        let options = PathOptions::default();
        assert!(fit_path(&cpu(), data, empty, 2, &options, &mut |_, _| ()).is_err());
        assert!(fit_path(&cpu(), data, narrow, 2, &options, &mut |_, _| ()).is_err());
        assert!(
            fit_path(
                &cpu(),
                data,
                data,
                2,
                &PathOptions { weights: vec![], ..options.clone() },
                &mut |_, _| ()
            )
            .is_err()
        );
        let of_several = PathOptions { metric: Metric::ElevenPointMap, ..options.clone() };
        assert!(fit_path(&cpu(), data, data, 2, &of_several, &mut |_, _| ()).is_err());
        assert!(
            fit_path(&cpu(), data, data, 2, &PathOptions { weights: vec![-1.0], ..options }, &mut |_, _| ())
                .is_err()
        );
    }
}
