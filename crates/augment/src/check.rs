//! Checks of settings, each message naming the key, its value and what would be right.

use crate::AugmentError;

/// Returns an error for a value that `accept` rejects.
pub(crate) fn value(
    key: &str,
    value: f32,
    accept: impl Fn(f32) -> bool,
    expected: &'static str,
) -> Result<(), AugmentError> {
    // Written so that NaN, for which every comparison is false, is rejected.
    if accept(value) {
        return Ok(());
    }
    Err(AugmentError::OutOfRange { key: key.to_owned(), value: value.to_string(), expected })
}

/// Returns an error unless `p` is in [0, 1].
pub(crate) fn probability(key: &str, p: f32) -> Result<(), AugmentError> {
    value(key, p, |v| (0.0..=1.0).contains(&v), "a probability from 0 to 1")
}

/// Returns an error unless `accept` takes both ends of the range and the first is at most the second.
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
