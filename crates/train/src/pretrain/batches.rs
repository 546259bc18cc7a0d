//! The batches of a run, with their views placed where the step reads them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use simclr_augment::Recipe;
use simclr_data::{
    Batch, DataError, Dataset, KeptImages, Loader, LoaderConfig, PixelSource, Position, RawBatch, Skipped,
};
use simclr_engine::{Device, KeptAt, Pixels, Source, ViewMaker};

use super::ViewsPlace;
use crate::TrainError;

/// How often a request to stop is looked for while a batch is waited for.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The stream of batches of a run.
pub struct Batches {
    loader: Loader,
    gpu: Option<OnGpu>,
}

/// Makes views on a GPU.
struct OnGpu {
    maker: ViewMaker,
    /// The batch whose images are being sent, or why there is none.
    ahead: Option<Result<Batch, DataError>>,
    /// Where the GPU keeps each image, and the record of kept images that the loader reads.
    kept: Option<(Vec<Option<KeptAt>>, Arc<KeptImages>)>,
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on_gpu = self.gpu.is_some();
        f.debug_struct("Batches").field("loader", &self.loader).field("views_on_gpu", &on_gpu).finish()
    }
}

impl Batches {
    /// Starts making batches as configured, from `start` on, for `device`, with views made at `place`.
    ///
    /// # Errors
    /// [`TrainError::Engine`] if views are to be made on a GPU and the device is not one. [`Batches::next`] reports
    /// errors of the data.
    pub fn start(
        images: Arc<dyn Dataset>,
        config: LoaderConfig,
        start: Position,
        device: &Device,
        place: &ViewsPlace,
    ) -> Result<Batches, TrainError> {
        let &ViewsPlace::Gpu { keeps } = place else {
            return Ok(Batches { loader: Loader::new(images, config, start), gpu: None });
        };
        let maker = ViewMaker::new(device, usize::try_from(keeps).unwrap_or(usize::MAX))?;
        let kept = (keeps > 0).then(|| (vec![None; images.len()], Arc::new(KeptImages::new(images.len()))));
        let who = kept.as_ref().map(|(_, kept)| Arc::clone(kept));
        let loader = Loader::raw(images, config, start, who);
        Ok(Batches { loader, gpu: Some(OnGpu { maker, ahead: None, kept }) })
    }

    /// Waits until the next batch can be had at once, and asks `stop` meanwhile whether to stop waiting. Returns false
    /// if it said so.
    pub fn wait(&mut self, stop: &dyn Fn() -> bool) -> bool {
        let is_brought = self.gpu.as_ref().is_some_and(|gpu| gpu.ahead.is_some());
        while !is_brought && !self.loader.wait(ASK_EVERY) {
            if stop() {
                return false;
            }
        }
        true
    }

    /// Whether [`Batches::bring`] does anything.
    pub(super) fn brings(&self) -> bool {
        self.gpu.is_some()
    }

    /// Returns the next batch. Its views are written to `out`, from which a GPU's step reads them; without `out` they
    /// are in the batch.
    ///
    /// # Errors
    /// As [`Loader::next_batch`], and [`TrainError::Engine`].
    pub fn next(&mut self, out: Option<&mut Pixels>) -> Result<Batch, TrainError> {
        self.bring()?;
        let Some(gpu) = &mut self.gpu else {
            let batch = self.loader.next_batch()?;
            if let Some(out) = out {
                out.write(&batch.views)?;
            }
            return Ok(batch);
        };
        let stopped = |why: &str| DataError::Stopped(why.to_owned());
        let batch = gpu.ahead.take().unwrap_or_else(|| Err(stopped("no batch was brought")))?;
        let out = out.ok_or_else(|| stopped("views that a GPU makes have no place to go"))?;
        gpu.make(&batch, out)?;
        Ok(batch)
    }

    /// If views are made on a GPU, starts sending the images of the next batch, so that the transfer overlaps with the
    /// step.
    ///
    /// # Errors
    /// [`TrainError::Engine`]. [`Batches::next`] reports errors of the data.
    pub fn bring(&mut self) -> Result<(), TrainError> {
        let Some(gpu) = self.gpu.as_mut().filter(|gpu| gpu.ahead.is_none()) else { return Ok(()) };
        let batch = self.loader.next_batch();
        if let Ok(batch) = &batch {
            gpu.send(batch)?;
        }
        gpu.ahead = Some(batch);
        Ok(())
    }

    /// Returns the buffers of a used batch for reuse.
    pub fn recycle(&self, batch: Batch) {
        self.loader.recycle(batch);
    }

    /// As [`Loader::skipped`].
    pub fn skipped(&self) -> Vec<Skipped> {
        self.loader.skipped()
    }

    /// Bytes of images that a GPU keeps.
    pub fn kept(&self) -> usize {
        self.gpu.as_ref().map_or(0, |gpu| gpu.maker.kept())
    }
}

impl OnGpu {
    fn send(&mut self, batch: &Batch) -> Result<(), TrainError> {
        let RawBatch { pixels, images, recipes } = &batch.raw;
        let places = self.kept.as_ref().map(|(places, _)| places);
        let source = |place: usize| match images[place].at {
            PixelSource::Whole(at) | PixelSource::Part(at) => Some(Source::Sent(at)),
            PixelSource::Kept => {
                let index = batch.indices[place] as usize;
                places.and_then(|places| places.get(index).copied().flatten()).map(Source::Kept)
            }
        };
        let sources: Option<Vec<Source>> = (0..images.len()).map(source).collect();
        let sources =
            sources.ok_or_else(|| DataError::Stopped("an image that is not kept was left out".to_owned()))?;
        self.maker.send(pixels, recipes.len(), by_branch(&sources, recipes))?;
        Ok(())
    }

    fn make(&mut self, batch: &Batch, out: &mut Pixels) -> Result<(), TrainError> {
        let brought = || batch.raw.images.iter().zip(&batch.indices);
        let Some((places, kept)) = &mut self.kept else {
            self.maker.make(false, out)?;
            return Ok(());
        };
        let fresh = brought().any(|(image, &index)| {
            matches!(image.at, PixelSource::Whole(_)) && places[index as usize].is_none()
        });
        match self.maker.make(fresh, out)? {
            Some(start) => {
                for (image, &index) in brought() {
                    if let (PixelSource::Whole(at), place @ None) = (image.at, &mut places[index as usize]) {
                        *place = Some(start.after(at));
                        kept.keep(index, image.width, image.height);
                    }
                }
            }
            None if fresh => kept.close(),
            None => {}
        }
        Ok(())
    }
}

/// The image and recipe of each view: those of the first branch, then those of the second.
fn by_branch<'r>(sources: &'r [Source], recipes: &'r [Recipe]) -> impl Iterator<Item = (Source, &'r Recipe)> {
    let branches = recipes.len() / sources.len().max(1);
    (0..branches).flat_map(move |branch| {
        sources.iter().enumerate().map(move |(i, source)| (*source, &recipes[i * branches + branch]))
    })
}
