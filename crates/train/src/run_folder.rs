//! The folder of a run.

/// The file that makes a folder a run.
pub(crate) const MARKER: &str = "run.toml";
