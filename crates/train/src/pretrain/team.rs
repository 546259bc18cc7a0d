//! The workers of a run, and what they agree on.

mod compatibility;

use std::fmt;

use serde::{Deserialize, Serialize};
use simclr_data::{DataError, Position, Share, Skipped};
use simclr_engine::{Collective, Device, SingleProcess, between_gpus};
use simclr_words::text::counted;

use crate::checkpoint::Checkpoint;
use crate::config::Memory;
use crate::{Config, TrainError};

/// The place of a worker among all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its number, from 0.
    pub rank: usize,
    /// The number of workers.
    pub world_size: usize,
    /// How many workers share this machine, this one included.
    pub local_size: usize,
}

impl Worker {
    /// The only worker.
    pub const ALONE: Worker = Worker { rank: 0, world_size: 1, local_size: 1 };

    /// The worker's share of every batch.
    pub(super) fn share(self) -> Share {
        Share::new(self.rank, self.world_size).unwrap_or(Share::WHOLE)
    }

    /// Rewords an error of the worker's loader for a run of several workers.
    pub(super) fn explain(self, error: TrainError) -> TrainError {
        match error {
            TrainError::Data(DataError::TooFewImages { batch, usable, .. }) if self.world_size > 1 => {
                TrainError::Workers(format!(
                    "worker {} has {usable} images of an epoch that can be read, and its part of a batch is {batch}; take fewer workers, or \
                     lower train.batch",
                    self.rank
                ))
            }
            error => error,
        }
    }

    /// The worker's number of images in a batch, in a run that trains on `images` of them.
    ///
    /// # Errors
    /// [`TrainError::Conflict`] if a batch cannot be shared evenly, or leaves each worker fewer than two images.
    pub fn batch_size(self, config: &Config, images: usize) -> Result<usize, TrainError> {
        let (batch, of) = (config.train.batch, self.world_size);
        if batch.is_multiple_of(of) && (batch / of >= 2 || of == 1) {
            return Ok(batch / of);
        }
        let above = batch.div_ceil(of).max(2) * of;
        let below = batch / of * of;
        let right = match (below >= 2 * of, above <= images) {
            (true, true) => format!("use {below} or {above}"),
            (true, false) => format!("use {below}"),
            (false, true) => format!("use {above}"),
            (false, false) => {
                let most = (1..=batch / 2).rev().find(|&most| batch.is_multiple_of(most)).unwrap_or(1);
                let workers = counted(most, "worker");
                format!(
                    "of {images} images there are not enough for a larger one; at most {workers} can share it"
                )
            }
        };
        Err(TrainError::conflict(
            "train.batch",
            format!(
                "is {batch}, which {of} workers cannot share evenly with at least 2 images each; {right}"
            ),
        ))
    }
}

/// The workers of a run, from the viewpoint of one of them.
#[derive(Clone, Copy)]
pub struct Team<'t> {
    pub(super) collective: &'t dyn Collective,
    pub(super) worker: Worker,
}

impl fmt::Debug for Team<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl<'t> Team<'t> {
    /// A single worker.
    pub const ALONE: Team<'static> = Team { collective: &SingleProcess, worker: Worker::ALONE };

    /// The workers of `collective`, of which `local_size` share this machine.
    pub fn new(collective: &'t dyn Collective, local_size: usize) -> Team<'t> {
        Team {
            collective,
            worker: Worker { rank: collective.rank(), world_size: collective.size(), local_size },
        }
    }

    /// Tells the other workers why this one stops.
    pub fn leave(&self, why: &str) {
        self.collective.leave(why);
    }

    pub(super) fn is_alone(&self) -> bool {
        self.worker.world_size == 1
    }

    /// Runs `work` with these workers, which exchange between GPUs if `device` is one. Tells the others if it fails.
    ///
    /// # Errors
    /// Those of `work`; the reason why GPUs cannot exchange.
    pub(super) fn on<R>(
        &self,
        device: &Device,
        work: impl FnOnce(Team) -> Result<R, TrainError>,
    ) -> Result<R, TrainError> {
        let told = |team: &Team, error: &TrainError| team.leave(&error.to_string());
        let joined = between_gpus(self.collective, device).map_err(TrainError::from);
        let Some(joined) = joined.inspect_err(|error| told(self, error))? else {
            return work(*self).inspect_err(|error| told(self, error));
        };
        let team = Team { collective: &*joined, worker: self.worker };
        let done = work(team).inspect_err(|error| told(&team, error))?;
        // A worker that finishes early looks dead to those still checking the exchange, and their GPUs may still read
        // its memory: synchronise and meet once more. Errors no longer matter.
        let _ = device.synchronize();
        let _ = team.collective.exchange(b"");
        Ok(done)
    }

    /// Agrees on what all workers keep for the backward pass: if one must recompute, all do, because recomputing
    /// repeats exchanges.
    pub(super) fn settle_memory(&self, own: Memory) -> Result<Memory, TrainError> {
        let mut blocks = [if own == Memory::Blocks { 1.0 } else { 0.0 }];
        self.collective.all_reduce_sum(&mut blocks)?;
        Ok(if blocks[0] > 0.0 { Memory::Blocks } else { own })
    }

    /// Shares the checkpoint that worker 0 goes on from, if any.
    pub(super) fn share(&self, from: Option<&Checkpoint>) -> Result<Option<Checkpoint>, TrainError> {
        let own = from.map(Checkpoint::to_bytes).transpose()?.unwrap_or_default();
        let all = self.collective.exchange(&own)?;
        match all.first().filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => Ok(Some(Checkpoint::from_bytes(bytes)?)),
            None => Ok(None),
        }
    }

    /// Exchanges the workers' positions after a step, into `positions` by rank, and whether they want to stop. Returns
    /// whether any does.
    pub(super) fn take_turn(
        &self,
        positions: &mut [Position],
        own: Position,
        stop: bool,
    ) -> Result<bool, TrainError> {
        if let ([only], true) = (&mut *positions, self.is_alone()) {
            *only = own;
            return Ok(stop);
        }
        let mut told = vec![0.0; positions.len() + 1];
        // Exact: positions are below 2^53.
        told[self.worker.rank] = own.0 as f64;
        told[positions.len()] = if stop { 1.0 } else { 0.0 };
        self.collective.all_reduce_sum(&mut told)?;
        positions.iter_mut().zip(&told).for_each(|(position, &told)| *position = Position(told as u64));
        Ok(told[positions.len()] > 0.0)
    }

    /// Gathers the images that all workers, this one included, have skipped.
    pub(super) fn gather_skipped(&self, own: &[Skipped]) -> Result<Vec<Skipped>, TrainError> {
        Ok(self.exchange(&own)?.into_iter().flat_map(|list: Vec<Skipped>| list).collect())
    }

    fn exchange<T: Serialize, R: for<'d> Deserialize<'d>>(&self, own: &T) -> Result<Vec<R>, TrainError> {
        let strange = |_| {
            TrainError::Workers(
                "the workers do not understand each other; start the same program everywhere".to_owned(),
            )
        };
        let own = serde_json::to_vec(own).map_err(strange)?;
        let all = self.collective.exchange(&own)?;
        all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(strange)).collect()
    }
}
