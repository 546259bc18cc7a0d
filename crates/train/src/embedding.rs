//! The embedding of a whole data set by a model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use simclr_data::{Dataset, EvalLoader, Reading, Skipped};
use simclr_engine::EngineError;
use simclr_metrics::{Features, MetricsError};

use crate::memory::available;
use crate::{Model, TrainError};

/// h, and z if requested, of the central crops of a data set's images, in the order of the data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedding {
    /// h, row-major, `h_dim` values per image.
    pub h: Vec<f32>,
    /// The width of h.
    pub h_dim: usize,
    /// z, row-major, `z_dim` values per image; empty if not requested.
    pub z: Vec<f32>,
    /// The width of z.
    pub z_dim: usize,
    /// The index in the data set of each row's image.
    pub indices: Vec<u32>,
    /// The label of each row, [`simclr_data::NO_LABEL`] where there is none; empty when the data set is unlabelled.
    pub labels: Vec<u32>,
    /// The broken images, which have no row.
    pub skipped: Vec<Skipped>,
}

/// The embedding of a batch of images by a model.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedBatch<'a> {
    /// How long it took: the time in the network, and an equal share, among the models that embed together, of the time
    /// waited for the images.
    pub took: Duration,
    /// h, row-major.
    pub h: &'a [f32],
    /// z, row-major.
    pub z: &'a [f32],
    /// The index in the data set of each row's image.
    pub indices: &'a [u32],
    /// The label of each row, [`simclr_data::NO_LABEL`] where there is none; empty when the data set is unlabelled.
    pub labels: &'a [u32],
}

/// Embeds the central crop of every image of `dataset` with `model`, using BatchNorm's running averages, and passes
/// each batch to `sink`, in the order of the data set, without keeping it. Returns the broken images, which have no
/// row.
///
/// The result is the same bit for bit for any number of threads.
///
/// # Errors
/// The first error of `sink`; an image that cannot be read, if reading is strict; errors of the network, and
/// [`TrainError::FeaturesNotFinite`].
pub fn embed_images<E: From<TrainError>>(
    model: &Model,
    dataset: &Arc<dyn Dataset>,
    reading: Reading,
    sink: &mut dyn FnMut(EmbeddedBatch<'_>) -> Result<(), E>,
) -> Result<Vec<Skipped>, E> {
    embed_images_by(&[model], dataset, reading, &mut |_, batch| sink(batch))
}

/// As [`embed_images`], with each of several models of the same image size: every image is read once for all of them.
/// `sink` gets each batch once for every model, with the number of the model, in the order of `models`.
///
/// # Errors
/// As [`embed_images`], and models of different image sizes.
pub fn embed_images_by<E: From<TrainError>>(
    models: &[&Model],
    dataset: &Arc<dyn Dataset>,
    reading: Reading,
    sink: &mut dyn FnMut(usize, EmbeddedBatch<'_>) -> Result<(), E>,
) -> Result<Vec<Skipped>, E> {
    let Some(first) = models.first() else { return Ok(Vec::new()) };
    let side = first.image_size();
    if let Some(other) = models.iter().map(|model| model.image_size()).find(|&other| other != side) {
        let op = "models that embed the same images";
        let (expected, got) = (format!("{side} x {side} pixels for each"), format!("{other} x {other}"));
        return Err(TrainError::from(EngineError::Shape { op, expected, got }).into());
    }
    let mut loader = EvalLoader::new(dataset.clone(), side as u32, first.images_at_once(), reading);
    let mut start = Instant::now();
    while let Some(batch) = loader.next_batch().map_err(TrainError::from)? {
        let waited = start.elapsed() / models.len() as u32;
        for (number, model) in models.iter().enumerate() {
            start = Instant::now();
            let (h, z) = model.embed(&batch.views)?;
            check_finite([&h, &z], dataset.as_ref(), &batch.indices)?;
            let took = start.elapsed() + waited;
            sink(
                number,
                EmbeddedBatch { took, h: &h, z: &z, indices: &batch.indices, labels: &batch.labels },
            )?;
        }
        start = Instant::now();
        loader.recycle(batch);
    }
    Ok(loader.skipped())
}

impl Embedding {
    /// Embeds every image of `dataset` as [`embed_images`] does, and keeps the results. Calls `each` after every batch
    /// with the number of images done.
    ///
    /// # Errors
    /// As [`embed_images`], and [`TrainError::FeaturesDoNotFit`] before anything is computed.
    pub fn of(
        model: &Model,
        dataset: &Arc<dyn Dataset>,
        with_z: bool,
        reading: Reading,
        each: &mut dyn FnMut(usize),
    ) -> Result<Embedding, TrainError> {
        let [(embedding, _)] = Embedding::of_each([model], dataset, with_z, reading, each)?;
        Ok(embedding)
    }

    /// As [`Embedding::of`], by each of several models of the same image size: every image is read once for all of
    /// them. Also returns how long each took ([`EmbeddedBatch::took`]).
    ///
    /// # Errors
    /// As [`Embedding::of`] and [`embed_images_by`].
    pub fn of_each<const N: usize>(
        models: [&Model; N],
        dataset: &Arc<dyn Dataset>,
        with_z: bool,
        reading: Reading,
        each: &mut dyn FnMut(usize),
    ) -> Result<[(Embedding, Duration); N], TrainError> {
        let mut all = models.map(|model| {
            let (h_dim, z_dim) = (model.encoder.features(), model.head.dim());
            (Embedding { h_dim, z_dim, ..Embedding::default() }, Duration::ZERO)
        });
        for (own, _) in &mut all {
            own.h = room_for(dataset.len(), own.h_dim)?;
        }
        let skipped = embed_images_by::<TrainError>(&models, dataset, reading, &mut |number, batch| {
            let (own, took) = &mut all[number];
            *took += batch.took;
            own.h.extend_from_slice(batch.h);
            if with_z {
                own.z.extend_from_slice(batch.z);
            }
            own.indices.extend_from_slice(batch.indices);
            own.labels.extend_from_slice(batch.labels);
            if number + 1 == N {
                each(own.indices.len());
            }
            Ok(())
        })?;
        all.iter_mut().for_each(|(own, _)| own.skipped.clone_from(&skipped));
        Ok(all)
    }

    /// Returns the given rows, in the order of `rows`.
    pub fn select(&self, rows: &[usize]) -> Embedding {
        let values = |all: &[f32], dim: usize| {
            let dim = if all.is_empty() { 0 } else { dim };
            let mut some = Vec::with_capacity(rows.len() * dim);
            rows.iter().for_each(|&row| some.extend_from_slice(&all[row * dim..][..dim]));
            some
        };
        let numbers = |all: &[u32]| match all.is_empty() {
            true => Vec::new(),
            false => rows.iter().map(|&row| all[row]).collect(),
        };
        Embedding {
            h: values(&self.h, self.h_dim),
            h_dim: self.h_dim,
            z: values(&self.z, self.z_dim),
            z_dim: self.z_dim,
            indices: numbers(&self.indices),
            labels: numbers(&self.labels),
            skipped: Vec::new(),
        }
    }

    /// Returns h as input for the metrics.
    ///
    /// # Errors
    /// A non-finite value.
    pub fn features(&self) -> Result<Features<'_>, MetricsError> {
        Features::new(&self.h, self.h_dim)
    }
}

/// Checks that the outputs `made` of the images `indices` of `dataset`, a row each, are finite.
///
/// # Errors
/// [`TrainError::FeaturesNotFinite`].
pub(crate) fn check_finite(
    made: [&[f32]; 2],
    dataset: &dyn Dataset,
    indices: &[u32],
) -> Result<(), TrainError> {
    match made.into_iter().find_map(|values| first_not_finite(values, indices.len())) {
        Some(row) => Err(TrainError::FeaturesNotFinite { image: dataset.name(indices[row] as usize) }),
        None => Ok(()),
    }
}

/// Returns the first of `rows` rows with a non-finite value.
fn first_not_finite(values: &[f32], rows: usize) -> Option<usize> {
    let at = values.iter().position(|value| !value.is_finite())?;
    Some(at / (values.len() / rows).max(1))
}

/// Allocates an empty vector with room for `width` values per image.
fn room_for(images: usize, width: usize) -> Result<Vec<f32>, TrainError> {
    let (mut values, count) = (Vec::new(), images.saturating_mul(width));
    values.try_reserve_exact(count).map_err(|_| TrainError::FeaturesDoNotFit {
        images,
        needed: (count as u64).saturating_mul(size_of::<f32>() as u64),
        available: available(),
    })?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use simclr_engine::Device;

    use super::*;

    #[test]
    fn the_first_row_that_is_not_finite_is_found() {
        let mut values = [0.5_f32; 12];
        assert_eq!(first_not_finite(&values, 4), None);
        assert_eq!(first_not_finite(&[], 0), None);
        values[7] = f32::INFINITY;
        assert_eq!(first_not_finite(&values, 4), Some(2));
        values[2] = f32::NAN;
        assert_eq!(first_not_finite(&values, 4), Some(0));
    }

    #[test]
    fn rows_are_selected_with_what_there_is_of_them() {
        let all = Embedding {
            h: (0..6).map(|value| value as f32).collect(),
            h_dim: 2,
            z_dim: 3,
            indices: vec![4, 5, 6],
            ..Embedding::default()
        };
        let some = all.select(&[2, 0]);
        assert_eq!((some.h, some.indices), (vec![4.0, 5.0, 0.0, 1.0], vec![6, 4]));
        assert!(some.z.is_empty() && some.labels.is_empty());
    }

    #[test]
    fn bytes_are_whole_images_or_none() {
        let mut config = crate::Config::default();
        config.encoder.width = 0.0625;
        config.data.image_size = 16;
        let model = Model::new(&config, &Device::cpu(1).unwrap()).unwrap();
        assert_eq!(model.embed(&[]).unwrap(), (Vec::new(), Vec::new()));
        assert_eq!(model.embed(&[7; 2 * 768]).unwrap().0.len(), 2 * model.encoder.features());
        for bytes in [&[7; 767][..], &[7; 769]] {
            let error = model.embed(bytes).unwrap_err().to_string();
            let got = bytes.len();
            assert_eq!(
                error,
                format!("images: expected images of 16 x 16 x 3 = 768 bytes each, got {got} bytes")
            );
        }
    }

    #[test]
    fn features_that_do_not_fit_are_refused() {
        assert!(room_for(1000, 512).unwrap().capacity() >= 512_000);
        let error = room_for(1 << 50, 2048).unwrap_err().to_string();
        assert!(error.contains("of 1,125,899,906,842,624 images take 9223372036.85 GB of memory"), "{error}");
    }
}
