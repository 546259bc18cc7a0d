//! What a model makes of a whole data set.

use std::sync::Arc;

use simclr_data::{Dataset, EvalLoader, Reading, Skipped};

use crate::{Model, TrainError};

/// h, and z where asked for, of the central crops of a data set's images, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedding {
    /// Row-major, `h_dim` values an image.
    pub h: Vec<f32>,
    /// The width of h.
    pub h_dim: usize,
    /// Row-major, `z_dim` values an image; empty where it was not asked for.
    pub z: Vec<f32>,
    /// The width of z.
    pub z_dim: usize,
    /// The image of each row, as the data set numbers it.
    pub indices: Vec<u32>,
    /// The label of each row, [`simclr_data::NO_LABEL`] for an image without; empty when the data set is unlabelled.
    pub labels: Vec<u32>,
    /// The broken images, which have no row.
    pub skipped: Vec<Skipped>,
}

impl Embedding {
    /// Runs every image of `dataset` through `model`, BatchNorm by its running averages. `each` is told after every batch how many images are done.
    ///
    /// The same bits for any number of threads.
    pub fn of(
        model: &Model,
        dataset: &Arc<dyn Dataset>,
        with_z: bool,
        reading: Reading,
        each: &mut dyn FnMut(usize),
    ) -> Result<Embedding, TrainError> {
        let (h_dim, z_dim) = (model.encoder.features(), model.head.dim());
        let mut all = Embedding { h_dim, z_dim, ..Embedding::default() };
        all.h.reserve_exact(dataset.len() * h_dim);
        let mut loader =
            EvalLoader::new(dataset.clone(), model.image_size() as u32, model.images_at_once(), reading);
        while let Some(batch) = loader.next_batch()? {
            let (h, z) = model.embed(&batch.views)?;
            all.h.extend_from_slice(&h);
            if with_z {
                all.z.extend_from_slice(&z);
            }
            all.indices.extend_from_slice(&batch.indices);
            all.labels.extend_from_slice(&batch.labels);
            loader.recycle(batch);
            each(all.indices.len());
        }
        all.skipped = loader.skipped();
        Ok(all)
    }
}
