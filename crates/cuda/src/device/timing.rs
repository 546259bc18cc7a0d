//! How long something takes that the GPU does again and again.

use std::time::{Duration, Instant};

use super::Device;
use crate::{CudaError, Result};

/// Rounds, of which the fastest counts, and how long each should be.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(2);
/// The most that is started in a round.
const MOST: u32 = 16;

/// Of one run, in seconds: several tell no more.
const LONG: f64 = 0.02;
/// What is brought once, such as a kernel's code, takes less than this.
const LOADING: f64 = 0.2;

/// Seconds that `run` takes. Once it is known to take more than twice as long as `best`, it is not tried again:
/// what chooses within itself when it runs first must have run before.
pub(super) fn seconds(device: &Device, best: f64, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    let first = round(device, 1, run)?;
    if first > LOADING + 10.0 * best {
        return Ok(first);
    }
    let once = round(device, 1, run)?;
    // What takes long is known well enough by now.
    if once > 2.0 * best || once > LONG {
        return Ok(once.min(first));
    }
    let count = (ROUND.as_secs_f64() / once.max(1e-6)).ceil().clamp(1.0, f64::from(MOST)) as u32;
    (0..ROUNDS).try_fold(once, |fastest, _| Ok(fastest.min(round(device, count, run)?)))
}

/// The first error of a search, which says what is wrong, after another; that error where the GPU does not work any
/// more, since everything else would fail as well.
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
