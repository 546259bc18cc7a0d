//! Logistic regression on features, fitted by full-batch L-BFGS: multinomial where a row has one class, one-vs-rest
//! where it shows several.
//!
//! The objective over standardised features x (mean 0, deviation 1 on the rows it is fitted to) is
//!
//! sum over rows of -log softmax(W x + b)\[label\] + l2 / 2 ||W||^2,
//!
//! without regularisation of the bias. Where rows show several classes, the loss of a row is the sum over classes of
//! the logistic loss. `l2` is the weight of the protocol's "45 log-spaced values from 1e-6 to 1e5"; scikit-learn's
//! parameter is C = 1 / l2 (for more than two classes; with two it fits one weight vector, whose penalty is twice as
//! strong). Per row, the weight is l2 / n.
//!
//! | file | |
//! |---|---|
//! | `lbfgs` | the solver, for any smooth function |
//! | `objective` | the sum above and its gradient: on many threads, the same bits for any number, or on a GPU |
//! | `standardize` | means and deviations |
//! | `path` | the choice of the weight on a validation split |

mod lbfgs;
mod objective;
mod path;
mod standardize;

pub use lbfgs::LbfgsOptions;
pub(crate) use path::{PathOptions, fit_path};

use objective::Objective;
use simclr_engine::Device;
use simclr_kernels::product::{Operand, multiply};
use simclr_metrics::{Features, MetricsError};
use standardize::Standardizer;

use crate::{EvalError, Targets};

/// Features and their targets.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    /// One row per image.
    pub features: Features<'a>,
    /// The target of each row.
    pub targets: &'a Targets,
}

/// A fitted classifier; it takes raw features and standardises them itself.
#[derive(Debug, Clone)]
pub struct LogisticRegression {
    standardizer: Standardizer,
    /// `classes` rows of `dim` weights, then `classes` biases.
    parameters: Vec<f64>,
    classes: usize,
    /// The L2 weight it was fitted with.
    pub l2: f64,
    /// The objective per row at the solution: mean loss + l2 / (2 n) ||W||^2.
    pub objective: f64,
    /// Iterations of the solver.
    pub iterations: usize,
}

/// Fits a classifier on `device`; `classes` may exceed the classes that occur.
///
/// # Errors
/// No rows, targets that do not fit the rows or the classes, fewer than two classes, an `l2` that is negative or not
/// finite, or a GPU that fails.
pub fn fit(
    device: &Device,
    data: Labelled,
    classes: usize,
    l2: f64,
    options: &LbfgsOptions,
) -> Result<LogisticRegression, EvalError> {
    fit_from(device, data, classes, l2, options, vec![0.0; classes * (data.features.dim() + 1)])
}

/// As [`fit`], starting from given parameters.
fn fit_from(
    device: &Device,
    data: Labelled,
    classes: usize,
    l2: f64,
    options: &LbfgsOptions,
    mut parameters: Vec<f64>,
) -> Result<LogisticRegression, EvalError> {
    check(data, classes)?;
    check_l2(l2)?;
    let standardizer = Standardizer::new(data.features);
    let rows = standardizer.apply(data.features);
    let mut objective = Objective::new(device, &rows, data.targets, data.features.dim(), classes)?;
    objective.set_l2(l2);
    let solution = lbfgs::minimize(|x, gradient| objective.evaluate(x, gradient), &mut parameters, options)?;
    let (objective, iterations) = (solution.value, solution.iterations);
    Ok(LogisticRegression { standardizer, parameters, classes, l2, objective, iterations })
}

impl LogisticRegression {
    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Logits of every class for every row: row-major, `classes` per row.
    ///
    /// # Errors
    /// Rows of another width than those it was fitted on.
    pub fn scores(&self, features: Features) -> Result<Vec<f32>, MetricsError> {
        let dim = self.standardizer.dim();
        if features.dim() != dim {
            return Err(MetricsError::Shape { what: "values per row", expected: dim, got: features.dim() });
        }
        Ok(scores(&self.parameters, &self.standardizer.apply(features), dim, self.classes))
    }
}

/// W x + b for standardised `rows`.
fn scores(parameters: &[f64], rows: &[f32], dim: usize, classes: usize) -> Vec<f32> {
    use rayon::prelude::*;
    /// Rows per piece of parallel work.
    const PIECE: usize = 512;
    let narrow: Vec<f32> = parameters.iter().map(|&p| p as f32).collect();
    let (weights, bias) = narrow.split_at(classes * dim);
    let mut out = vec![0.0; rows.len() / dim * classes];
    out.par_chunks_mut(PIECE * classes).zip(rows.par_chunks(PIECE * dim)).for_each(|(out, rows)| {
        out.chunks_exact_mut(classes).for_each(|row| row.copy_from_slice(bias));
        multiply(Operand::new(rows, dim), Operand::new(weights, dim).t(), out, true);
    });
    out
}

fn check(data: Labelled, classes: usize) -> Result<(), MetricsError> {
    if classes < 2 {
        return Err(MetricsError::TooFew { what: "classes", least: 2, got: classes });
    }
    if data.features.rows() == 0 {
        return Err(MetricsError::TooFew { what: "labelled rows", least: 1, got: 0 });
    }
    data.targets.check(data.features.rows(), classes)
}

fn check_l2(l2: f64) -> Result<(), MetricsError> {
    if l2 >= 0.0 && l2.is_finite() {
        Ok(())
    } else {
        Err(MetricsError::Setting { name: "l2", got: l2, expected: "0 or more, and finite" })
    }
}

#[cfg(test)]
mod tests {
    use simclr_metrics::likeliest;

    use super::*;

    fn cpu() -> Device {
        Device::cpu(1).unwrap()
    }

    /// The likeliest class of every row.
    fn predictions(model: &LogisticRegression, features: Features) -> Vec<u32> {
        model.scores(features).unwrap().chunks_exact(model.classes).map(likeliest).collect()
    }

    #[test]
    fn separates_what_can_be_separated() {
        let values: Vec<f32> =
            (0..90).flat_map(|i| [(i % 3) as f32 * 10.0 + (i as f32).sin(), (i as f32).cos()]).collect();
        let labels: Vec<u32> = (0..90).map(|i| i % 3).collect();
        let targets = Targets::One(labels.clone());
        let features = Features::new(&values, 2).unwrap();
        let data = Labelled { features, targets: &targets };
        let model = fit(&cpu(), data, 3, 1e-3, &LbfgsOptions::default()).unwrap();
        assert_eq!(predictions(&model, features), labels);
        assert_eq!(model.scores(features).unwrap().len(), 270);
    }

    #[test]
    fn several_classes_are_fitted_each_against_all_else() {
        // Each of the two columns tells one class; an image may show both, or none.
        let values: Vec<f32> = (0..80).flat_map(|i| [(i % 2) as f32, (i / 2 % 2) as f32]).collect();
        let shown: Vec<bool> = values.iter().map(|&value| value > 0.5).collect();
        let features = Features::new(&values, 2).unwrap();
        let targets = Targets::Several { classes: 2, shown: shown.clone() };
        let model =
            fit(&cpu(), Labelled { features, targets: &targets }, 2, 1e-2, &LbfgsOptions::default()).unwrap();
        let scores = model.scores(features).unwrap();
        assert!(scores.iter().zip(shown).all(|(&score, shown)| (score > 0.0) == shown));
    }

    #[test]
    fn strong_weights_leave_the_frequencies() {
        // With W at 0 only the bias remains: log-odds of the class frequencies 1/4 and 3/4.
        let values: Vec<f32> = (0..40).map(|i| (i as f32 * 0.7).sin()).collect();
        let targets = Targets::One((0..40).map(|i| u32::from(i % 4 > 0)).collect());
        let features = Features::new(&values, 1).unwrap();
        let tight = LbfgsOptions { tolerance: 1e-7, ..LbfgsOptions::default() };
        let model = fit(&cpu(), Labelled { features, targets: &targets }, 2, 1e9, &tight).unwrap();
        let scores = model.scores(features).unwrap();
        assert!((scores[1] - scores[0] - 3f32.ln()).abs() < 1e-4);
    }

    #[test]
    fn constant_features_do_no_harm() {
        let values: Vec<f32> = (0..40).flat_map(|i| [5.0, (i % 2) as f32]).collect();
        let labels: Vec<u32> = (0..40).map(|i| i % 2).collect();
        let targets = Targets::One(labels.clone());
        let features = Features::new(&values, 2).unwrap();
        let model =
            fit(&cpu(), Labelled { features, targets: &targets }, 2, 1.0, &LbfgsOptions::default()).unwrap();
        assert_eq!(predictions(&model, features), labels);
    }

    #[test]
    fn refuses_what_it_cannot_fit() {
        let features = Features::new(&[1.0, 2.0], 1).unwrap();
        let options = LbfgsOptions::default();
        let try_fit = |labels: &[u32], classes, l2| {
            let targets = Targets::One(labels.to_vec());
            fit(&cpu(), Labelled { features, targets: &targets }, classes, l2, &options).err()
        };
        assert!(try_fit(&[0], 2, 1.0).is_some());
        assert!(try_fit(&[0, 2], 2, 1.0).is_some());
        assert!(try_fit(&[0, 0], 1, 1.0).is_some());
        assert!(try_fit(&[0, 1], 2, -1.0).is_some());
        assert!(try_fit(&[0, 1], 2, f64::NAN).is_some());
        assert!(try_fit(&[0, 1], 2, 1.0).is_none());
        let none = Labelled { features: Features::new(&[], 1).unwrap(), targets: &Targets::One(Vec::new()) };
        assert!(fit(&cpu(), none, 2, 1.0, &options).is_err());
    }
}
