//! Where a step's time goes: the cost of each kernel's calls, on a device whose kernels are timed.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use simclr_kernels::AvgPoolGeometry;

use crate::watched::Watch;
use crate::{Conv2dGeometry, PoolGeometry, Result};

/// A kernel on operands of one shape.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Work {
    /// The operator: `conv2d`, `batch_norm`, ...
    pub operator: &'static str,
    /// `forward`, `input gradient`, `weight gradient`, ...
    pub pass: &'static str,
    /// What distinguishes calls of one kernel.
    pub shape: Shape,
}

/// The sizes that a kernel's time depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Shape {
    /// A window that moves over images: rows, columns, stride, input side, input and output channels.
    Window {
        /// Rows and columns of the window.
        kernel: [usize; 2],
        /// Pixels between outputs.
        stride: usize,
        /// Rows and columns of the input.
        input: [usize; 2],
        /// Input and output channels.
        channels: [usize; 2],
    },
    /// A product of matrices: input and output values per row.
    Product([usize; 2]),
    /// Rows of this many values.
    Rows(usize),
    /// Any number of values.
    Any,
}

impl Shape {
    pub(crate) fn window(g: &Conv2dGeometry) -> Shape {
        Shape::Window {
            kernel: [g.kernel_height, g.kernel_width],
            stride: g.stride,
            input: [g.in_height, g.in_width],
            channels: [g.in_channels, g.out_channels],
        }
    }

    pub(crate) fn pool(g: &PoolGeometry) -> Shape {
        Shape::Window {
            kernel: [g.side; 2],
            stride: g.stride,
            input: [g.in_height, g.in_width],
            channels: [g.channels; 2],
        }
    }

    pub(crate) fn avg_pool(g: &AvgPoolGeometry) -> Shape {
        Shape::Window {
            kernel: [2, 2],
            stride: g.stride,
            input: [g.height, g.width],
            channels: [g.channels; 2],
        }
    }

    /// The part of the shape that layers of one kind have in common: a window's size and stride.
    pub fn kind(&self) -> String {
        match self {
            Shape::Window { kernel: [rows, columns], stride, .. } => format!("{rows}x{columns} /{stride}"),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Window { input: [height, width], channels: [from, to], .. } => {
                write!(f, "{} {height}x{width}, {from} to {to}", self.kind())
            }
            Shape::Product([from, to]) => write!(f, "{from} to {to}"),
            Shape::Rows(values) => write!(f, "{values}"),
            Shape::Any => Ok(()),
        }
    }
}

/// The total cost of all calls of one [`Work`].
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Cost {
    /// How often it ran.
    pub calls: u64,
    /// How long it took.
    pub time: Duration,
    /// Operations by the definition, a multiplication and an addition being two; 0 where values are only moved.
    pub flops: u64,
    /// Bytes of the tensors read and written, each counted once per call.
    pub bytes: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.calls += other.calls;
        self.time += other.time;
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

/// The figures of a profiled device. Clones share the same figures.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    costs: Arc<Mutex<HashMap<Work, Cost>>>,
    paused: Arc<AtomicBool>,
    /// The GPU to wait for before and after each kernel.
    #[cfg(feature = "cuda")]
    gpu: Option<simclr_cuda::Device>,
}

impl Profile {
    /// Forgets what was measured so far.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Pauses or resumes timing, which on a GPU keeps kernels from following one another without a gap.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn of_gpu(gpu: &simclr_cuda::Device) -> Profile {
        Profile { gpu: Some(gpu.clone()), ..Profile::default() }
    }

    /// On a GPU, waits for the work that was started.
    fn settle(&self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(gpu) = &self.gpu {
            gpu.synchronize()?;
        }
        Ok(())
    }

    /// The costs measured so far, sorted by operator, pass and shape.
    pub fn costs(&self) -> Vec<(Work, Cost)> {
        let mut costs: Vec<_> = self.lock().iter().map(|(work, cost)| (*work, *cost)).collect();
        costs.sort_unstable_by_key(|(work, _)| *work);
        costs
    }

    fn add(&self, work: Work, cost: Cost) {
        *self.lock().entry(work).or_default() += cost;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Work, Cost>> {
        self.costs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Profile {
    fn watch<R: Default>(
        &self,
        work: Work,
        (flops, bytes): (u64, u64),
        kernel: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        if self.paused.load(Ordering::Relaxed) {
            return kernel();
        }
        self.settle()?;
        let start = Instant::now();
        let result = kernel();
        self.settle()?;
        self.add(work, Cost { calls: 1, time: start.elapsed(), flops, bytes });
        result
    }
}
