//! Values that make a network useless.

/// The end of the names of BatchNorm variances.
const VARIANCE: &str = ".running_var";

/// The flaw of a tensor, if it has one: values that are not finite, or variances below 0.
pub(crate) fn flaw(name: &str, values: &[f32]) -> Option<&'static str> {
    if !values.iter().all(|value| value.is_finite()) {
        Some("values that are not finite")
    } else if name.ends_with(VARIANCE) && values.iter().any(|&value| value < 0.0) {
        Some("negative variances")
    } else {
        None
    }
}
