//! The errors of networks.

/// An error in making or running a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// A setting that no network can have.
    #[error("{what}: {problem}")]
    Spec {
        /// Which setting.
        what: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A stored tensor does not fit the network.
    #[error(
        "tensor {name:?}: the network has {expected:?}, the file {got:?}; is it from another encoder or width?"
    )]
    Mismatch {
        /// The parameter.
        name: String,
        /// Its shape in the network, as PyTorch would write it.
        expected: Vec<usize>,
        /// Its shape in the file.
        got: Vec<usize>,
    },
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] simclr_engine::EngineError),
}
