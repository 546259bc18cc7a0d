//! A whole step as one thing: captured once, started again with one call.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};

use super::pool::{Hold, Pool};
use super::{CAPTURES, Device, failed, lock};
use crate::{CudaError, Result};

/// A captured step. It reads and writes the memory of the buffers that the step used as it was captured, and has
/// intermediate memory of its own. Nobody else gets either for as long as the graph lives: of a buffer that was
/// dropped meanwhile, what a replay writes is lost.
pub struct Graph {
    // Dropped in this order: the memory is free once the graph is gone.
    graph: CudaGraph,
    pool: Arc<Pool>,
    _buffers: Hold,
    device: Device,
}

// SAFETY: the driver's handles may be used by any thread, one at a time: a graph is not `Sync`.
unsafe impl Send for Graph {}

impl Device {
    /// Runs `step`, then captures it. Its buffers must have been made before, and none that it makes may outlive
    /// it: from the second time on, a step is [`Graph::replay`].
    ///
    /// The first run is a real one, in which kernels are compiled, algorithms chosen and intermediate memory found;
    /// the second starts nothing.
    ///
    /// # Errors
    /// Whatever `step` returns; `Call` where it does something that cannot be captured, such as a copy to the host.
    pub fn capture(&self, mut step: impl FnMut() -> Result<()>) -> Result<Graph> {
        self.refuse_in_capture("a capture")?;
        let own = Arc::new(self.pool().another()?);
        let outer = std::mem::replace(&mut *lock(&self.shared.pool), own.clone());
        // Whatever the step uses was made before it, or is of its own pool: one that it drops as it runs must stay
        // as well.
        let buffers = outer.hold();
        let result = self.capture_with(&own, &mut step);
        *lock(&self.shared.pool) = outer;
        let graph = result?;
        Ok(Graph { graph, pool: own, _buffers: buffers, device: self.clone() })
    }

    fn capture_with(&self, pool: &Pool, step: &mut dyn FnMut() -> Result<()>) -> Result<CudaGraph> {
        let capturing = failed("capturing a step");
        step()?;
        self.synchronize()?;
        if pool.usage().live > 0 {
            let reason = "a buffer that it made outlives it".to_owned();
            return Err(CudaError::Call { what: "capturing a step", reason });
        }
        let held = pool.usage().held;
        let _capturing = CAPTURES.read().unwrap_or_else(PoisonError::into_inner);
        let stream = &self.shared.stream;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(&capturing)?;
        self.shared.capturing.store(true, Ordering::Relaxed);
        let stepped = step();
        self.shared.capturing.store(false, Ordering::Relaxed);
        // Whatever the step says, the stream must leave its capture.
        let graph = stream.end_capture(CUgraphInstantiate_flags(0));
        stepped?;
        let graph = graph.map_err(&capturing)?.ok_or_else(|| CudaError::Call {
            what: "capturing a step",
            reason: "it started nothing".to_owned(),
        })?;
        if pool.usage().live > 0 || pool.usage().held != held {
            let reason = "it took other memory than the first time".to_owned();
            return Err(CudaError::Call { what: "capturing a step", reason });
        }
        Ok(graph)
    }
}

impl Graph {
    /// Starts the step, in the order of all work: nothing else uses its buffers at the same time, and what it uses
    /// is there, whoever still knows of it.
    ///
    /// # Errors
    /// `Call` where the driver refuses.
    pub fn replay(&self) -> Result<()> {
        self.device.bind()?;
        self.graph.launch().map_err(failed("replaying a step"))
    }

    /// Bytes of intermediate memory that it holds.
    pub fn held(&self) -> usize {
        self.pool.usage().held
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Graph({} bytes on {:?})", self.held(), self.device)
    }
}
