//! Limited-memory BFGS (Nocedal and Wright, algorithms 7.4 and 7.5) with a weak Wolfe line search by bisection
//! (Lewis and Overton 2013).

use std::collections::VecDeque;

use rayon::prelude::*;

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LbfgsOptions {
    /// Iterations at most.
    pub max_iterations: usize,
    /// Stop when no component of the gradient exceeds this.
    pub tolerance: f64,
    /// Stop when an iteration lowers the value by less than this, relative to the value.
    pub progress: f64,
}

impl Default for LbfgsOptions {
    /// 1000 iterations, gradient 1e-5, progress 1e-9.
    fn default() -> Self {
        LbfgsOptions { max_iterations: 1000, tolerance: 1e-5, progress: 1e-9 }
    }
}

/// Where the solver stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Solution {
    /// The value there.
    pub value: f64,
    /// Iterations done.
    pub iterations: usize,
    /// Evaluations of the function.
    pub evaluations: usize,
    /// The largest component of the gradient there.
    pub gradient: f64,
}

/// The value must fall by this share of what the slope predicts (Armijo).
const DECREASE: f64 = 1e-4;
/// The slope must rise to at least this share of its value at the start of the step (curvature).
const CURVATURE: f64 = 0.9;
/// Past steps from which the curvature is estimated.
const REMEMBERED: usize = 10;
/// Halvings and doublings of a step before the search gives up.
const SEARCH: usize = 40;

/// Minimises `function` in place, starting from `x`. `function(x, gradient)` returns the value and overwrites the
/// gradient.
///
/// Never ends at a higher value than it started with. A value that is not finite counts as too high and shortens the
/// step.
///
/// # Errors
/// The first error of `function`.
pub(super) fn minimize<E>(
    mut function: impl FnMut(&[f64], &mut [f64]) -> Result<f64, E>,
    x: &mut [f64],
    options: &LbfgsOptions,
) -> Result<Solution, E> {
    let mut gradient = vec![0.0; x.len()];
    let mut value = function(x, &mut gradient)?;
    let mut evaluations = 1;
    let mut memory = Memory { corrections: VecDeque::new() };
    let (mut trial, mut trial_gradient) = (x.to_vec(), gradient.clone());
    let mut iterations = 0;
    while iterations < options.max_iterations && largest(&gradient) > options.tolerance {
        let direction = memory.direction(&gradient);
        let slope = dot(&gradient, &direction);
        let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
        let mut found = None;
        for _ in 0..SEARCH {
            trial.copy_from_slice(x);
            add(&mut trial, length, &direction);
            let trial_value = function(&trial, &mut trial_gradient)?;
            evaluations += 1;
            // Phrased so that NaN counts as too high.
            let low_enough = trial_value <= value + DECREASE * length * slope;
            if !low_enough {
                (high, found) = (length, None);
            } else if dot(&trial_gradient, &direction) < CURVATURE * slope {
                low = length;
                found = Some(trial_value);
            } else {
                found = Some(trial_value);
                break;
            }
            length = if high.is_finite() { (low + high) / 2.0 } else { 2.0 * low };
        }
        // Only the last trial's gradient is at hand, so a search that ends on a value that is too high has found
        // nothing.
        let Some(next) = found else { break };
        let step: Vec<f64> = trial.iter().zip(&*x).map(|(t, x)| t - x).collect();
        let change: Vec<f64> = trial_gradient.iter().zip(&gradient).map(|(t, g)| t - g).collect();
        memory.push(step, change);
        x.copy_from_slice(&trial);
        std::mem::swap(&mut gradient, &mut trial_gradient);
        iterations += 1;
        let gain = value - next;
        value = next;
        if gain <= options.progress * value.abs() {
            break;
        }
    }
    Ok(Solution { value, iterations, evaluations, gradient: largest(&gradient) })
}

/// The most recent corrections.
struct Memory {
    corrections: VecDeque<Correction>,
}

/// A step and the change of the gradient over it.
struct Correction {
    /// x_{k+1} - x_k.
    s: Vec<f64>,
    /// gradient_{k+1} - gradient_k.
    y: Vec<f64>,
    /// 1 / (s . y).
    rho: f64,
}

impl Memory {
    fn push(&mut self, s: Vec<f64>, y: Vec<f64>) {
        let curvature = dot(&s, &y);
        // Rounding can turn a tiny step's curvature negative, which would spoil the estimate.
        if curvature > 1e-12 * dot(&y, &y) {
            if self.corrections.len() == REMEMBERED {
                self.corrections.pop_front();
            }
            self.corrections.push_back(Correction { s, y, rho: 1.0 / curvature });
        }
    }

    /// Minus the estimated inverse Hessian times the gradient (two-loop recursion).
    fn direction(&self, gradient: &[f64]) -> Vec<f64> {
        let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let Some(last) = self.corrections.back() else {
            // The curvature is unknown yet: the first step has length 1 at most.
            let shorten = 1.0 / dot(gradient, gradient).sqrt().max(1.0);
            q.iter_mut().for_each(|q| *q *= shorten);
            return q;
        };
        let mut alphas = Vec::with_capacity(self.corrections.len());
        for correction in self.corrections.iter().rev() {
            let alpha = correction.rho * dot(&correction.s, &q);
            add(&mut q, -alpha, &correction.y);
            alphas.push(alpha);
        }
        let scale = 1.0 / (last.rho * dot(&last.y, &last.y));
        q.iter_mut().for_each(|q| *q *= scale);
        for (correction, alpha) in self.corrections.iter().zip(alphas.iter().rev()) {
            let beta = correction.rho * dot(&correction.y, &q);
            add(&mut q, alpha - beta, &correction.s);
        }
        q
    }
}

/// Values per piece of parallel work. Sums go piece by piece, in order: the same bits for any number of threads.
const PIECE: usize = 1 << 14;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let of_piece = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    if a.len() <= PIECE {
        return of_piece(a, b);
    }
    let sums: Vec<f64> = a.par_chunks(PIECE).zip(b.par_chunks(PIECE)).map(|(a, b)| of_piece(a, b)).collect();
    sums.into_iter().sum()
}

fn add(to: &mut [f64], factor: f64, what: &[f64]) {
    let of_piece = |to: &mut [f64], what: &[f64]| {
        to.iter_mut().zip(what).for_each(|(to, what)| *to += factor * what);
    };
    if to.len() <= PIECE {
        return of_piece(to, what);
    }
    to.par_chunks_mut(PIECE).zip(what.par_chunks(PIECE)).for_each(|(to, what)| of_piece(to, what));
}

fn largest(gradient: &[f64]) -> f64 {
    gradient.iter().fold(0.0, |most: f64, g| most.max(g.abs()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const TIGHT: LbfgsOptions = LbfgsOptions { max_iterations: 500, tolerance: 1e-8, progress: 0.0 };

    /// [`minimize`] for a function that does not fail.
    fn minimum(
        mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
        x: &mut [f64],
        options: &LbfgsOptions,
    ) -> Solution {
        let Ok(solution) = minimize(|x, g| Ok::<_, Infallible>(function(x, g)), x, options);
        solution
    }

    #[test]
    fn a_badly_scaled_bowl() {
        let bowl = |x: &[f64], gradient: &mut [f64]| {
            let mut value = 0.0;
            for (i, (x, gradient)) in x.iter().zip(gradient).enumerate() {
                let scale = 10f64.powi(i as i32 - 2);
                value += scale / 2.0 * (x - 1.0).powi(2);
                *gradient = scale * (x - 1.0);
            }
            value
        };
        let mut x = [0.0; 6];
        let solution = minimum(bowl, &mut x, &TIGHT);
        assert!(x.iter().all(|x| (x - 1.0).abs() < 1e-5), "{x:?}");
        assert!(solution.iterations < 80, "{solution:?}");
    }

    #[test]
    fn rosenbrock() {
        let valley = |x: &[f64], gradient: &mut [f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            gradient[0] = -2.0 * a - 400.0 * x[0] * b;
            gradient[1] = 200.0 * b;
            a * a + 100.0 * b * b
        };
        let mut x = [-1.2, 1.0];
        let solution = minimum(valley, &mut x, &TIGHT);
        assert!((x[0] - 1.0).abs() < 1e-6 && (x[1] - 1.0).abs() < 1e-6, "{x:?} {solution:?}");
    }

    #[test]
    fn steps_back_from_what_is_not_finite() {
        // x - ln(x) is NaN left of 0, which is where a full step from the flat side lands.
        let log = |x: &[f64], gradient: &mut [f64]| {
            gradient[0] = 1.0 - 1.0 / x[0];
            x[0] - x[0].ln()
        };
        let mut x = [30.0];
        minimum(log, &mut x, &TIGHT);
        assert!((x[0] - 1.0).abs() < 1e-6, "{x:?}");
    }

    #[test]
    fn a_function_without_a_floor_ends() {
        let mut x = [0.0];
        let solution = minimum(
            |x, gradient| {
                gradient[0] = -1.0;
                -x[0]
            },
            &mut x,
            &LbfgsOptions { max_iterations: 5, ..TIGHT },
        );
        assert!(solution.iterations <= 5 && x[0].is_finite());
    }

    #[test]
    fn many_values_are_the_sums_of_pieces() {
        let a: Vec<f64> = (0..3 * PIECE + 5).map(|i| (i as f64 * 0.1).sin()).collect();
        let b: Vec<f64> = (0..a.len()).map(|i| (i as f64 * 0.3).cos()).collect();
        let plain: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        assert!((dot(&a, &b) - plain).abs() < 1e-9, "{} {plain}", dot(&a, &b));
        let mut sum = a.clone();
        add(&mut sum, 2.0, &b);
        assert!(sum.iter().zip(a.iter().zip(&b)).all(|(sum, (a, b))| *sum == a + 2.0 * b));
    }

    #[test]
    fn the_first_error_ends_it() {
        let mut left = 3;
        let fails = |x: &[f64], gradient: &mut [f64]| {
            left -= 1;
            gradient[0] = 2.0 * x[0];
            if left == 0 { Err("out of order") } else { Ok(x[0] * x[0]) }
        };
        assert_eq!(minimize(fails, &mut [30.0], &TIGHT).unwrap_err(), "out of order");
    }
}
