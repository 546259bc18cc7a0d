//! What can go wrong with a network.

/// An error of a network's making or running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// A size that no network can have.
    #[error("{what}: {problem}")]
    Spec {
        /// Which setting.
        what: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A stored tensor does not fit the network.
    #[error(
        "tensor {name:?}: the network has {expected:?}, the file {got:?}; is it another encoder or width?"
    )]
    Mismatch {
        /// The parameter.
        name: String,
        /// Its shape here, as PyTorch would write it.
        expected: Vec<usize>,
        /// Its shape there.
        got: Vec<usize>,
    },
    /// An error of the engine.
    #[error(transparent)]
    Engine(#[from] simclr_engine::EngineError),
}
