//! The images of a data set most similar to given ones, by the cosine of h.

use std::path::PathBuf;
use std::sync::Arc;

use simclr_data::{DataError, Dataset, DecodeOptions, DecodeScratch, Decoded, Reading, Region, decode_file};
use simclr_metrics::{Features, NearestSoFar};
use simclr_train::{Embedding, Model};

use crate::EvalError;
use crate::embedding::{Broken, Images, Split, StoredFeatures, for_each_batch};

/// The result of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResults {
    /// For each query its nearest images, most similar first; of equally similar ones the earlier comes first.
    pub neighbours: Vec<Vec<Neighbour>>,
    /// Images searched.
    pub images: usize,
    /// Images that could not be read.
    pub broken: Vec<Broken>,
}

/// An image found for a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its index in the data set searched, or its row in a file of features.
    pub image: u32,
    /// The cosine of its h and the query's h, in [-1, 1] up to rounding.
    pub similarity: f32,
}

/// Finds the `k` of `images` most similar to each of `queries` ([`Queries`] for files, or any other data set), or all
/// where there are fewer. Keeps nothing of the other images. After every batch `each` gets the number of images done.
///
/// # Errors
/// A query that cannot be read, [`EvalError::NoImages`], an image that cannot be read where reading is strict, a `k`
/// of 0.
pub fn search(
    model: &Model,
    queries: &Arc<dyn Dataset>,
    images: &Images,
    k: usize,
    reading: Reading,
    each: &mut dyn FnMut(usize),
) -> Result<SearchResults, EvalError> {
    let (mut nearest, dim) = begun(model, queries, k, reading)?;
    let mut indices = Vec::new();
    let (count, broken) = for_each_batch(model, images, reading, &mut |batch, done| {
        nearest.add(Features::new(batch.h, dim)?)?;
        indices.extend_from_slice(batch.indices);
        each(done);
        Ok(())
    })?;
    Ok(SearchResults { neighbours: listed(nearest, &indices)?, images: count, broken })
}

/// As [`search`], among stored features: all of them, or those of one split.
///
/// # Errors
/// A query that cannot be read, [`EvalError::NoFeatures`], [`EvalError::NoSplit`], a `k` of 0.
pub fn search_stored(
    model: &Model,
    queries: &Arc<dyn Dataset>,
    (stored, only): (&StoredFeatures, Option<Split>),
    k: usize,
    reading: Reading,
) -> Result<SearchResults, EvalError> {
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
    Ok(SearchResults { neighbours: listed(nearest, &rows)?, images: rows.len(), broken: Vec::new() })
}

/// Encodes the queries. Returns the search for them and the width of h.
fn begun(
    model: &Model,
    queries: &Arc<dyn Dataset>,
    k: usize,
    reading: Reading,
) -> Result<(NearestSoFar, usize), EvalError> {
    let asked = Embedding::of(model, queries, false, Reading { strict: true, ..reading }, &mut |_| ())?;
    Ok((NearestSoFar::new(asked.features()?, k)?, asked.h_dim))
}

/// The neighbours found, as indices into `images`, which lists those searched in the order they were added.
fn listed(nearest: NearestSoFar, images: &[u32]) -> Result<Vec<Vec<Neighbour>>, EvalError> {
    let nearest = nearest.finish()?;
    let neighbours = (0..nearest.queries()).map(|query| {
        let found = nearest.indices(query).iter().zip(nearest.similarities(query));
        found.map(|(&row, &similarity)| Neighbour { image: images[row as usize], similarity }).collect()
    });
    Ok(neighbours.collect())
}

/// Image files as queries.
#[derive(Clone, Debug)]
pub struct Queries {
    /// The files.
    pub files: Vec<PathBuf>,
    /// How to decode them: as the encoder's own images were decoded.
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
