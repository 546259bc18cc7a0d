//! What workers exchange, as the operators see it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::{EngineError, Result};

/// Exchange between the workers of one training run.
///
/// Every worker calls the same functions in the same order with slices of the same length. Sums are taken in the
/// order of ranks, so that all workers get the same bits, and the same bits again next time.
pub trait Collective: Send + Sync {
    /// This worker's number, from 0.
    fn rank(&self) -> usize;
    /// How many workers there are.
    fn size(&self) -> usize;
    /// Replaces `values` by their sum over workers.
    fn all_reduce_sum(&self, values: &mut [f64]) -> Result<()>;
    /// Fills `all` with every worker's `own`, by rank. `all` is `size()` times as long as `own`.
    fn all_gather(&self, own: &[f32], all: &mut [f32]) -> Result<()>;
}

/// One worker: nothing to exchange.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleProcess;

impl Collective for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce_sum(&self, _values: &mut [f64]) -> Result<()> {
        Ok(())
    }

    fn all_gather(&self, own: &[f32], all: &mut [f32]) -> Result<()> {
        all.copy_from_slice(own);
        Ok(())
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
    /// What each worker brought to the present exchange.
    brought: Vec<Option<Vec<f64>>>,
    /// Everybody's contributions of the exchange that just ended, until all have taken them.
    result: Option<Arc<Vec<Vec<f64>>>>,
    taken: usize,
    left: bool,
}

impl ThreadGroup {
    /// Makes `size` connected workers, one for each thread to take.
    pub fn new(size: usize) -> Vec<ThreadGroup> {
        let state = MeetingState { brought: vec![None; size], ..MeetingState::default() };
        let shared = Arc::new(Meeting { size, state: Mutex::new(state), changed: Condvar::new() });
        (0..size).map(|rank| ThreadGroup { rank, shared: shared.clone() }).collect()
    }

    /// Brings `own` and waits until everybody has brought theirs.
    fn exchange(&self, own: Vec<f64>) -> Result<Arc<Vec<Vec<f64>>>> {
        let wait = |state| self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        let gone = || EngineError::Collective("another worker has stopped".into());
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The exchange before must have been taken by all.
        while state.result.is_some() {
            if state.left {
                return Err(gone());
            }
            state = wait(state);
        }
        state.brought[self.rank] = Some(own);
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
        Ok(result)
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

    fn all_reduce_sum(&self, values: &mut [f64]) -> Result<()> {
        let all = self.exchange(values.to_vec())?;
        values.fill(0.0);
        for own in all.iter() {
            values.iter_mut().zip(own).for_each(|(sum, v)| *sum += v);
        }
        Ok(())
    }

    fn all_gather(&self, own: &[f32], all: &mut [f32]) -> Result<()> {
        let brought = self.exchange(own.iter().map(|&v| f64::from(v)).collect())?;
        for (place, value) in all.iter_mut().zip(brought.iter().flatten()) {
            *place = *value as f32;
        }
        Ok(())
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
                        let mut all = [0.0; 3];
                        worker.all_gather(&[(worker.rank() * 10) as f32], &mut all).unwrap();
                        assert_eq!(all, [0.0, 10.0, 20.0]);
                    }
                });
            }
        });
    }

    #[test]
    fn a_worker_that_stops_is_noticed() {
        let mut workers = ThreadGroup::new(2);
        drop(workers.pop());
        assert!(workers[0].all_reduce_sum(&mut [1.0]).is_err());
    }
}
