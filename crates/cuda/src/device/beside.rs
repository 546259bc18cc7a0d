//! A second stream, for work whose result nobody needs soon: it fills what the first leaves idle.
//!
//! One piece of work at a time is under way there, from the point of the first stream at which it is asked for. The
//! first stream waits for it before the next one begins, and before anything touches what it reads or writes in a
//! way that must come after it: buffers see to that as they are lent. What is given back to the pool meanwhile is
//! not used again before.

use std::ops::Range as Span;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cudarc::driver::{CudaContext, CudaStream};

use super::pool::Pool;
use super::staging::Event;
use super::{Device, failed, lock};
use crate::{Result, Slice, SliceMut};

/// The most bytes that work beside the first stream may read: so much memory is given back late.
const MOST: u64 = 2 << 30;

/// Addresses that a piece of work reads or writes.
pub(super) type Bytes = Span<u64>;

/// The addresses of values that are lent.
pub(super) fn read_by<T>(slice: &Slice<T>) -> Bytes {
    slice.address()..slice.address() + (slice.len() * size_of::<T>()) as u64
}

/// The same of values that are written.
pub(super) fn written_by<T>(slice: &SliceMut<T>) -> Bytes {
    slice.address()..slice.address() + (slice.len() * size_of::<T>()) as u64
}

fn meet(a: &Bytes, b: &Bytes) -> bool {
    a.start < b.end && b.start < a.end
}

/// The second stream, and what is under way there.
pub(super) struct Beside {
    context: Arc<CudaContext>,
    first: Arc<CudaStream>,
    stream: Arc<CudaStream>,
    /// Whether anything is under way, for those who ask at every turn.
    busy: AtomicBool,
    state: Mutex<State>,
}

struct State {
    asked: Event,
    done: Event,
    pending: Option<Pending>,
}

/// What is under way.
struct Pending {
    /// Keeps what is given back until then.
    pool: Arc<Pool>,
    reads: [Bytes; 2],
    writes: Bytes,
}

impl Beside {
    pub fn new(context: &Arc<CudaContext>, first: &Arc<CudaStream>) -> Result<Beside> {
        Ok(Beside {
            context: context.clone(),
            first: first.clone(),
            stream: context.new_stream().map_err(failed("making a stream"))?,
            busy: AtomicBool::new(false),
            state: Mutex::new(State {
                asked: Event::new(context)?,
                done: Event::new(context)?,
                pending: None,
            }),
        })
    }

    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// What is started on the first stream from now on waits for what is under way, and memory that was given back
    /// meanwhile is free.
    pub fn join(&self) -> Result<()> {
        if !self.is_busy() {
            return Ok(());
        }
        self.join_locked(&mut lock(&self.state))
    }

    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    fn join_locked(&self, state: &mut State) -> Result<()> {
        if state.pending.is_none() {
            return Ok(());
        }
        self.context.bind_to_thread().map_err(failed("binding a thread to the GPU"))?;
        if let Err(error) = state.done.hold(self.first.cu_stream()) {
            // Of a capture that failed nobody can wait for an event any more. Nothing of it runs, either.
            self.stream.synchronize().map_err(|_| error)?;
        }
        if let Some(pending) = state.pending.take() {
            pending.pool.release();
        }
        self.busy.store(false, Ordering::Release);
        Ok(())
    }

    /// Before values are read, or written, by what is started on the first stream.
    pub fn before_use(&self, values: Bytes, written: bool) {
        if !self.is_busy() {
            return;
        }
        let mut state = lock(&self.state);
        let conflict = state.pending.as_ref().is_some_and(|pending| {
            meet(&pending.writes, &values)
                || (written && pending.reads.iter().any(|read| meet(read, &values)))
        });
        if conflict {
            // A driver that refuses this refuses whatever would use the values.
            let _ = self.join_locked(&mut state);
        }
    }
}

impl Device {
    /// The same device on its second stream.
    fn second(&self) -> Device {
        Device { shared: self.shared.clone(), second: true }
    }

    /// Does work beside what is started from now on, if it is not large; it reads and writes nothing but these
    /// addresses, and memory that it takes for itself.
    pub(super) fn beside(
        &self,
        reads: [Bytes; 2],
        writes: Bytes,
        work: impl FnOnce(&Device) -> Result<()>,
    ) -> Result<()> {
        let size: u64 = reads.iter().map(|read| read.end - read.start).sum();
        if self.second || size > MOST {
            return work(self);
        }
        let beside = &self.shared.beside;
        beside.join()?;
        self.bind()?;
        let mut state = lock(&beside.state);
        state.asked.record(beside.first.cu_stream())?;
        state.asked.hold(beside.stream.cu_stream())?;
        let pool = self.pool();
        pool.withhold();
        let result = work(&self.second());
        // Also where it failed: part of it may have been started.
        let recorded = self.bind().and_then(|()| state.done.record(beside.stream.cu_stream()));
        state.pending = Some(Pending { pool, reads, writes });
        beside.busy.store(true, Ordering::Release);
        result.and(recorded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_meet_where_they_share_an_address() {
        assert!(meet(&(0..10), &(9..12)) && meet(&(9..12), &(0..10)) && meet(&(3..4), &(0..10)));
        assert!(!meet(&(0..10), &(10..12)) && !meet(&(10..12), &(0..10)));
    }
}
