//! Values with which a network is useless.

/// How the variances of a BatchNorm are called.
const VARIANCE: &str = ".running_var";

/// What a tensor of this name must not hold, if it does: values that are not finite, or variances below 0.
pub(crate) fn flaw(name: &str, values: &[f32]) -> Option<&'static str> {
    if !values.iter().all(|value| value.is_finite()) {
        Some("values that are not finite")
    } else if name.ends_with(VARIANCE) && values.iter().any(|&value| value < 0.0) {
        Some("negative variances")
    } else {
        None
    }
}
