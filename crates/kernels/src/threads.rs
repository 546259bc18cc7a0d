//! Worker threads, and the only way of cutting work into pieces.

use std::sync::Arc;

use crate::shared::SharedMut;

/// A pool of worker threads that runs numbered pieces.
///
/// The pool chooses the thread that runs a piece. A piece must write only what no other piece writes, and the
/// cut into pieces must not depend on [`Threads::count`], so that results do not either.
#[derive(Clone)]
pub struct Threads {
    pool: Arc<rayon::ThreadPool>,
}

/// The threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start threads to compute with: {source}")]
pub struct ThreadsError {
    source: rayon::ThreadPoolBuildError,
}

impl Threads {
    /// Starts `count` threads (0: as many as the processor has).
    ///
    /// # Errors
    /// The system refuses to start a thread.
    pub fn new(count: usize) -> Result<Threads, ThreadsError> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|i| format!("compute-{i}"))
            .build()
            .map(|pool| Threads { pool: Arc::new(pool) })
            .map_err(|source| ThreadsError { source })
    }

    /// The number of threads.
    pub fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on one of the pool's threads, so that the pieces it shares out need no hand-over from outside. If
    /// there is only one thread, `work` runs on the calling thread.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        if self.count() == 1 { work() } else { self.pool.install(work) }
    }

    /// Runs `piece(0)`, ..., `piece(pieces - 1)`, each once, on any thread and in any order, and returns when
    /// all are done.
    pub fn run(&self, pieces: usize, piece: impl Fn(usize) + Sync) {
        self.share(pieces, &piece);
    }

    // Not generic, so that rayon's code is compiled once rather than for every kernel.
    fn share(&self, pieces: usize, piece: &(dyn Fn(usize) + Sync)) {
        use rayon::prelude::*;
        if pieces <= 1 || self.count() == 1 {
            // Nothing to share: stay on the calling thread to save the hand-over.
            (0..pieces).for_each(piece);
        } else {
            self.pool.install(|| (0..pieces).into_par_iter().with_max_len(1).for_each(piece));
        }
    }

    /// Cuts `data` into chunks of `len` values (the last may be shorter) and runs `piece(index, chunk)` on each.
    pub fn run_chunks<T: Send>(&self, data: &mut [T], len: usize, piece: impl Fn(usize, &mut [T]) + Sync) {
        self.run_chunks_alike([data], len, |i, [chunk]| piece(i, chunk));
    }

    /// Cuts two slices of equal length alike and runs `piece(index, chunk of a, chunk of b)` on each pair of chunks.
    pub fn run_chunk_pairs<A: Send, B: Send>(
        &self,
        a: &mut [A],
        b: &mut [B],
        len: usize,
        piece: impl Fn(usize, &mut [A], &mut [B]) + Sync,
    ) {
        assert_eq!(a.len(), b.len(), "both slices are cut alike");
        let b = SharedMut::new(b);
        self.run_chunks(a, len, |i, a| {
            // SAFETY: chunks are disjoint, each runs once, and `b` is borrowed until all are done.
            let b = unsafe { b.slice(i * len, a.len()) };
            piece(i, a, b);
        });
    }

    /// Cuts slices of equal length alike and runs `piece(index, chunks)` on each set of chunks.
    pub fn run_chunks_alike<T: Send, const N: usize>(
        &self,
        slices: [&mut [T]; N],
        len: usize,
        piece: impl Fn(usize, [&mut [T]; N]) + Sync,
    ) {
        let total = slices.first().map_or(0, |slice| slice.len());
        assert!(slices.iter().all(|slice| slice.len() == total), "all slices are cut alike");
        let slices = slices.map(SharedMut::new);
        self.run(total.div_ceil(len), |i| {
            let start = i * len;
            // SAFETY: chunks are disjoint, each runs once, and the slices are borrowed until all are done.
            piece(i, slices.map(|slice| unsafe { slice.slice(start, len.min(total - start)) }));
        });
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Threads({})", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_piece_runs_once() {
        let threads = Threads::new(3).unwrap();
        let seen: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
        threads.run(100, |i| {
            seen[i].fetch_add(1, Ordering::Relaxed);
        });
        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn chunks_cover_the_slice() {
        let threads = Threads::new(2).unwrap();
        let mut data = vec![0usize; 23];
        threads.run_chunks(&mut data, 5, |i, chunk| chunk.fill(i + 1));
        assert_eq!(data, (0..23).map(|i| i / 5 + 1).collect::<Vec<_>>());
    }
}
