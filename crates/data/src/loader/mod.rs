//! Batches, made ahead of time by background threads.
//!
//! ```text
//!             claim the next run of places            in order, gaps closed
//! workers  ─────────────────────────────────▶ assembler ───────────────────▶ next_batch()
//!    ▲      read, decode, draw views of it        │  ▲                           │
//!    └───────────── empty runs ───────────────────┘  └──────── recycle() ────────┘
//! ```
//!
//! The orders of the epochs follow one another without a gap, and their places are cut into short runs. A worker takes
//! an empty buffer, then claims the lowest unclaimed run, and fills it; the assembler takes the runs in their order and
//! copies the views into batches, skipping broken images. The contents of a batch are thus a function of the place
//! where it starts, never of the speed of the threads. The buffers in circulation bound both the memory and how far
//! ahead the workers run.

mod assembler;
mod feed;
mod plan;
mod raw;
mod rows;
mod share;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use simclr_augment::ViewFamily;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::permutation::Order;
pub(crate) use feed::{Feed, Job};
pub use raw::{KeptImages, PixelSource, RawBatch, RawImage};
pub(crate) use rows::Rows;
pub use share::Share;

/// Stands in [`Batch::labels`] for an image without a label in a data set that has labels.
pub const NO_LABEL: u32 = u32::MAX;

/// The number of places of training that are done. The orders of the epochs follow one another without a gap: with N
/// images, place p is place p mod N in the order of epoch p / N. A loader with a [`Share`] counts only its own places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position(pub u64);

impl Position {
    /// The number of whole epochs of `images` images that are done.
    pub fn epochs(self, images: usize) -> u64 {
        self.0.checked_div(images as u64).unwrap_or(0)
    }
}

/// How a loader reads. Does not influence the contents of its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Worker threads; at least 1.
    pub threads: usize,
    /// Whether the first unreadable image ends the loader with [`DataError::Image`], instead of being skipped and
    /// listed.
    pub strict: bool,
}

/// The batches that a [`Loader`] makes.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// Images per batch (a batch holds `views.len()` times as many views); at least 1.
    pub batch: usize,
    /// Which part of the joint batches of several loaders this one makes.
    pub share: Share,
    /// The seed of the order of images and of every view.
    pub seed: u64,
    /// How the images are read.
    pub reading: Reading,
    /// The distribution of the views of each branch, all of one size: two for pretraining, one for training a
    /// classifier.
    pub views: Vec<ViewFamily>,
}

/// One batch of N images.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// 8-bit RGB, shape (branches x N, size, size, 3): first the N views of branch 0, then those of branch 1, so that
    /// with two branches the positive of view i is view (i + N) mod 2N. Empty where the consumer makes them.
    pub views: Vec<u8>,
    /// The N images and the recipes of their views, where the consumer makes these ([`Loader::raw`]); otherwise empty.
    pub raw: RawBatch,
    /// The N images, as numbered by the data set.
    pub indices: Vec<u32>,
    /// Their N labels; empty when the data set is unlabelled.
    pub labels: Vec<u32>,
    /// Where the next batch starts. A loader started there continues with the same batches.
    pub position: Position,
    /// How long [`Loader::next_batch`] and [`Loader::wait`] waited for it.
    pub waited: Duration,
}

/// A broken image that was skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its number in the data set.
    pub index: u32,
    /// Its name in the data set.
    pub name: String,
    /// Why it cannot be read.
    pub reason: String,
}

/// An endless stream of batches for training, epoch after epoch. A batch that is not full when an epoch ends is filled
/// up from the next one, as in the official code, so that each epoch sees every image once; no batch contains an image
/// twice.
///
/// Each epoch visits the images in an order that is a function of (seed, epoch) and of the size of all loaders' batches
/// together, and draws the view of image i in branch b from the random stream (seed, epoch, i, b). A broken image is
/// skipped, the next in order takes its place, and it is listed in [`Loader::skipped`]. If that makes an image occur
/// twice in a batch that spans two epochs, it is skipped in the later epoch. Dropping the loader ends its threads.
#[derive(Debug)]
pub struct Loader {
    feed: Feed,
}

impl Loader {
    /// Starts making the batches from `start` on. The first [`Loader::next_batch`] returns any error in the
    /// configuration.
    pub fn new(dataset: Arc<dyn Dataset>, mut config: LoaderConfig, start: Position) -> Self {
        let families = std::mem::take(&mut config.views);
        let rows = Rows::Views { families, seed: config.seed };
        Self::start(dataset, config, rows, start)
    }

    /// Like [`Loader::new`], but leaves the views to the consumer: [`Batch::raw`] has what they are made of. The pixels
    /// of images that the consumer has registered in `kept` are not sent; with `kept`, images are decoded whole.
    pub fn raw(
        dataset: Arc<dyn Dataset>,
        mut config: LoaderConfig,
        start: Position,
        kept: Option<Arc<KeptImages>>,
    ) -> Self {
        let families = std::mem::take(&mut config.views);
        let rows = Rows::Raw { families, seed: config.seed, kept };
        Self::start(dataset, config, rows, start)
    }

    fn start(dataset: Arc<dyn Dataset>, config: LoaderConfig, rows: Rows, start: Position) -> Self {
        let LoaderConfig { batch, share, seed, reading, .. } = config;
        let order = Order::Shuffled { seed, apart: share.whole(batch) };
        Self { feed: Feed::start(Job { dataset, rows, order, start, batch, share, reading }) }
    }

    /// Waits for the next batch, at most this long. Returns whether [`Loader::next_batch`] will not wait any more.
    pub fn wait(&mut self, most: Duration) -> bool {
        self.feed.wait(most)
    }

    /// Returns the next batch, waiting for it if necessary.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a configuration out of range, [`DataError::TooFewImages`] if an epoch does not
    /// fill one batch, [`DataError::Image`] where reading is strict, [`DataError::Lost`], and
    /// [`DataError::Stopped`] after any of them.
    pub fn next_batch(&mut self) -> Result<Batch, DataError> {
        match self.feed.next()? {
            Some(batch) => Ok(batch),
            None => Err(DataError::Stopped("no more batches after an error".to_owned())),
        }
    }

    /// Returns the buffers of a used batch for reuse by the next ones.
    pub fn recycle(&self, batch: Batch) {
        self.feed.recycle(batch);
    }

    /// The broken images met so far in the batches made, each once, in the order in which they were met.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.feed.skipped()
    }
}
