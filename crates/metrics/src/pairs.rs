//! The contrastive task on held-out pairs: NT-Xent, contrastive accuracy and entropy.

use crate::error::check_temperature;
use crate::{Features, MetricsError};
use rayon::prelude::*;
use simclr_kernels::product::{Operand, multiply};

/// Anchors per piece of parallel work.
const TILE: usize = 64;

/// Figures of the contrastive task, means over the 2N anchors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairFigures {
    /// NT-Xent: mean of -log(exp s(i,j) / sum over k != i of exp s(i,k)), s(i,k) = z_i . z_k / temperature,
    /// j the positive of i (SimCLR, equation 1).
    pub loss: f64,
    /// Fraction of anchors whose positive is the most similar of all other views. An anchor whose positive ties
    /// for first place with t - 1 others counts 1 / t, so that collapse scores as chance.
    pub contrastive_accuracy: f64,
    /// Mean entropy of the softmax over the other views, in nats: 0 to log(2N - 1).
    pub entropy: f64,
}

/// Figures of the contrastive task over all views of `z`.
///
/// `z` holds 2N rows: one view of each of N images, then the other views in the same order. Rows are
/// L2-normalised first if `normalize`. Time grows with N^2, memory with N.
///
/// # Errors
/// No rows or an odd number of them, or a temperature that is not above 0.
pub fn pair_figures(z: Features, temperature: f64, normalize: bool) -> Result<PairFigures, MetricsError> {
    check_temperature(temperature)?;
    let pairs = check_pairs(z)?;
    let (views, dim) = (2 * pairs, z.dim());
    let normalised = if normalize { z.normalised() } else { z.values().to_vec() };
    let tiles: Vec<PairFigures> = normalised
        .par_chunks(TILE * dim)
        .enumerate()
        .map(|(tile, anchors)| {
            let mut dots = vec![0.0; anchors.len() / dim * views];
            multiply(Operand::new(anchors, dim), Operand::new(&normalised, dim).t(), &mut dots, false);
            let figures = dots.chunks_exact(views).enumerate().map(|(offset, row)| {
                let anchor = tile * TILE + offset;
                anchor_figures(row, anchor, (anchor + pairs) % views, temperature)
            });
            figures.fold(ZERO, plus)
        })
        .collect();
    let sum = tiles.into_iter().fold(ZERO, plus);
    let count = views as f64;
    Ok(PairFigures {
        loss: sum.loss / count,
        contrastive_accuracy: sum.contrastive_accuracy / count,
        entropy: sum.entropy / count,
    })
}

const ZERO: PairFigures = PairFigures { loss: 0.0, contrastive_accuracy: 0.0, entropy: 0.0 };

fn plus(a: PairFigures, b: PairFigures) -> PairFigures {
    PairFigures {
        loss: a.loss + b.loss,
        contrastive_accuracy: a.contrastive_accuracy + b.contrastive_accuracy,
        entropy: a.entropy + b.entropy,
    }
}

/// Figures of one anchor, whose dot products with all views are `dots`.
fn anchor_figures(dots: &[f32], anchor: usize, positive: usize, temperature: f64) -> PairFigures {
    let others = || dots.iter().enumerate().filter(|(view, _)| *view != anchor).map(|(_, &dot)| dot);
    let most = others().fold(f32::NEG_INFINITY, f32::max);
    let ties = others().filter(|&dot| dot == most).count();
    // p = exp(u) / total with u = s - max s; entropy = -sum p log p = log total - sum(u exp u) / total.
    let (mut total, mut weighted) = (0.0, 0.0);
    for dot in others() {
        let u = f64::from(dot - most) / temperature;
        total += u.exp();
        weighted += u * u.exp();
    }
    PairFigures {
        loss: total.ln() - f64::from(dots[positive] - most) / temperature,
        contrastive_accuracy: if dots[positive] == most { 1.0 / ties as f64 } else { 0.0 },
        entropy: total.ln() - weighted / total,
    }
}

/// The number of pairs N in 2N rows.
pub(crate) fn check_pairs(z: Features) -> Result<usize, MetricsError> {
    match z.rows() {
        0 => Err(MetricsError::TooFew { what: "rows, two views per image", least: 2, got: 0 }),
        odd if odd % 2 == 1 => {
            Err(MetricsError::Shape { what: "rows, two views per image", expected: odd + 1, got: odd })
        }
        even => Ok(even / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example: dot products in three dimensions, temperature 0.1, first views then second views.
    const FIRST: [[f32; 3]; 4] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]];
    const SECOND: [[f32; 3]; 4] = [[0.9, 0.4, 0.0], [0.1, 0.9, 0.0], [0.0, 0.1, 0.9], [-0.9, -0.4, 0.0]];

    #[test]
    fn worked_example() {
        let z: Vec<f32> = FIRST.iter().chain(&SECOND).flatten().copied().collect();
        let dots: Vec<f32> = z.chunks(3).map(|row| row[0]).collect();
        let loss = anchor_figures(&dots, 0, 4, 0.1).loss;
        assert!((loss - 0.00071).abs() < 5e-6, "{loss}");
        // With s(1,2) lowered to 0.1 before division by the temperature.
        let lowered: Vec<f32> = dots.iter().enumerate().map(|(i, &d)| if i == 4 { 0.1 } else { d }).collect();
        let loss = anchor_figures(&lowered, 0, 4, 0.1).loss;
        assert!((loss - 1.13).abs() < 0.005, "{loss}");
        let figures = pair_figures(Features::new(&z, 3).unwrap(), 0.1, false).unwrap();
        assert_eq!(figures.contrastive_accuracy, 1.0);
    }

    #[test]
    fn collapse_is_chance() {
        let z = [2.0f32; 3 * 2 * 100];
        let figures = pair_figures(Features::new(&z, 3).unwrap(), 0.5, true).unwrap();
        assert!((figures.loss - 199f64.ln()).abs() < 1e-9);
        assert!((figures.entropy - 199f64.ln()).abs() < 1e-9);
        assert!((figures.contrastive_accuracy - 1.0 / 199.0).abs() < 1e-9);
    }

    #[test]
    fn a_single_pair_has_nothing_to_tell_apart() {
        let figures = pair_figures(Features::new(&[1.0, 0.0, 0.0, 1.0], 2).unwrap(), 0.5, true).unwrap();
        assert_eq!(figures, PairFigures { loss: 0.0, contrastive_accuracy: 1.0, entropy: 0.0 });
    }

    #[test]
    fn refuses_what_has_no_pairs() {
        let odd = Features::new(&[1.0, 2.0, 3.0], 1).unwrap();
        assert!(pair_figures(odd, 0.5, true).is_err());
        assert!(pair_figures(Features::new(&[], 1).unwrap(), 0.5, true).is_err());
        let even = Features::new(&[1.0, 2.0], 1).unwrap();
        for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(pair_figures(even, temperature, true).is_err());
        }
    }
}
