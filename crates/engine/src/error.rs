//! What can go wrong in the engine.

/// An error of the engine: a misuse found before any kernel ran, or a device that cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// An operand has another shape than the operator takes.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operator.
        op: &'static str,
        /// What it takes.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// A value outside of what the operator is defined for.
    #[error("{op}: {what}")]
    Value {
        /// The operator.
        op: &'static str,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// Two parameters of one name.
    #[error("there are two parameters named {0:?}: every parameter needs a name of its own")]
    DuplicateParameter(String),
    /// The device cannot be had.
    #[error("{0}")]
    Device(String),
    /// Workers could not exchange data.
    #[error("exchange between workers failed: {0}")]
    Collective(String),
}

impl EngineError {
    /// That of a worker that brings other than what is due.
    pub fn mismatch(rank: usize, brought: u64, due: usize) -> EngineError {
        EngineError::Collective(format!(
            "worker {rank} brought {brought} bytes where {due} are due: it does not compute the same step"
        ))
    }

    pub(crate) fn shape(
        op: &'static str,
        expected: impl std::fmt::Display,
        got: impl std::fmt::Debug,
    ) -> EngineError {
        EngineError::Shape { op, expected: expected.to_string(), got: format!("{got:?}") }
    }
}

#[cfg(feature = "cuda")]
impl From<simclr_cuda::CudaError> for EngineError {
    fn from(error: simclr_cuda::CudaError) -> EngineError {
        EngineError::Device(error.to_string())
    }
}
