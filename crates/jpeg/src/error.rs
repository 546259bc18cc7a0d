//! Why a file was not decoded.

/// Why a file was not decoded, or not to its end. Neither is a verdict that the file is broken: another decoder may
/// read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is of a kind that this decoder leaves to others. No pixel was written.
    #[error("{0}: left to another decoder")]
    Declined(&'static str),
    /// The coded data are damaged. The rows of the region above `rows` were written, the same as if the file were
    /// whole.
    #[error("{reason} (rows from {rows} on)")]
    Damaged {
        /// What is wrong.
        reason: &'static str,
        /// The first row that was not written.
        rows: u32,
    },
    /// The coded data end before the last row that is needed, or before one above it. Rows as above were written.
    #[error("the coded data end early (rows from {rows} on)")]
    EndsEarly {
        /// The first row that was not written.
        rows: u32,
    },
    /// The buffer of pixels does not have the size of the image.
    #[error("{got} bytes for pixels: the image needs {expected}")]
    Buffer {
        /// 3 x width x height.
        expected: usize,
        /// What there was.
        got: usize,
    },
}
