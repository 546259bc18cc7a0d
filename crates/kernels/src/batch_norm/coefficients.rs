//! Turns a BatchNorm's sums into the few numbers per channel that its passes over all values need.

use std::ops::Range;

/// The range of part `index` of a BatchNorm's coefficients (4, C): scale, shift, mean, 1 / deviation.
fn part(coefficients: &[f32], index: usize) -> Range<usize> {
    let channels = coefficients.len() / 4;
    index * channels..(index + 1) * channels
}

/// A BatchNorm's coefficients: y = x scale + shift with scale = gamma / deviation and shift = beta - mean scale.
#[derive(Clone, Copy, Debug)]
pub struct Coefficients<'a> {
    /// Factors of x.
    pub scale: &'a [f32],
    /// Added to x scale.
    pub shift: &'a [f32],
    /// The mean of x, which is subtracted to centre it.
    pub mean: &'a [f32],
    /// 1 / sqrt(variance + epsilon).
    pub inv_std: &'a [f32],
}

impl<'a> Coefficients<'a> {
    /// The four parts of (4, C) values.
    pub fn of(values: &'a [f32]) -> Coefficients<'a> {
        let [scale, shift, mean, inv_std] = [0, 1, 2, 3].map(|i| &values[part(values, i)]);
        Coefficients { scale, shift, mean, inv_std }
    }
}

/// A BatchNorm's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConstants {
    /// Added to the variance.
    pub epsilon: f32,
    /// The weight of a running average's old value at each step.
    pub decay: f32,
}

/// Old and new values of a BatchNorm's running averages, which move towards the batch's statistics, (C) each.
#[derive(Debug)]
pub struct Averages<'a> {
    /// Running mean and variance before the step.
    pub old: [&'a [f32]; 2],
    /// Those after the step. The variance moves towards the unbiased one of the batch.
    pub new: [&'a mut [f32]; 2],
}

/// The coefficients (4, C) of a batch, from `sums` = [sum of x; C, sum of x^2; C] over `count` values per channel.
pub fn batch_coefficients(
    constants: NormConstants,
    (sums, count): (&[f64], f64),
    gamma: &[f32],
    beta: Option<&[f32]>,
    averages: Averages,
    coefficients: &mut [f32],
) {
    let channels = gamma.len();
    assert!(sums.len() == 2 * channels && coefficients.len() == 4 * channels);
    let (keep, epsilon) = (f64::from(constants.decay), f64::from(constants.epsilon));
    let unbias = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
    let Averages { old, new } = averages;
    let towards = |old: f32, new: f64| (keep * f64::from(old) + (1.0 - keep) * new) as f32;
    for i in 0..channels {
        let mean = sums[i] / count;
        let variance = sums[channels + i] / count - mean * mean;
        // Rounding may leave a variance slightly below 0. The comparison keeps a NaN.
        let variance = if variance < 0.0 { 0.0 } else { variance };
        new[0][i] = towards(old[0][i], mean);
        new[1][i] = towards(old[1][i], variance * unbias);
        let inv_std = (1.0 / (variance + epsilon).sqrt()) as f32;
        put(coefficients, i, gamma[i], beta.map(|beta| beta[i]), mean as f32, inv_std);
    }
}

/// The coefficients (4, C) from running averages, which count as constants.
pub fn frozen_coefficients(
    epsilon: f32,
    gamma: &[f32],
    beta: Option<&[f32]>,
    [mean, variance]: [&[f32]; 2],
    coefficients: &mut [f32],
) {
    assert_eq!(coefficients.len(), 4 * gamma.len());
    for (i, &gamma) in gamma.iter().enumerate() {
        let inv_std = 1.0 / (variance[i] + epsilon).sqrt();
        put(coefficients, i, gamma, beta.map(|beta| beta[i]), mean[i], inv_std);
    }
}

fn put(coefficients: &mut [f32], i: usize, gamma: f32, beta: Option<f32>, mean: f32, inv_std: f32) {
    let scale = gamma * inv_std;
    let shift = -scale * mean + beta.unwrap_or(0.0);
    let channels = coefficients.len() / 4;
    for (part, value) in [scale, shift, mean, inv_std].into_iter().enumerate() {
        coefficients[part * channels + i] = value;
    }
}

/// The gradients of gamma and beta from the backward pass's sums over this worker's values.
pub fn parameter_gradients(sums: &[f64], coefficients: &[f32], dgamma: &mut [f32], dbeta: &mut [f32]) {
    let channels = dgamma.len();
    assert!(sums.len() == 2 * channels && dbeta.len() == channels);
    let inv_std = Coefficients::of(coefficients).inv_std;
    for i in 0..channels {
        dgamma[i] = (sums[channels + i] * f64::from(inv_std[i])) as f32;
        dbeta[i] = sums[i] as f32;
    }
}

/// [a; C, b; C, c; C] of dx = g a + x b + c, from the backward sums over all workers' `count` values per channel:
/// dx = gamma / deviation (g - sum g / n - (x - mean) / variance sum g (x - mean) / n). Without a count the
/// statistics were constants.
pub fn backward_coefficients(sums: &[f64], count: Option<f64>, coefficients: &[f32], to: &mut [f32]) {
    let Coefficients { scale, mean, inv_std, .. } = Coefficients::of(coefficients);
    let channels = scale.len();
    assert!(sums.len() == 2 * channels && to.len() == 3 * channels);
    for i in 0..channels {
        to[i] = scale[i];
        let (scale, inv_std) = (f64::from(scale[i]), f64::from(inv_std[i]));
        let (slope, constant) = count.map_or((0.0, 0.0), |count| {
            let slope = -scale * inv_std * inv_std * sums[channels + i] / count;
            (slope, -scale * sums[i] / count - slope * f64::from(mean[i]))
        });
        to[channels + i] = slope as f32;
        to[2 * channels + i] = constant as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSTANTS: NormConstants = NormConstants { epsilon: 1e-5, decay: 0.75 };

    /// The coefficients of a channel with gamma 2 and beta 3, and its new averages, both 8 before.
    fn of(sums: [f64; 2], count: f64) -> ([f32; 4], [f32; 2]) {
        let (mut coefficients, [mut mean, mut variance]) = ([0.0; 4], [[0.0]; 2]);
        let averages = Averages { old: [&[8.0]; 2], new: [&mut mean, &mut variance] };
        batch_coefficients(CONSTANTS, (&sums, count), &[2.0], Some(&[3.0]), averages, &mut coefficients);
        (coefficients, [mean[0], variance[0]])
    }

    #[test]
    fn a_constant_channel_has_no_variance_however_its_squares_are_rounded() {
        let inv_std = (1.0 / f64::from(CONSTANTS.epsilon).sqrt()) as f32;
        let scale = 2.0 * inv_std;
        let want = ([scale, 3.0 - scale * 1000.0, 1000.0, inv_std], [256.0, 6.0]);
        // f32 loses up to 0.03 of a square of 10^6.
        for lost in [0.0, 0.03, 0.5] {
            assert_eq!(of([4e3, 4.0 * (1e6 - lost)], 4.0), want, "{lost}");
        }
        let (coefficients, averages) = of([f64::NAN, 1.0], 4.0);
        assert!(coefficients[0].is_nan() && averages.iter().all(|average| average.is_nan()));
    }

    #[test]
    fn of_one_value_the_variance_is_none() {
        assert_eq!(of([1000.0, 1e6], 1.0), of([4e3, 4e6], 4.0));
        // The unbiased variance of two values is 1 instead of 1/2.
        let (_, averages) = of([1.0, 1.0], 2.0);
        assert_eq!(averages, [6.125, 6.125]);
    }
}
