//! A step that a GPU runs again by itself.

use std::fmt;

use crate::{Device, EngineError, Result};

/// A step that was captured on a GPU: all its kernels are started by one call, and nothing is decided again on the
/// processor.
pub struct Captured {
    #[cfg(feature = "cuda")]
    graph: simclr_cuda::Graph,
}

impl Device {
    /// Runs `step`, then captures it, on a GPU. Every tensor and all pixels that it uses must have been made
    /// before, and stay: of one that was dropped, what the step writes is lost. None that it makes may outlive it.
    /// It may neither read values back nor bring new ones.
    ///
    /// # Errors
    /// Whatever `step` returns, and [`EngineError::Device`] where it cannot be captured, or the device is no GPU.
    pub fn capture<E: From<EngineError> + fmt::Display>(
        &self,
        step: impl FnMut() -> std::result::Result<(), E>,
    ) -> std::result::Result<Captured, E> {
        #[cfg(feature = "cuda")]
        if let crate::memory::Place::Gpu(gpu) = self.place() {
            let (mut step, mut failed) = (step, None);
            let graph = gpu.capture(|| {
                step().map_err(|error| {
                    let reason = error.to_string();
                    failed = Some(error);
                    simclr_cuda::CudaError::Call { what: "a step", reason }
                })
            });
            return match (graph, failed) {
                (_, Some(error)) => Err(error),
                (graph, None) => Ok(Captured { graph: graph.map_err(EngineError::from)? }),
            };
        }
        drop(step);
        Err(EngineError::Device(format!("{self} captures no steps: that takes a GPU")).into())
    }
}

impl Captured {
    /// Bytes that the step's intermediate values take of the GPU's memory, for as long as it lives: beside
    /// [`Device::memory`].
    pub fn held(&self) -> usize {
        #[cfg(feature = "cuda")]
        return self.graph.held();
        #[cfg(not(feature = "cuda"))]
        0
    }

    /// Starts the step once more. Returns before it has ended.
    ///
    /// # Errors
    /// [`EngineError::Device`] where the GPU refuses.
    pub fn replay(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        self.graph.replay()?;
        Ok(())
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "cuda")]
        return write!(f, "Captured({:?})", self.graph);
        #[cfg(not(feature = "cuda"))]
        f.write_str("Captured")
    }
}
