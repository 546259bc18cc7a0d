//! Steps on real images, as in a run: loader, views and step.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use simclr_data::{Cached, Dataset, LoaderConfig, Position, Reading, Share};
use simclr_engine::{Device, SingleProcess};
use simclr_train::optim::Optimizer;
use simclr_train::pretrain::{Batches, CapturedStep, RunViews, ViewsPlace, train_step};
use simclr_train::{Config, Model, memory};
use simclr_words::text::Gigabytes;

use crate::data;

/// Steps before the counted ones, after the epoch in which a GPU receives the images that it keeps.
const WARM_UP: usize = 5;
/// The most steps before the counted ones, however long an epoch is.
const LONGEST_WARM_UP: usize = 2000;
/// How many batches of views are timed without a step.
const MADE_ALONE: usize = 10;
/// A harmless learning rate, since what is learnt does not matter.
pub const RATE: f64 = 0.01;

/// The speed of steps on real images.
#[derive(Clone, Debug, Serialize)]
pub struct Fed {
    /// Views per second through loader, views and step.
    pub views_per_s: f64,
    /// `views_per_s` as a share of that of the step alone.
    pub share_of_step: f64,
    /// The seconds that each step waited for the loader.
    pub waited_s_per_step: f64,
    /// The seconds to make the views of a batch alone, where a GPU does.
    pub views_s: Option<f64>,
    /// Where the views were made.
    pub views_on: String,
    /// The bytes of images that a GPU keeps.
    pub kept_bytes: usize,
    /// The number of images of the data set.
    pub images: usize,
}

impl fmt::Display for Fed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fed { views_per_s, share_of_step, waited_s_per_step, views_s, views_on, kept_bytes, images } =
            self;
        write!(
            f,
            "fed with {images} images: {views_per_s:.1} views/s, {share_of_step:.3} of the step alone, {:.2} ms a step waiting for images; {views_on}",
            1e3 * waited_s_per_step
        )?;
        if let Some(seconds) = views_s {
            write!(f, ": {:.2} ms a batch, {} of images kept", 1e3 * seconds, Gigabytes(*kept_bytes as u64))?;
        }
        Ok(())
    }
}

/// A network in training.
pub struct Taker<'a> {
    /// The configuration of the run.
    pub config: &'a Config,
    /// Where to compute.
    pub device: &'a Device,
    /// The network that is trained.
    pub model: &'a mut Model,
    /// What trains it.
    pub optimizer: &'a mut Optimizer,
    /// The captured step, on a GPU.
    pub captured: &'a mut Option<CapturedStep>,
}

impl Taker<'_> {
    /// Starts a step on `views`, or on a GPU on the views that it holds.
    pub fn step(&mut self, views: &[u8]) -> Result<()> {
        let loss = &self.config.loss;
        match self.captured {
            Some(captured) => captured.step(self.model, self.optimizer, loss, &SingleProcess, RATE)?,
            None => {
                train_step(self.model, self.optimizer, loss, &SingleProcess, views, RATE)?;
            }
        }
        Ok(())
    }

    /// Takes `steps` steps on `images` as a run does, after some that warm up. `alone` is how many views per second the
    /// step takes alone.
    pub fn fed(
        mut self,
        images: Arc<dyn Dataset>,
        choice: &memory::Choice,
        steps: usize,
        alone: f64,
    ) -> Result<Fed> {
        // In memory, as with `data.cache = "auto"`.
        let images: Arc<dyn Dataset> = Arc::new(Cached::in_memory(images, memory::available_bytes() / 4));
        let RunViews { families, left_out } = RunViews::new(self.config, &*images)?;
        data::say_left_out(&left_out);
        let (sizes, batch) = (memory::Images::look(&*images), self.config.train.batch);
        let place = ViewsPlace::decide(self.config, self.device, &families, &*images, choice, &sizes, batch)?;
        let loader = LoaderConfig {
            batch,
            share: Share::WHOLE,
            seed: 0,
            reading: Reading { threads: self.device.threads(), strict: false },
            views: families.to_vec(),
        };
        let count = images.len();
        let mut batches = Batches::start(images, loader, Position::default(), self.device, &place)?;
        let first_epoch =
            if matches!(place, ViewsPlace::Gpu { keeps: 1.. }) { count / self.config.train.batch } else { 0 };
        let warm_up = (first_epoch + WARM_UP).min(LONGEST_WARM_UP);
        self.take(&mut batches, warm_up)?;
        let start = Instant::now();
        let waited = self.take(&mut batches, steps)?;
        let seconds = start.elapsed().as_secs_f64() / steps as f64;
        let views_per_s = (2 * self.config.train.batch) as f64 / seconds;
        Ok(Fed {
            views_per_s,
            share_of_step: views_per_s / alone,
            waited_s_per_step: waited.as_secs_f64() / steps as f64,
            views_s: self.views_alone(&mut batches, &place)?,
            views_on: place.to_string(),
            kept_bytes: batches.kept(),
            images: count,
        })
    }

    /// Takes steps and waits for them. Returns how long they waited for the loader.
    fn take(&mut self, batches: &mut Batches, steps: usize) -> Result<Duration> {
        let mut waited = Duration::ZERO;
        for _ in 0..steps {
            let batch = batches.next(self.captured.as_mut().map(CapturedStep::pixels))?;
            waited += batch.waited;
            self.step(&batch.views)?;
            batches.recycle(batch);
            batches.bring()?;
        }
        self.device.synchronize()?;
        Ok(waited)
    }

    /// The median time of making a batch's views once its images are on the GPU; `None` where no GPU makes them.
    fn views_alone(&mut self, batches: &mut Batches, place: &ViewsPlace) -> Result<Option<f64>> {
        if !matches!(place, ViewsPlace::Gpu { .. }) {
            return Ok(None);
        }
        let mut seconds = Vec::with_capacity(MADE_ALONE);
        for _ in 0..MADE_ALONE {
            batches.bring()?;
            self.device.synchronize()?;
            // The copy runs on a stream of its own, which `synchronize` does not wait for.
            std::thread::sleep(Duration::from_millis(20));
            let start = Instant::now();
            let batch = batches.next(self.captured.as_mut().map(CapturedStep::pixels))?;
            self.device.synchronize()?;
            seconds.push(start.elapsed().as_secs_f64());
            batches.recycle(batch);
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Some(seconds[seconds.len() / 2]))
    }
}
