//! The images of a data set that are most like given ones, by the cosine of h.

use std::path::PathBuf;
use std::sync::Arc;

use simclr_data::{DataError, Dataset, DecodeOptions, DecodeScratch, Decoded, Reading, Region, decode_file};
use simclr_metrics::{Features, NearestSoFar};
use simclr_train::{Embedding, Model};

use crate::EvalError;
use crate::embedding::{Broken, Images, Split, StoredFeatures, for_each_batch};

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// For each query the images most like it, most similar first, of equals the earlier one.
    pub neighbours: Vec<Vec<Neighbour>>,
    /// Images looked at.
    pub images: usize,
    /// Images that could not be read.
    pub broken: Vec<Broken>,
}

/// An image like a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its number among the images, or its row.
    pub image: u32,
    /// The cosine of its h and the query's, in [-1, 1] up to rounding.
    pub similarity: f32,
}

/// The `k` of `images` that are most like each of `queries` ([`Queries`] of files, or any other data set), fewer where there are not so many. Nothing is held of the
/// others. `each` is told after every batch how many images are done.
///
/// # Errors
/// A query that cannot be read, [`EvalError::NoImages`], an image that cannot be read where reading is strict, a
/// `k` of 0.
pub fn search(
    model: &Model,
    queries: &Arc<dyn Dataset>,
    images: &Images,
    k: usize,
    reading: Reading,
    each: &mut dyn FnMut(usize),
) -> Result<Found, EvalError> {
    let (mut nearest, dim) = begun(model, queries, k, reading)?;
    let mut indices = Vec::new();
    let (count, broken) = for_each_batch(model, images, reading, &mut |batch, done| {
        nearest.add(Features::new(batch.h, dim)?)?;
        indices.extend_from_slice(batch.indices);
        each(done);
        Ok(())
    })?;
    Ok(Found { neighbours: listed(nearest, &indices)?, images: count, broken })
}

/// The same among features that were written before, of all images or those of one part.
///
/// # Errors
/// A query that cannot be read, [`EvalError::NoFeatures`], [`EvalError::NoSplit`], a `k` of 0.
pub fn search_stored(
    model: &Model,
    queries: &Arc<dyn Dataset>,
    (stored, only): (&StoredFeatures, Option<Split>),
    k: usize,
    reading: Reading,
) -> Result<Found, EvalError> {
    let rows = stored.of(only)?;
    let (mut nearest, dim) = begun(model, queries, k, reading)?;
    let (mut first, mut wanted) = (0, rows.as_slice());
    stored.for_each_group(dim, &mut |group| {
        let count = group.len() / dim;
        let (here, later) = wanted.split_at(wanted.partition_point(|&row| (row as usize) < first + count));
        if here.len() == count {
            nearest.add(Features::new(group, dim)?)?;
        } else {
            let of = |&row: &u32| &group[(row as usize - first) * dim..][..dim];
            nearest.add(Features::new(&here.iter().flat_map(of).copied().collect::<Vec<f32>>(), dim)?)?;
        }
        (first, wanted) = (first + count, later);
        Ok(())
    })?;
    Ok(Found { neighbours: listed(nearest, &rows)?, images: rows.len(), broken: Vec::new() })
}

/// A search for queries among rows of so many values.
fn begun(
    model: &Model,
    queries: &Arc<dyn Dataset>,
    k: usize,
    reading: Reading,
) -> Result<(NearestSoFar, usize), EvalError> {
    let asked = Embedding::of(model, queries, false, Reading { strict: true, ..reading }, &mut |_| ())?;
    Ok((NearestSoFar::new(asked.features()?, k)?, asked.h_dim))
}

/// What was found, by the numbers of the images that came, in their order.
fn listed(nearest: NearestSoFar, images: &[u32]) -> Result<Vec<Vec<Neighbour>>, EvalError> {
    let nearest = nearest.finish()?;
    let neighbours = (0..nearest.queries()).map(|query| {
        let found = nearest.indices(query).iter().zip(nearest.similarities(query));
        found.map(|(&row, &similarity)| Neighbour { image: images[row as usize], similarity }).collect()
    });
    Ok(neighbours.collect())
}

/// Image files to search for, as a data set.
#[derive(Clone, Debug)]
pub struct Queries {
    /// The files.
    pub files: Vec<PathBuf>,
    /// How they are decoded: as the encoder's own images were.
    pub decode: DecodeOptions,
}

impl Dataset for Queries {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> Option<u32> {
        None
    }

    fn name(&self, index: usize) -> String {
        self.files[index].display().to_string()
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        _: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        decode_file(&self.files[index], &self.decode, scratch)
    }
}
