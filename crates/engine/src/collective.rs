//! The exchange between workers, as the operators see it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::{DType, EngineError, Result, Tensor};

/// Exchange between the workers of one training run.
///
/// Every worker calls the same functions in the same order with the same number of values. All get the same sums,
/// bit for bit, and the same again next time: between CPUs, sums are taken in the order of ranks.
pub trait Collective: Send + Sync {
    /// This worker's number, from 0.
    fn rank(&self) -> usize;

    /// How many workers there are.
    fn size(&self) -> usize;

    /// Returns what every worker brought, by rank. Lengths may differ.
    ///
    /// # Errors
    /// [`EngineError::Collective`], here and below: a worker has gone, or sent something unexpected.
    fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Replaces `values` by their sum over workers.
    ///
    /// # Errors
    /// Those of [`Collective::exchange`].
    fn all_reduce_sum(&self, values: &mut [f64]) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let all = self.exchange(bytemuck::cast_slice(values))?;
        values.fill(0.0);
        for (rank, own) in all.iter().enumerate() {
            let own = values_of::<f64>(rank, own, values.len())?;
            values.iter_mut().zip(own).for_each(|(sum, value)| *sum += value);
        }
        Ok(())
    }

    /// [`Collective::all_reduce_sum`] for f32. Sums are taken in f64 and rounded once.
    ///
    /// # Errors
    /// Those of [`Collective::exchange`].
    fn all_reduce_sum_f32(&self, values: &mut [f32]) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let mut sums: Vec<f64> = values.iter().map(|&value| value.into()).collect();
        self.all_reduce_sum(&mut sums)?;
        values.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum as f32);
        Ok(())
    }

    /// Fills `all` with every worker's `own`, by rank. `all` is `size()` times as long as `own`.
    ///
    /// # Errors
    /// Those of [`Collective::exchange`].
    fn all_gather(&self, own: &[f32], all: &mut [f32]) -> Result<()> {
        if self.size() == 1 {
            all.copy_from_slice(own);
            return Ok(());
        }
        let brought = self.exchange(bytemuck::cast_slice(own))?;
        for (rank, (place, brought)) in all.chunks_exact_mut(own.len().max(1)).zip(&brought).enumerate() {
            let values = values_of::<f32>(rank, brought, place.len())?;
            place.iter_mut().zip(values).for_each(|(place, value)| *place = value);
        }
        Ok(())
    }

    /// Replaces the values of each tensor, f32 or f64, by their sum over workers.
    ///
    /// # Errors
    /// Those of [`Collective::exchange`], and tensors on a device that this collective does not reach: for GPUs use
    /// [`between_gpus`](crate::between_gpus).
    fn all_reduce_tensors(&self, list: &mut dyn Iterator<Item = &mut Tensor>) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        for tensor in list {
            match tensor.dtype() {
                DType::F64 => self.all_reduce_sum(tensor.values_mut()?)?,
                _ => self.all_reduce_sum_f32(tensor.as_mut_slice()?)?,
            }
        }
        Ok(())
    }

    /// Fills `all` with every worker's `own`, f32, by rank.
    ///
    /// # Errors
    /// Those of [`Collective::all_reduce_tensors`].
    fn all_gather_tensor(&self, own: &Tensor, all: &mut Tensor) -> Result<()> {
        self.all_gather(own.as_slice()?, all.as_mut_slice()?)
    }

    /// Checks that all exchanges so far succeeded. Exchanges on GPUs are asynchronous and have no other way to report
    /// that a worker has gone: call this before using their results.
    ///
    /// # Errors
    /// Those of [`Collective::exchange`].
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// A flag, if there is one, that becomes true once another worker is found to have gone, even while no exchange
    /// waits for it.
    fn gone(&self) -> Option<Arc<AtomicBool>> {
        None
    }

    /// Tells the other workers why this one stops, so that they can report it.
    fn leave(&self, _why: &str) {}
}

/// The `count` values that worker `rank` sent.
fn values_of<T: bytemuck::AnyBitPattern>(
    rank: usize,
    bytes: &[u8],
    count: usize,
) -> Result<impl Iterator<Item = T>> {
    if bytes.len() != count * size_of::<T>() {
        return Err(EngineError::mismatch(rank, bytes.len() as u64, count * size_of::<T>()));
    }
    Ok(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned))
}

/// A single worker, with nothing to exchange.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleProcess;

impl Collective for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own.to_vec()])
    }
}

/// Workers that are threads of one process.
#[derive(Debug)]
pub struct ThreadGroup {
    rank: usize,
    shared: Arc<Meeting>,
}

#[derive(Debug)]
struct Meeting {
    size: usize,
    state: Mutex<MeetingState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct MeetingState {
    /// What each worker brought to the current exchange.
    brought: Vec<Option<Vec<u8>>>,
    /// All contributions to the exchange that just ended, until every worker has taken them.
    result: Option<Arc<Vec<Vec<u8>>>>,
    taken: usize,
    left: bool,
}

impl ThreadGroup {
    /// Makes `size` connected workers, one for each thread.
    pub fn new(size: usize) -> Vec<ThreadGroup> {
        let state = MeetingState { brought: vec![None; size], ..MeetingState::default() };
        let shared = Arc::new(Meeting { size, state: Mutex::new(state), changed: Condvar::new() });
        (0..size).map(|rank| ThreadGroup { rank, shared: shared.clone() }).collect()
    }
}

impl Drop for ThreadGroup {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).left = true;
        self.shared.changed.notify_all();
    }
}

impl Collective for ThreadGroup {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    /// Contributes `own` and waits until every worker has contributed.
    fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let wait = |state| self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        let gone = || EngineError::Collective("another worker has stopped".into());
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Every worker must have taken the result of the previous exchange.
        while state.result.is_some() {
            if state.left {
                return Err(gone());
            }
            state = wait(state);
        }
        state.brought[self.rank] = Some(own.to_vec());
        if state.brought.iter().all(Option::is_some) {
            let all = state.brought.iter_mut().filter_map(Option::take).collect();
            state.result = Some(Arc::new(all));
            state.taken = 0;
            self.shared.changed.notify_all();
        }
        while state.result.is_none() {
            if state.left {
                return Err(gone());
            }
            state = wait(state);
        }
        let result = state.result.clone().ok_or_else(gone)?;
        state.taken += 1;
        if state.taken == self.shared.size {
            state.result = None;
            self.shared.changed.notify_all();
        }
        Ok(Arc::unwrap_or_clone(result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_exchange_in_rank_order_again_and_again() {
        let workers = ThreadGroup::new(3);
        std::thread::scope(|scope| {
            for worker in workers {
                scope.spawn(move || {
                    for round in 0..200 {
                        let mut sums = [worker.rank() as f64, round as f64];
                        worker.all_reduce_sum(&mut sums).unwrap();
                        assert_eq!(sums, [3.0, 3.0 * round as f64]);
                        let mut sums = [0.5, worker.rank() as f32];
                        worker.all_reduce_sum_f32(&mut sums).unwrap();
                        assert_eq!(sums, [1.5, 3.0]);
                        let mut all = [0.0; 3];
                        worker.all_gather(&[(worker.rank() * 10) as f32], &mut all).unwrap();
                        assert_eq!(all, [0.0, 10.0, 20.0]);
                        let words = worker.exchange(&b"words"[..worker.rank()]).unwrap();
                        assert_eq!(words, [&b""[..], b"w", b"wo"]);
                    }
                });
            }
        });
    }

    #[test]
    fn one_worker_has_its_own_alone() {
        let (mut sums, mut all) = ([1.5, 2.5], [0.0; 2]);
        SingleProcess.all_reduce_sum(&mut sums).unwrap();
        SingleProcess.all_gather(&[3.0, 4.0], &mut all).unwrap();
        assert_eq!((sums, all), ([1.5, 2.5], [3.0, 4.0]));
    }

    #[test]
    fn a_worker_that_stops_is_noticed() {
        let mut workers = ThreadGroup::new(2);
        drop(workers.pop());
        assert!(workers[0].all_reduce_sum(&mut [1.0]).is_err());
    }

    #[test]
    fn a_worker_that_does_something_else_is_noticed() {
        let mut workers = ThreadGroup::new(2);
        let other = workers.pop().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || other.all_reduce_sum(&mut [1.0, 2.0]));
            let error = workers[0].all_reduce_sum(&mut [1.0]).unwrap_err();
            assert!(error.to_string().contains("worker 1 sent 16 bytes where 8 were expected"), "{error}");
        });
    }
}
