//! What an encoder makes of images, in a file that other programs read: a row an image, in the order of the data set.
//!
//! ```text
//! Source ─▶ Images ─┐                        ┌─▶ parquet      features.parquet
//! TrainedEncoder ───┴─▶ embed ─▶ dyn Writer ─┼─▶ npy          features.npy          + features.npy.csv
//!                                            └─▶ safetensors  features.safetensors  + features.safetensors.csv
//! ```
//!
//! Rows are written as they are computed; what is held of an image is its label at the most. A file comes whole or
//! not at all.

mod companion;
mod format;
mod images;
mod matrix;
mod npy;
mod parquet;
mod safetensors;
mod stored;

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::json;
use simclr_data::Reading;
use simclr_train::{EmbeddedBatch, Model, embed_images};

pub use format::FileFormat;
pub use images::{Broken, Image, Images, Split};
pub use stored::StoredFeatures;

use crate::EvalError;
use crate::protocols::TrainedEncoder;
use format::{Description, Rows};

/// What a file says of itself, where its format has a place for it.
mod notes {
    use simclr_train::{Model, TrainError};

    pub const FEATURES: &str = "features";
    /// The value of [`FEATURES`] where they are h.
    pub const OF_H: &str = "h";
    /// The names of the classes, as JSON.
    pub const CLASSES: &str = "classes";
    pub const FINGERPRINT: &str = "fingerprint";
    pub const STEP: &str = "step";

    /// What tells an encoder from another.
    pub fn fingerprint(model: &Model) -> Result<String, TrainError> {
        Ok(format!("{:08x}", model.fingerprint()?))
    }
}

/// Which of the two vectors of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// What the encoder makes of it, for all uses downstream.
    H,
    /// What the projection head makes of h.
    Z,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// Its rows.
    pub images: usize,
    /// Values a row.
    pub dim: usize,
    /// The images that could not be read, which have no row.
    pub broken: Vec<Broken>,
}

/// Writes what `encoder` makes of the central crops of all `images` to `path`, as its [`FileFormat`] has it. The
/// same bits for any number of threads.
///
/// `watch` is told after every batch how many images are done, and may end it: then nothing is written.
///
/// # Errors
/// [`EvalError::Write`], [`EvalError::Taken`], [`EvalError::NoImages`], [`EvalError::Stopped`]; an image that
/// cannot be read where reading is strict.
pub fn embed(
    encoder: &TrainedEncoder,
    images: &Images,
    vector: Vector,
    reading: Reading,
    (path, format): (&Path, FileFormat),
    watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Embedded, EvalError> {
    let model = &encoder.model;
    let dim = match vector {
        Vector::H => model.encoder.features(),
        Vector::Z => model.head.dim(),
    };
    let classes = images.dataset().classes();
    let mut writer = format.create(
        path,
        &Description {
            most_rows: images.dataset().len(),
            dim,
            notes: vec![
                (notes::FEATURES, if vector == Vector::H { notes::OF_H } else { "z" }.to_owned()),
                (notes::CLASSES, json!(classes).to_string()),
                (notes::FINGERPRINT, notes::fingerprint(model)?),
                (notes::STEP, encoder.step.to_string()),
            ],
        },
    )?;
    let (done, broken) = for_each_batch(model, images, reading, &mut |batch, done| {
        let features = if vector == Vector::H { batch.h } else { batch.z };
        let images = batch.indices.iter().map(|&index| images.image(index)).collect();
        writer.write(&Rows { features, images })?;
        match watch(done) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvalError::Stopped),
        }
    })?;
    writer.finish()?;
    Ok(Embedded { images: done, dim, broken })
}

/// Puts all `images` through `model` and hands `sink` what comes out, a batch at a time, with the number of images
/// done. Returns that number and the images that could not be read.
///
/// # Errors
/// [`EvalError::NoImages`], the first of `sink`; an image that cannot be read where reading is strict.
pub(crate) fn for_each_batch(
    model: &Model,
    images: &Images,
    reading: Reading,
    sink: &mut dyn FnMut(EmbeddedBatch<'_>, usize) -> Result<(), EvalError>,
) -> Result<(usize, Vec<Broken>), EvalError> {
    let mut done = 0;
    let skipped = embed_images::<EvalError>(model, images.dataset(), reading, &mut |batch| {
        done += batch.indices.len();
        sink(batch, done)
    })?;
    let broken = images.broken(skipped);
    if done == 0 {
        let first = broken.first().map(ToString::to_string);
        return Err(EvalError::NoImages { set: "given", images: images.dataset().len(), first });
    }
    Ok((done, broken))
}
