//! Timing work that the GPU repeats.

use std::time::{Duration, Instant};

use super::Device;
use crate::{CudaError, Result};

/// The number of rounds, of which the fastest counts, and the duration of each to aim for.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(2);
/// The most runs in a round.
const MAX_RUNS_PER_ROUND: u32 = 16;

/// A run of this many seconds needs no repetition to be timed well.
const LONG: f64 = 0.02;
/// One-time work of a first run, such as loading a kernel's code, takes less than this, in seconds.
const LOADING: f64 = 0.2;

/// Measures the seconds that `run` takes. It is not repeated once it is known to take more than twice as long as
/// `best`, so a `run` that makes choices of its own when it first runs must have run before.
pub(super) fn seconds(device: &Device, best: f64, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let first = round(device, 1, run)?;
    if first > LOADING + 10.0 * best {
        return Ok(first);
    }
    let once = round(device, 1, run)?;
    // Slow runs are known well enough by now.
    if once > 2.0 * best || once > LONG {
        return Ok(once.min(first));
    }
    let count =
        (ROUND.as_secs_f64() / once.max(1e-6)).ceil().clamp(1.0, f64::from(MAX_RUNS_PER_ROUND)) as u32;
    (0..ROUNDS).try_fold(once, |fastest, _| Ok(fastest.min(round(device, count, run)?)))
}

/// Returns the first error of a search so far, which tells best what is wrong. It is returned as an error, to end the
/// search, if the GPU no longer works: everything else would fail as well.
pub(super) fn survived(device: &Device, first: Option<CudaError>, error: CudaError) -> Result<CudaError> {
    let first = first.unwrap_or(error);
    match device.synchronize() {
        Ok(()) => Ok(first),
        Err(_) => Err(first),
    }
}

fn round(device: &Device, count: u32, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..count {
        run()?;
    }
    device.synchronize()?;
    Ok(start.elapsed().as_secs_f64() / f64::from(count))
}
