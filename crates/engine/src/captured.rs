//! Steps that are captured on a GPU and replayed.

use std::fmt;

use crate::{Device, EngineError, Result};

/// A step that was captured on a GPU: one call starts all its kernels, without any further decisions on the CPU.
pub struct Captured {
    #[cfg(feature = "cuda")]
    graph: simclr_cuda::Graph,
}

impl Device {
    /// Runs `step` on a GPU, then captures it. All tensors and pixels that it uses must exist before it and stay alive:
    /// what the step writes to a dropped one is lost. Those that it makes must not outlive it. It may neither read
    /// values back to the host nor send new ones.
    ///
    /// # Errors
    /// Whatever `step` returns, and [`EngineError::Device`] if it cannot be captured or the device is not a GPU.
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
        Err(EngineError::Device(format!("{self} cannot capture steps: a GPU is needed")).into())
    }
}

impl Captured {
    /// Bytes of GPU memory that the step's intermediate values take for as long as it lives, on top of
    /// [`Device::memory`].
    pub fn held(&self) -> usize {
        #[cfg(feature = "cuda")]
        return self.graph.held();
        #[cfg(not(feature = "cuda"))]
        0
    }

    /// Starts the step again. Returns before it has ended.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the GPU fails to start it.
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
