//! The thread that puts runs in order and copies them into batches.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::raw::Raw;
use super::worker::{Run, Shared};
use super::{Batch, NO_LABEL, Position, Skipped};
use crate::error::DataError;

/// The consumer has gone: there is nobody to tell.
pub(super) struct Gone;

/// An image of a run: its views, or its number among the raw images.
struct Image<'r> {
    index: u32,
    views: &'r [u8],
    raw: (&'r Raw, usize),
}

pub(super) struct Assembler {
    pub shared: Arc<Shared>,
    /// Images in a batch.
    pub batch: usize,
    /// Whether a broken image ends it.
    pub strict: bool,
    pub filled: Receiver<Result<Run, String>>,
    pub empty: Sender<Run>,
    pub ready: Sender<Result<Batch, DataError>>,
    pub recycled: Receiver<Batch>,
    pub skipped: Arc<Mutex<Vec<Skipped>>>,
    /// The batch being filled.
    pub open: Option<Batch>,
    /// A full batch kept back until it is known whether another follows in its epoch: images yet to come may be broken.
    pub held: Option<Batch>,
    /// Full batches of the present epoch.
    pub made: usize,
    /// The images in `skipped`.
    pub listed: HashSet<u32>,
}

impl Assembler {
    /// Runs until the batches are all made, the consumer has gone, or an error was handed to it.
    pub fn run(mut self) {
        let mut early: HashMap<u64, Run> = HashMap::new();
        for number in 0.. {
            if self.shared.plan.span(number).is_none() {
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
                    Ok(Err(reason)) => {
                        let _ = self.ready.send(Err(DataError::Stopped(reason)));
                        return;
                    }
                    Err(_) => return,
                }
            };
            if self.take(&run).is_err() {
                return;
            }
            // There is room for every run in circulation. In the end the workers may have gone before the last runs
            // are taken.
            let _ = self.empty.send(run);
        }
    }

    /// Copies the images of `run` into batches.
    fn take(&mut self, run: &Run) -> Result<(), Gone> {
        let places = self.shared.plan.places;
        let row = self.shared.rows.branches() * self.shared.rows.view_bytes();
        let mut images = 0;
        for (slot, (place, outcome)) in run.span.places.clone().zip(&run.outcomes).enumerate() {
            // What follows the last full batch of an epoch is dropped, and not reported either: how far the
            // workers had come when the batch was full is chance.
            if self.shared.finished_epochs.load(Ordering::Relaxed) > run.span.epoch {
                break;
            }
            match outcome {
                Ok(index) => {
                    let image = Image {
                        index: *index,
                        views: &run.views[slot * row..][..row],
                        raw: (&run.raw, images),
                    };
                    images += 1;
                    self.add(image, Position { epoch: run.span.epoch, next: place + 1 })?;
                }
                Err(skipped) => self.skip(skipped)?,
            }
        }
        match run.span.places.end == places {
            true => self.end_epoch(run.span.epoch),
            false => Ok(()),
        }
    }

    fn skip(&mut self, skipped: &Skipped) -> Result<(), Gone> {
        if self.strict {
            let Skipped { name, reason, .. } = skipped.clone();
            let _ = self.ready.send(Err(DataError::Image { name, reason }));
            return Err(Gone);
        }
        if self.listed.insert(skipped.index) {
            tracing::debug!(name = skipped.name, reason = skipped.reason, "broken image passed over");
            self.skipped.lock().unwrap_or_else(PoisonError::into_inner).push(skipped.clone());
        }
        Ok(())
    }

    /// Adds an image to the open batch; `after` is the position behind it.
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
        batch.epoch = after.epoch;
        batch.position = after;
        if batch.indices.len() < self.batch {
            self.open = Some(batch);
            return Ok(());
        }
        self.made += 1;
        if let Some(before) = self.held.replace(batch) {
            self.send(before)?;
        }
        let left = self.shared.plan.places - after.next;
        match self.shared.plan.endless && left < self.batch as u64 {
            true => self.send_last(after.epoch),
            false => Ok(()),
        }
    }

    /// An empty batch, in used buffers where some have come back.
    fn blank(&self) -> Batch {
        let bytes = self.batch * self.shared.rows.branches() * self.shared.rows.view_bytes();
        let mut batch = self.recycled.try_recv().unwrap_or_else(|_| Batch {
            views: Vec::new(),
            raw: Raw::default(),
            indices: Vec::with_capacity(self.batch),
            labels: Vec::with_capacity(self.batch),
            epoch: 0,
            end_of_epoch: false,
            position: Position::default(),
            waited: Duration::ZERO,
        });
        batch.views.resize(bytes, 0);
        batch.raw.clear();
        batch.indices.clear();
        batch.labels.clear();
        batch.end_of_epoch = false;
        batch
    }

    fn end_epoch(&mut self, epoch: u64) -> Result<(), Gone> {
        let Shared { plan, rows, .. } = &*self.shared;
        let short = self.open.take();
        if plan.endless {
            let whole = epoch != plan.start.epoch || plan.start.next == 0;
            if whole && self.made == 0 {
                let broken = self.skipped.lock().unwrap_or_else(PoisonError::into_inner).len();
                let usable = short.map_or(0, |batch| batch.indices.len());
                let _ = self.ready.send(Err(DataError::TooFewImages { batch: self.batch, usable, broken }));
                return Err(Gone);
            }
        } else if let Some(mut short) = short {
            // One branch, so the images are the beginning of the buffer.
            short.views.truncate(short.indices.len() * rows.view_bytes());
            if let Some(before) = self.held.replace(short) {
                self.send(before)?;
            }
        }
        self.send_last(epoch)?;
        self.made = 0;
        Ok(())
    }

    /// Sends the batch kept back, if there is one, as the last of its epoch.
    fn send_last(&mut self, epoch: u64) -> Result<(), Gone> {
        let Some(mut last) = self.held.take() else {
            return Ok(());
        };
        last.end_of_epoch = true;
        last.position = Position { epoch: epoch + 1, next: 0 };
        self.shared.finished_epochs.store(epoch + 1, Ordering::Relaxed);
        self.send(last)
    }

    fn send(&self, batch: Batch) -> Result<(), Gone> {
        self.ready.send(Ok(batch)).map_err(|_| Gone)
    }
}
