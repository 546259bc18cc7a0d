//! The engine's errors.

/// An error of the engine: misuse found before any kernel ran, or a failure of the device or of an exchange.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// An operand does not have the shape that the operator expects.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operator.
        op: &'static str,
        /// What the operator expects.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// A value for which the operator is not defined.
    #[error("{op}: {what}")]
    Value {
        /// The operator.
        op: &'static str,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// Two parameters with the same name.
    #[error("there are two parameters named {0:?}: every parameter needs a name of its own")]
    DuplicateParameter(String),
    /// The device is missing, or has failed.
    #[error("{0}")]
    Device(String),
    /// The device is out of memory.
    #[error("{0}")]
    OutOfMemory(String),
    /// Workers could not exchange data.
    #[error("exchange between workers failed: {0}")]
    Collective(String),
}

impl EngineError {
    /// The error for a worker that sent `brought` bytes where `due` were expected.
    pub fn mismatch(rank: usize, brought: u64, due: usize) -> EngineError {
        EngineError::Collective(format!(
            "worker {rank} sent {brought} bytes where {due} were expected: it does not compute the same step"
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
        EngineError::from(&error)
    }
}

#[cfg(feature = "cuda")]
impl From<&simclr_cuda::CudaError> for EngineError {
    fn from(error: &simclr_cuda::CudaError) -> EngineError {
        match error {
            simclr_cuda::CudaError::OutOfMemory { .. } => EngineError::OutOfMemory(error.to_string()),
            _ => EngineError::Device(error.to_string()),
        }
    }
}
