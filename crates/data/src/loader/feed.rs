//! The threads behind a loader and the channels between them.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::assembler::Assembler;
use super::plan::Plan;
use super::raw::RawBatch;
use super::worker::{Run, Shared, work};
use super::{Batch, Position, Reading, Rows, Share, Skipped};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::permutation::{Order, Orders};

/// The approximate size of the views of a run: small images are passed on by the dozen, so that the threads do not
/// spend their time waking each other, and large ones singly.
const RUN_BYTES: usize = 256 << 10;
const LONGEST_RUN: usize = 32;

/// The most threads that are accepted.
const MAX_THREADS: usize = 4096;
/// The number of finished batches that are kept ready.
const AHEAD: usize = 2;

/// The batches that a feed makes.
pub(crate) struct Job {
    pub dataset: Arc<dyn Dataset>,
    pub rows: Rows,
    /// Shuffled orders go on epoch after epoch; others run once, and the last batch may be short.
    pub order: Order,
    pub start: Position,
    pub batch: usize,
    pub share: Share,
    pub reading: Reading,
}

impl Job {
    fn check(&self) -> Result<(), DataError> {
        let threads = self.reading.threads;
        for (key, value) in [("batch", self.batch), ("threads", threads)] {
            if value == 0 {
                return Err(DataError::Setting { key, reason: "is 0; use at least 1".to_owned() });
            }
        }
        if threads > MAX_THREADS {
            let reason = format!("is {threads}; use at most {MAX_THREADS}");
            return Err(DataError::Setting { key: "threads", reason });
        }
        self.rows.check()?;
        let images = self.dataset.len();
        if u32::try_from(images).is_err() {
            return Err(DataError::Setting {
                key: "data",
                reason: format!("{images} images; at most {} are numbered", u32::MAX),
            });
        }
        if self.batch.checked_mul(self.rows.usual_bytes()).is_none() {
            let reason = format!("{} images do not fit into memory; choose fewer", self.batch);
            return Err(DataError::Setting { key: "batch", reason });
        }
        let own = self.share.of_epoch(images);
        if self.order.is_endless() && own < self.batch {
            return Err(DataError::TooFewImages { batch: self.batch, usable: own, broken: 0 });
        }
        Ok(())
    }
}

/// Running threads, and the batches that come out of them.
pub(crate) struct Feed {
    /// `None` only while being dropped.
    ready: Option<Receiver<Result<Batch, DataError>>>,
    /// The next batch, if [`Feed::wait`] has found it, and how long that has waited.
    early: Option<Result<Batch, DataError>>,
    waited: Duration,
    recycled: Sender<Batch>,
    skipped: Arc<Mutex<Vec<Skipped>>>,
    /// `None` when the job was refused.
    shared: Option<Arc<Shared>>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

impl Feed {
    pub fn start(job: Job) -> Self {
        let (ready_in, ready) = bounded(AHEAD);
        let (recycled, recycled_out) = bounded(AHEAD + 2);
        let mut feed = Self {
            ready: Some(ready),
            early: None,
            waited: Duration::ZERO,
            recycled,
            skipped: Arc::default(),
            shared: None,
            threads: Vec::new(),
        };
        if let Err(error) = job.check().and_then(|()| feed.spawn(job, ready_in.clone(), recycled_out)) {
            // The channel is new and empty: it has room.
            let _ = ready_in.try_send(Err(error));
        }
        feed
    }

    fn spawn(
        &mut self,
        job: Job,
        ready: Sender<Result<Batch, DataError>>,
        recycled: Receiver<Batch>,
    ) -> Result<(), DataError> {
        let row = job.rows.branches() * job.rows.view_bytes();
        let images = job.dataset.len();
        let epoch = job.share.of_epoch(images) as u64;
        let end = if job.order.is_endless() { None } else { Some(images as u64) };
        let run = (RUN_BYTES / job.rows.usual_bytes().max(1)).clamp(1, LONGEST_RUN);
        // Each worker has one run in hand and one waiting for it; the assembler may hold some that came early.
        let runs = 2 * job.reading.threads + 2;
        let (empty_in, empty) = bounded(runs);
        let (filled_in, filled) = bounded(runs);
        for _ in 0..runs {
            let blank = Run {
                number: 0,
                places: 0..0,
                outcomes: Vec::with_capacity(run),
                views: vec![0; run * row],
                raw: RawBatch::default(),
            };
            // The channel has room for all of them.
            let _ = empty_in.send(blank);
        }
        let shared = Arc::new(Shared {
            orders: Orders::new(job.order, &*job.dataset),
            dataset: job.dataset,
            rows: job.rows,
            plan: Plan { start: job.start, end, run: run as u64 },
            share: job.share,
            batch: job.batch as u64,
            next_run: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        self.shared = Some(Arc::clone(&shared));
        let assembler = Assembler {
            shared: Arc::clone(&shared),
            batch: job.batch,
            epoch,
            strict: job.reading.strict,
            filled,
            empty: empty_in,
            ready,
            recycled,
            skipped: Arc::clone(&self.skipped),
            open: None,
            begun: 0,
            usable: job.start.0.is_multiple_of(epoch).then_some(0),
            listed: HashSet::new(),
        };
        self.thread("batches".to_owned(), move || assembler.run())?;
        for number in 0..job.reading.threads {
            let (shared, empty, filled) = (Arc::clone(&shared), empty.clone(), filled_in.clone());
            self.thread(format!("views {number}"), move || work(&shared, &empty, &filled))?;
        }
        Ok(())
    }

    fn thread(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), DataError> {
        let thread = thread::Builder::new().name(name).spawn(body);
        let refused = |error| DataError::Setting {
            key: "threads",
            reason: format!("the system does not start that many threads ({error}); choose fewer"),
        };
        self.threads.push(thread.map_err(refused)?);
        Ok(())
    }

    /// Waits for the next batch, at most this long. Returns whether [`Feed::next`] will return at once.
    pub fn wait(&mut self, most: Duration) -> bool {
        let Some(ready) = self.ready.as_ref().filter(|_| self.early.is_none()) else { return true };
        let start = Instant::now();
        let received = ready.recv_timeout(most);
        self.waited += start.elapsed();
        match received {
            Ok(batch) => self.early = Some(batch),
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => {}
        }
        true
    }

    /// The next batch; `None` after the last, or after an error.
    pub fn next(&mut self) -> Result<Option<Batch>, DataError> {
        let Some(ready) = &self.ready else { return Ok(None) };
        let start = Instant::now();
        let waited = std::mem::take(&mut self.waited);
        match self.early.take().map_or_else(|| ready.recv(), Ok) {
            Ok(batch) => {
                let mut batch = batch?;
                batch.waited = waited + start.elapsed();
                Ok(Some(batch))
            }
            Err(_) => Ok(None),
        }
    }

    pub fn recycle(&self, batch: Batch) {
        // Surplus buffers are simply freed.
        let _ = self.recycled.try_send(batch);
    }

    pub fn skipped(&self) -> Vec<Skipped> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.stop.store(true, Ordering::Relaxed);
        }
        // Wakes the assembler if it waits for room. When it ends it drops its ends of the other channels, which
        // wakes the workers; these look at `stop` between images.
        self.ready = None;
        for thread in self.threads.drain(..) {
            // A panic was reported when it happened; a destructor must not add another.
            let _ = thread.join();
        }
    }
}
