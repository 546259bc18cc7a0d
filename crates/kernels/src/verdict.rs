//! A running summary of training steps: [`VALUES`] numbers, to which each step is added on the device that ran it.

/// The loss of the last step, or of the first unsound one.
pub const LOSS: usize = 0;
/// The contrastive accuracy of that step.
pub const ACCURACY: usize = 1;
/// The entropy of that step.
pub const ENTROPY: usize = 2;
/// |g| of the last step that was not skipped.
pub const NORM: usize = 3;
/// 1 if all steps were sound, else 0.
pub const SOUND: usize = 4;
/// Number of sound steps, including skipped ones.
pub const STEPS: usize = 5;
/// The sum of the sound steps' losses.
pub const LOSS_SUM: usize = 6;
/// The sum of the sound steps' contrastive accuracies.
pub const ACCURACY_SUM: usize = 7;
/// 1 if the last step is to be applied, else 0.
pub const TAKEN: usize = 8;
/// Number of skipped steps.
pub const SKIPPED: usize = 9;
/// The length of a verdict.
pub const VALUES: usize = 10;

/// Adds a step with the `sums` [loss, hits, entropy] over `views` anchors and the sum of squares `squares` of its
/// gradients.
///
/// A step whose loss or gradient is non-finite is unsound: its figures stay, no later step is taken, and nothing
/// else changes. `scale` holds the loss scale and its inverse. If the scale is above 1 and only the gradients are
/// non-finite, the step is skipped: it is sound, but not taken, and leaves |g| unchanged.
pub fn judge(verdict: &mut [f64], sums: &[f64], squares: f64, views: usize, scale: Option<[f32; 2]>) {
    assert!(verdict.len() == VALUES && sums.len() == 3);
    verdict[TAKEN] = 0.0;
    if verdict[SOUND] == 0.0 {
        return;
    }
    let [scale, unscale] = scale.unwrap_or([1.0; 2]);
    let mean = |sum: f64| sum / views as f64;
    let (loss, accuracy, entropy) = (mean(sums[0]), mean(sums[1]), mean(sums[2]));
    let norm = squares.sqrt() * f64::from(unscale);
    (verdict[LOSS], verdict[ACCURACY], verdict[ENTROPY]) = (loss, accuracy, entropy);
    if loss.is_finite() && !norm.is_finite() && scale > 1.0 {
        verdict[SKIPPED] += 1.0;
    } else {
        verdict[NORM] = norm;
        if !(loss.is_finite() && norm.is_finite()) {
            verdict[SOUND] = 0.0;
            return;
        }
        verdict[TAKEN] = 1.0;
    }
    verdict[STEPS] += 1.0;
    verdict[LOSS_SUM] += loss;
    verdict[ACCURACY_SUM] += accuracy;
}
