//! Errors in the input of a figure.

/// Why a figure cannot be computed from what was given.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Two inputs do not fit together.
    #[error("{what}: expected {expected}, got {got}")]
    Shape {
        /// The input and the quantity that does not fit.
        what: &'static str,
        /// What would fit.
        expected: usize,
        /// What was given.
        got: usize,
    },
    /// There is too little to compute from.
    #[error("{what}: at least {least} needed, got {got}")]
    TooFew {
        /// What there is too little of.
        what: &'static str,
        /// The smallest number that makes sense.
        least: usize,
        /// What was given.
        got: usize,
    },
    /// A feature is NaN or infinite.
    #[error("features: row {row} holds a value that is not finite")]
    NotFinite {
        /// The first such row.
        row: usize,
    },
    /// A label that is not one of the classes.
    #[error("labels: row {row} is of class {label}, but there are {classes} classes (0 to {})", .classes.saturating_sub(1))]
    Label {
        /// The first such row.
        row: usize,
        /// Its label.
        label: u32,
        /// The number of classes.
        classes: usize,
    },
    /// A setting outside of its range.
    #[error("{name} is {got}, must be {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        got: f64,
        /// The range in words.
        expected: &'static str,
    },
}

/// Checks that there is one label per row and that each is below `classes`.
///
/// # Errors
/// [`MetricsError::Shape`] or [`MetricsError::Label`].
pub fn check_labels(rows: usize, labels: &[u32], classes: usize) -> Result<(), MetricsError> {
    if labels.len() != rows {
        return Err(MetricsError::Shape { what: "labels, one per row", expected: rows, got: labels.len() });
    }
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(row) => Err(MetricsError::Label { row, label: labels[row], classes }),
        None => Ok(()),
    }
}

/// Checks that a temperature is a positive finite number.
pub(crate) fn check_temperature(temperature: f64) -> Result<(), MetricsError> {
    if temperature > 0.0 && temperature.is_finite() {
        Ok(())
    } else {
        Err(MetricsError::Setting { name: "temperature", got: temperature, expected: "a number above 0" })
    }
}
