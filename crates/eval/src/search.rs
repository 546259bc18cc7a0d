//! The images of a data set that are most like given ones, by the cosine of h.

use std::path::PathBuf;
use std::sync::Arc;

use simclr_data::{DataError, Dataset, DecodeOptions, DecodeScratch, Decoded, Reading, Region, decode_file};
use simclr_metrics::{Features, NearestSoFar};
use simclr_train::{Embedding, Model};

use crate::EvalError;
use crate::embedding::{Broken, Images, for_each_batch};

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
    /// Its number among the images.
    pub image: u32,
    /// The cosine of its h and the query's, in [-1, 1] up to rounding.
    pub similarity: f32,
}

/// The `k` of `images` that are most like each query, fewer where there are not so many. Nothing is held of the
/// others. `each` is told after every batch how many images are done.
///
/// # Errors
/// A query that cannot be read, [`EvalError::NoImages`], an image that cannot be read where reading is strict, a
/// `k` of 0.
pub fn search(
    model: &Model,
    queries: Queries,
    images: &Images,
    k: usize,
    reading: Reading,
    each: &mut dyn FnMut(usize),
) -> Result<Found, EvalError> {
    let queries: Arc<dyn Dataset> = Arc::new(queries);
    let asked = Embedding::of(model, &queries, false, Reading { strict: true, ..reading }, &mut |_| ())?;
    let mut nearest = NearestSoFar::new(Features::new(&asked.h, asked.h_dim)?, k)?;
    let mut indices = Vec::new();
    let (count, broken) = for_each_batch(model, images, reading, &mut |batch, done| {
        nearest.add(Features::new(batch.h, asked.h_dim)?)?;
        indices.extend_from_slice(batch.indices);
        each(done);
        Ok(())
    })?;
    let nearest = nearest.finish()?;
    let neighbours = (0..nearest.queries()).map(|query| {
        let found = nearest.indices(query).iter().zip(nearest.similarities(query));
        found.map(|(&row, &similarity)| Neighbour { image: indices[row as usize], similarity }).collect()
    });
    Ok(Found { neighbours: neighbours.collect(), images: count, broken })
}

/// Image files to search for.
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
