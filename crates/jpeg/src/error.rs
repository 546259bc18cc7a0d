//! The error of decoding a file.

/// Why a file was not decoded, or not to its end. This does not mean that the file is broken: another decoder may
/// read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This decoder does not support the file and leaves it to others. No pixel was written.
    #[error("{0}: left to another decoder")]
    Declined(&'static str),
    /// The coded data are damaged. The region's rows above `rows` were written, as they would be for an intact file.
    #[error("{reason} (rows from {rows} on are missing)")]
    Damaged {
        /// What is wrong.
        reason: &'static str,
        /// The first row that was not written.
        rows: u32,
    },
    /// The coded data end before the last needed row is complete. Rows were written as for [`Error::Damaged`].
    #[error("the coded data end early (rows from {rows} on are missing)")]
    EndsEarly {
        /// The first row that was not written.
        rows: u32,
    },
    /// The length of the pixel buffer does not match the image.
    #[error("{got} bytes for pixels: the image needs {expected}")]
    Buffer {
        /// 3 x width x height.
        expected: usize,
        /// The length of the buffer.
        got: usize,
    },
}
