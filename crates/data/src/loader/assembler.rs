//! The thread that puts runs in order and copies them into batches.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::raw::RawBatch;
use super::worker::{Run, Shared};
use super::{Batch, NO_LABEL, Position, Skipped};
use crate::error::DataError;

/// The consumer is gone: there is nobody to send to.
pub(super) struct Gone;

/// An image of a run: its views, or its number among the raw images.
struct Image<'r> {
    index: u32,
    views: &'r [u8],
    raw: (&'r RawBatch, usize),
}

pub(super) struct Assembler {
    pub shared: Arc<Shared>,
    /// Images in a batch.
    pub batch: usize,
    /// Places in an epoch.
    pub epoch: u64,
    /// Whether a broken image is an error.
    pub strict: bool,
    pub filled: Receiver<Result<Run, DataError>>,
    pub empty: Sender<Run>,
    pub ready: Sender<Result<Batch, DataError>>,
    pub recycled: Receiver<Batch>,
    pub skipped: Arc<Mutex<Vec<Skipped>>>,
    /// The batch being filled.
    pub open: Option<Batch>,
    /// The epoch in which the open batch was begun.
    pub begun: u64,
    /// Images of the current epoch read so far; `None` if the loader started in the middle of it.
    pub usable: Option<usize>,
    /// The images in `skipped`.
    pub listed: HashSet<u32>,
}

impl Assembler {
    /// Runs until all batches are made, the consumer is gone, or an error has been sent to it.
    pub fn run(mut self) {
        let mut early: HashMap<u64, Run> = HashMap::new();
        for number in 0.. {
            if self.shared.plan.places(number).is_none() {
                self.finish();
                return;
            }
            let run = loop {
                if let Some(run) = early.remove(&number) {
                    break run;
                }
                match self.filled.recv() {
                    Ok(Ok(run)) => {
                        early.insert(run.number, run);
                    }
                    Ok(Err(error)) => {
                        let _ = self.ready.send(Err(error));
                        return;
                    }
                    Err(_) => return,
                }
            };
            if self.take(&run).is_err() {
                return;
            }
            // The channel has room for every run in circulation. At the end, the workers may be gone before the last
            // runs are returned.
            let _ = self.empty.send(run);
        }
    }

    /// Copies the images of `run` into batches.
    fn take(&mut self, run: &Run) -> Result<(), Gone> {
        let row = self.shared.rows.branches() * self.shared.rows.view_bytes();
        let mut images = 0;
        for (slot, (place, outcome)) in run.places.clone().zip(&run.outcomes).enumerate() {
            match outcome {
                Ok(index) => {
                    let image = Image {
                        index: *index,
                        views: &run.views[slot * row..][..row],
                        raw: (&run.raw, images),
                    };
                    images += 1;
                    self.usable = self.usable.map(|usable| usable + 1);
                    if !self.holds(*index, place / self.epoch) {
                        self.add(image, Position(place + 1))?;
                    }
                }
                Err(skipped) => self.skip(skipped)?,
            }
            self.look_back(place + 1)?;
        }
        Ok(())
    }

    /// Whether the open batch was begun in an epoch before `epoch` and already has image `index`. The orders of two
    /// epochs keep an image apart by as many places as a batch has images, but a batch that skips broken images spans
    /// more places.
    fn holds(&mut self, index: u32, epoch: u64) -> bool {
        let Some(open) = &self.open else {
            self.begun = epoch;
            return false;
        };
        epoch != self.begun && open.indices.contains(&index)
    }

    /// At the end of an epoch, fails if its readable images do not fill a batch.
    fn look_back(&mut self, after: u64) -> Result<(), Gone> {
        if !after.is_multiple_of(self.epoch) || self.shared.plan.end.is_some() {
            return Ok(());
        }
        let usable = self.usable.replace(0).filter(|&usable| usable < self.batch);
        let Some(usable) = usable else { return Ok(()) };
        let broken = self.skipped.lock().unwrap_or_else(PoisonError::into_inner).len();
        let _ = self.ready.send(Err(DataError::TooFewImages { batch: self.batch, usable, broken }));
        Err(Gone)
    }

    fn skip(&mut self, skipped: &Skipped) -> Result<(), Gone> {
        if self.strict {
            let Skipped { name, reason, .. } = skipped.clone();
            let _ = self.ready.send(Err(DataError::Image { name, reason }));
            return Err(Gone);
        }
        if self.listed.insert(skipped.index) {
            tracing::debug!(name = skipped.name, reason = skipped.reason, "broken image skipped");
            self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(skipped.clone());
        }
        Ok(())
    }

    /// Adds an image to the open batch; `after` is the position after it.
    fn add(&mut self, Image { index, views, raw }: Image, after: Position) -> Result<(), Gone> {
        let mut batch = self.open.take().unwrap_or_else(|| self.blank());
        let Shared { rows, .. } = &*self.shared;
        match rows.view_bytes() {
            0 => batch.raw.add_from(raw.0, raw.1, rows.branches()),
            view => {
                for (branch, bytes) in views.chunks_exact(view).enumerate() {
                    let at = (branch * self.batch + batch.indices.len()) * view;
                    batch.views[at..at + view].copy_from_slice(bytes);
                }
            }
        }
        batch.indices.push(index);
        if !self.shared.dataset.classes().is_empty() {
            batch.labels.push(self.shared.dataset.label(index as usize).unwrap_or(NO_LABEL));
        }
        batch.position = after;
        if batch.indices.len() < self.batch {
            self.open = Some(batch);
            return Ok(());
        }
        self.send(batch)
    }

    /// An empty batch, in recycled buffers if there are any.
    fn blank(&self) -> Batch {
        let bytes = self.batch * self.shared.rows.branches() * self.shared.rows.view_bytes();
        let mut batch = self.recycled.try_recv().unwrap_or_else(|_| Batch {
            views: Vec::new(),
            raw: RawBatch::default(),
            indices: Vec::with_capacity(self.batch),
            labels: Vec::with_capacity(self.batch),
            position: Position::default(),
            waited: Duration::ZERO,
        });
        batch.views.resize(bytes, 0);
        batch.raw.clear();
        batch.indices.clear();
        batch.labels.clear();
        batch
    }

    /// Sends the last batch, which may be short, if there is one.
    fn finish(&mut self) {
        if let Some(mut short) = self.open.take() {
            // One branch, so the images are the beginning of the buffer.
            short.views.truncate(short.indices.len() * self.shared.rows.view_bytes());
            let _ = self.send(short);
        }
    }

    fn send(&self, batch: Batch) -> Result<(), Gone> {
        self.ready.send(Ok(batch)).map_err(|_| Gone)
    }
}
