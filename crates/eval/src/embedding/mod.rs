//! The features of images, in a file that other programs can read: a row per image, in the order of the data set.
//!
//! ```text
//! Source ─▶ Images ─┐                        ┌─▶ parquet      features.parquet
//! TrainedEncoder ───┴─▶ embed ─▶ dyn Writer ─┼─▶ npy          features.npy          + features.npy.csv
//!                                            └─▶ safetensors  features.safetensors  + features.safetensors.csv
//! ```
//!
//! Rows are written as they are computed; at most an image's label stays in memory. A file appears whole or not at
//! all.

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

/// Metadata of a file, in formats that have a place for it.
mod notes {
    use simclr_train::{Model, TrainError};

    pub const FEATURES: &str = "features";
    /// The value of [`FEATURES`] for h.
    pub const OF_H: &str = "h";
    /// The names of the classes, as JSON.
    pub const CLASSES: &str = "classes";
    pub const FINGERPRINT: &str = "fingerprint";
    pub const STEP: &str = "step";

    /// A checksum that tells encoders apart.
    pub fn fingerprint(model: &Model) -> Result<String, TrainError> {
        Ok(format!("{:08x}", model.fingerprint()?))
    }
}

/// Which vector of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// The output of the encoder, for all downstream uses.
    H,
    /// The output of the projection head for h.
    Z,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// Its number of rows.
    pub images: usize,
    /// Values per row.
    pub dim: usize,
    /// The images that could not be read, which have no row.
    pub broken: Vec<Broken>,
}

/// Writes the output of `encoder` for the central crops of all `images` to `path`, in the given [`FileFormat`]. The
/// bits are the same for any number of threads.
///
/// After every batch `watch` gets the number of images done, and may stop the work: then no file is written.
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

/// Runs all `images` through `model` and hands the output to `sink`, batch by batch, with the number of images done so
/// far. Returns their final number and the images that could not be read.
///
/// # Errors
/// [`EvalError::NoImages`], the first error of `sink`; an image that cannot be read where reading is strict.
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
