//! Checks of settings, each message naming the key, its value and what would be right.

use crate::AugmentError;

/// Refuses a value that `accept` does not.
pub(crate) fn value(
    key: &str,
    value: f32,
    accept: impl Fn(f32) -> bool,
    expected: &'static str,
) -> Result<(), AugmentError> {
    // Written so that NaN, which no comparison accepts, is refused.
    if accept(value) {
        return Ok(());
    }
    Err(AugmentError::OutOfRange { key: key.to_owned(), value: value.to_string(), expected })
}

/// Refuses what is no probability.
pub(crate) fn probability(key: &str, p: f32) -> Result<(), AugmentError> {
    value(key, p, |v| (0.0..=1.0).contains(&v), "a probability from 0 to 1")
}

/// Refuses a range of which `accept` does not take both ends, or that is the wrong way round.
pub(crate) fn range(
    key: &str,
    range: [f32; 2],
    accept: impl Fn(f32) -> bool,
    expected: &'static str,
) -> Result<(), AugmentError> {
    if accept(range[0]) && accept(range[1]) && range[0] <= range[1] {
        return Ok(());
    }
    Err(AugmentError::OutOfRange {
        key: key.to_owned(),
        value: format!("[{}, {}]", range[0], range[1]),
        expected,
    })
}
