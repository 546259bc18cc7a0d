//! Whole steps as CUDA graphs: captured once, replayed with one call.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use cudarc::driver::CudaGraph;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};

use super::pool::{Hold, Pool};
use super::{CAPTURES, Device, failed, lock};
use crate::{CudaError, Result};

/// A captured step. It reads and writes the memory of the buffers that the step used when it was captured, and has
/// intermediate memory of its own. Neither is reused for anything else while the graph lives: values that a replay
/// writes to a buffer that was dropped meanwhile are lost, but do no harm.
pub struct Graph {
    // Fields are dropped in this order: the memory may be reused only once the graph is gone.
    graph: CudaGraph,
    pool: Arc<Pool>,
    _buffers: Hold,
    device: Device,
}

// SAFETY: the driver's handles may be used by any thread, one at a time: a graph is not `Sync`.
unsafe impl Send for Graph {}

impl Device {
    /// Runs `step`, then captures it. From the second time on, a step is [`Graph::replay`]. The buffers of its inputs
    /// and results must exist before, and no buffer that it makes may outlive it.
    ///
    /// `step` is called twice: first for a real run, in which kernels are compiled, algorithms chosen and intermediate
    /// memory allocated, then to be captured, which runs nothing on the GPU.
    ///
    /// # Errors
    /// Any error of `step`; `Call` where it does something that cannot be captured, such as a copy to the host.
    pub fn capture(&self, mut step: impl FnMut() -> Result<()>) -> Result<Graph> {
        self.refuse_in_capture("a capture")?;
        let own = Arc::new(self.pool().another()?);
        let outer = Swapped::with(self, &own);
        // Every buffer that the step uses existed before it or comes from its own pool. Hold even those of the former
        // that it drops as it runs.
        let buffers = outer.pool.hold();
        let result = self.capture_with(&own, &mut step);
        drop(outer);
        let graph = result?;
        Ok(Graph { graph, pool: own, _buffers: buffers, device: self.clone() })
    }

    fn capture_with(&self, pool: &Pool, step: &mut dyn FnMut() -> Result<()>) -> Result<CudaGraph> {
        let capturing = failed("capturing a step");
        step()?;
        self.synchronize()?;
        if pool.usage().live > 0 {
            let reason = "a buffer that the step made outlives it".to_owned();
            return Err(CudaError::Call { what: "capturing a step", reason });
        }
        let held = pool.usage().held;
        let _capturing = CAPTURES.read().unwrap_or_else(PoisonError::into_inner);
        let capture = Capture::begin(self).map_err(&capturing)?;
        let stepped = step();
        // The stream must end its capture even if the step failed.
        let graph = capture.end();
        stepped?;
        let graph = graph.map_err(&capturing)?.ok_or_else(|| CudaError::Call {
            what: "capturing a step",
            reason: "the step started nothing".to_owned(),
        })?;
        if pool.usage().live > 0 || pool.usage().held != held {
            let reason = "the step took other memory than the first time".to_owned();
            return Err(CudaError::Call { what: "capturing a step", reason });
        }
        Ok(graph)
    }
}

/// Makes buffers come from another pool until it is dropped, which restores the former one, also after a panic.
struct Swapped<'d> {
    device: &'d Device,
    /// The former one.
    pool: Arc<Pool>,
}

impl<'d> Swapped<'d> {
    fn with(device: &'d Device, other: &Arc<Pool>) -> Swapped<'d> {
        let pool = std::mem::replace(&mut *lock(&device.shared.pool), other.clone());
        Swapped { device, pool }
    }
}

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        *lock(&self.device.shared.pool) = self.pool.clone();
    }
}

/// A capture that has begun. It ends at the latest when this is dropped: if a step panics.
struct Capture<'d> {
    device: &'d Device,
    ended: bool,
}

impl<'d> Capture<'d> {
    fn begin(device: &'d Device) -> std::result::Result<Capture<'d>, DriverError> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        device.shared.stream.begin_capture(mode)?;
        device.shared.capturing.store(true, Ordering::Relaxed);
        Ok(Capture { device, ended: false })
    }

    fn end(mut self) -> std::result::Result<Option<CudaGraph>, DriverError> {
        self.stop()
    }

    fn stop(&mut self) -> std::result::Result<Option<CudaGraph>, DriverError> {
        self.ended = true;
        self.device.shared.capturing.store(false, Ordering::Relaxed);
        self.device.shared.stream.end_capture(CUgraphInstantiate_flags(0))
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // What was captured is of no use.
            let _ = self.stop();
        }
    }
}

impl Graph {
    /// Starts the step, in stream order: no other work uses its buffers at the same time, and its memory exists even if
    /// the buffers were dropped.
    ///
    /// # Errors
    /// `Call` where the driver fails.
    pub fn replay(&self) -> Result<()> {
        self.device.bind()?;
        self.graph.launch().map_err(failed("replaying a step"))
    }

    /// Bytes of intermediate memory that the graph holds.
    pub fn held(&self) -> usize {
        self.pool.usage().held
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Graph({} bytes on {:?})", self.held(), self.device)
    }
}
