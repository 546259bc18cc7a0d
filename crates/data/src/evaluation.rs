//! Images in data-set order for evaluation: central crops, each image once.

use std::sync::Arc;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::loader::{Batch, Feed, Job, Position, Reading, Rows, Share, Skipped};
use crate::permutation::Order;

/// The images of a data set, once, in order, as central crops: 87.5% of the shorter side, resized to size x size.
/// At size <= 32 the whole image is resized, as the authors' code does for CIFAR: one that is not square is
/// distorted there, unlike in training (spec of the views: `simclr_augment::central_crop`).
///
/// In a batch, `views` has shape (n, size, size, 3), where n = `indices.len()` is `batch` except in the last one, which
/// may be shorter. Broken images are skipped and listed in [`EvalLoader::skipped`].
#[derive(Debug)]
pub struct EvalLoader {
    feed: Feed,
}

impl EvalLoader {
    /// Starts reading `dataset` in batches of `batch` images. Numbers out of range are reported by the first
    /// [`EvalLoader::next_batch`].
    pub fn new(dataset: Arc<dyn Dataset>, size: u32, batch: usize, reading: Reading) -> Self {
        let feed = Feed::start(Job {
            dataset,
            rows: Rows::CentralCrop { size },
            order: Order::Natural,
            start: Position::default(),
            batch,
            share: Share::WHOLE,
            reading,
        });
        Self { feed }
    }

    /// The next batch; `None` after the last one.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a number out of range, [`DataError::Image`] where reading is strict.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, DataError> {
        self.feed.next()
    }

    /// Returns the buffers of a used batch for reuse.
    pub fn recycle(&self, batch: Batch) {
        self.feed.recycle(batch);
    }

    /// The broken images met so far, in order.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.feed.skipped()
    }
}
