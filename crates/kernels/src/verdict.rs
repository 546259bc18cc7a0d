//! What is known of training steps so far: [`VALUES`] numbers, to which each step is added where it was computed.

/// The loss of the last step, or of the first that was not sound.
pub const LOSS: usize = 0;
/// The contrastive accuracy of that step.
pub const ACCURACY: usize = 1;
/// The entropy of that step.
pub const ENTROPY: usize = 2;
/// |g| of the last step that was not skipped.
pub const NORM: usize = 3;
/// 1 where all steps were sound, else 0.
pub const SOUND: usize = 4;
/// Sound steps, skipped ones among them.
pub const STEPS: usize = 5;
/// The sum of their losses.
pub const LOSS_SUM: usize = 6;
/// The sum of their contrastive accuracies.
pub const ACCURACY_SUM: usize = 7;
/// 1 where the last step is taken, else 0.
pub const TAKEN: usize = 8;
/// Steps that were skipped.
pub const SKIPPED: usize = 9;
/// How many numbers there are.
pub const VALUES: usize = 10;

/// Adds a step, whose loss has `sums` [loss, hits, entropy] over `views` anchors, and whose gradients have the sum
/// of squares `squares`.
///
/// A step whose loss or gradient is not finite is not sound; it stays, and after it none is taken and nothing else
/// changes any more. `scale` is what the gradients were multiplied by and what undoes it. Where it is above 1 and
/// the gradients alone are not finite, the step is skipped: it is sound, but not taken, and leaves |g| as it was.
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
