//! A thread that reads images and makes their views.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use simclr_augment::Scratch;

use super::plan::Plan;
use super::raw::RawBatch;
use super::{Rows, Share, Skipped};
use crate::dataset::Dataset;
use crate::decode::DecodeScratch;
use crate::error::{DataError, inert};
use crate::permutation::Orders;

/// The state that all threads of a loader share.
pub(super) struct Shared {
    pub dataset: Arc<dyn Dataset>,
    pub rows: Rows,
    pub orders: Orders,
    pub plan: Plan,
    /// Maps the plan's places to places of the order, together with `batch`, the images in this loader's batches.
    pub share: Share,
    pub batch: u64,
    /// The lowest run that no worker has claimed.
    pub next_run: AtomicU64,
    pub stop: AtomicBool,
}

/// The buffers of one run, filled by a worker and emptied by the assembler, over and over.
pub(super) struct Run {
    pub number: u64,
    /// The loader's own places.
    pub places: Range<u64>,
    /// For each place: the image, or why there is none.
    pub outcomes: Vec<Result<u32, Skipped>>,
    /// The views of each place, those of one image side by side. Empty where views are not made.
    pub views: Vec<u8>,
    /// The images of the places that have one, where views are not made.
    pub raw: RawBatch,
}

/// Fills empty runs until there are none left, the plan ends, or `stop` is set.
pub(super) fn work(shared: &Shared, empty: &Receiver<Run>, filled: &Sender<Result<Run, DataError>>) {
    let mut worker = Worker {
        shared,
        decode: DecodeScratch::default(),
        augment: Scratch::default(),
        order: (u64::MAX, Arc::default()),
    };
    // Take the buffer before claiming a run: every claimed run is then sure to be filled, so the assembler, which waits
    // for the lowest one, cannot wait for a worker that waits for a buffer.
    for mut run in empty {
        run.number = shared.next_run.fetch_add(1, Ordering::Relaxed);
        let Some(places) = shared.plan.places(run.number) else {
            return;
        };
        run.places = places;
        let result = match catch_unwind(AssertUnwindSafe(|| worker.fill(&mut run))) {
            Ok(filled) => filled.map(|()| run),
            Err(panic) => Err(DataError::Stopped(panic_text(&*panic))),
        };
        // A worker that stops must not just vanish with a claimed run: the assembler may be waiting for it.
        let stopped = shared.stop.load(Ordering::Relaxed);
        let result = if stopped { Err(DataError::Stopped("it was told to".to_owned())) } else { result };
        if filled.send(result).is_err() || stopped {
            return;
        }
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    decode: DecodeScratch,
    augment: Scratch,
    order: (u64, Arc<[u32]>),
}

impl Worker<'_> {
    /// Fails if images can no longer be read.
    fn fill(&mut self, run: &mut Run) -> Result<(), DataError> {
        let Shared { dataset, rows, orders, share, batch, stop, .. } = self.shared;
        let images = dataset.len() as u64;
        run.outcomes.clear();
        run.raw.clear();
        let row = rows.branches() * rows.view_bytes();
        for (slot, own) in run.places.clone().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let place = share.place(own, *batch);
            let epoch = place / images;
            if self.order.0 != epoch {
                self.order = (epoch, orders.of_epoch(epoch));
            }
            let index = self.order.1[(place % images) as usize];
            let scratch = (&mut self.decode, &mut self.augment);
            let out = &mut run.views[slot * row..][..row];
            let made = rows.make(&**dataset, (epoch, index), scratch, out, &mut run.raw);
            // The thread may now wait for room for its views, with the pixels of a huge image in its hands.
            self.decode.give_back();
            let skipped = |reason: &str| {
                Err(Skipped { index, name: dataset.name(index as usize), reason: inert(reason) })
            };
            run.outcomes.push(match made {
                Ok(()) => Ok(index),
                Err(lost @ DataError::Lost { .. }) => return Err(lost),
                Err(DataError::Image { reason, .. }) => skipped(&reason),
                Err(other) => skipped(&other.to_string()),
            });
        }
        Ok(())
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a worker panicked: {}", text.unwrap_or("no message"))
}
