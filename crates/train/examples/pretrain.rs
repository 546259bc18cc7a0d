//! Pretrains on images in memory, resumes from the newest checkpoint, and evaluates h with nearest neighbours:
//! `cargo run --release -p simclr-train --example pretrain -- RUN`.

use std::path::PathBuf;
use std::sync::Arc;

use simclr_augment::Stream;
use simclr_data::{DataError, Dataset, InMemory, Reading};
use simclr_metrics::Knn;
use simclr_train::pretrain::{EpochRecord, Observer, Resumed, pretrain, resume};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Embedding, Layers, Model};

const CLASSES: [&str; 3] = ["red", "green", "blue"];

/// Noise around a colour.
fn images(count: u32) -> Result<InMemory, DataError> {
    let image = |index: u32| {
        let mut stream = Stream::new(1, 0, u64::from(index), 0);
        let bright = |channel: u32| if channel == index % 3 { 90 } else { 0 };
        let pixels = (0..40 * 36 * 3).map(|at| (bright(at % 3) + stream.below(160)) as u8);
        (40, 36, pixels.collect())
    };
    let labels = (0..count).map(|index| index % 3).collect();
    InMemory::new((0..count).map(image).collect())?.with_labels(labels, CLASSES.map(String::from).to_vec())
}

/// Prints how each epoch went.
struct Watch;

impl Observer for Watch {
    fn epoch(&mut self, record: &EpochRecord) {
        println!("epoch {}: loss {:.3}", record.epoch, record.train_loss);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: pretrain RUN")?;
    let images: Arc<dyn Dataset> = Arc::new(images(240)?);

    // A second call resumes the run of the first.
    let (run, config, from) = if RunFolder::exists(&path) {
        let Resumed { folder, config, from, .. } = resume(&path)?;
        (folder, config, from)
    } else {
        let sets =
            ["train.epochs=4", "train.batch=32", "encoder.width=0.25", "data.holdout=0"].map(String::from);
        let config = Config::resolve(&Layers { preset: Some("small"), sets: &sets, ..Layers::default() })?;
        (RunFolder::create(&path, &config)?, config, None)
    };
    // The first GPU, if one works and the crate has its feature `cuda`; else all cores.
    let device = config.device()?;
    let from = from.as_ref().map(|found| &found.checkpoint);
    let outcome = pretrain(&images, &config, &run, from, &device, &mut Watch)?;
    println!("{} steps", outcome.step);

    let newest = run.checkpoints(config.train.keep_checkpoints).latest_good()?.ok_or("no checkpoint")?;
    let (model, _) = Model::from_checkpoint(&newest.checkpoint, &device)?;
    let reading = Reading { threads: device.threads(), strict: true };
    let embedding = Embedding::of(&model, &images, false, reading, &mut |_| ())?;
    // Predict the classes of the even images from the odd ones.
    let half = |first: usize| embedding.select(&(first..images.len()).step_by(2).collect::<Vec<_>>());
    let (known, asked) = (half(1), half(0));
    let knn = Knn::among(known.indices.len());
    let outcome =
        knn.evaluate(known.features()?, &known.labels, asked.features()?, &asked.labels, CLASSES.len())?;
    println!("{:.1}% of the classes recognised", 100.0 * outcome.top1);
    Ok(())
}
