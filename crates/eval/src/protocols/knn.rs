//! The nearest-neighbour protocol: nothing is trained, so it is the quickest and has no settings to get wrong.

use std::iter::once;
use std::mem::take;
use std::time::{Duration, Instant};

use serde_json::{Map, json};
use simclr_metrics::{Features, Knn, KnnOutcome, NearestSoFar, Neighbours};
use simclr_train::{EmbeddedBatch, Embedding, Model, embed_images_by};

use super::encode::{Encoded, encode_both, some_could_be_read};
use super::evaluation::{BrokenImage, Counts, Evaluation, Scores};
use super::protocol::Protocol;
use super::splits::Splits;
use super::versus::{Progress, Side, Versus};
use crate::{EvalError, Targets};

/// Classifies every test image by its most similar training images: `Knn::default()` is k = 200, cosine similarity s,
/// votes weighted by exp(s / 0.1) (arXiv:1805.01978, section 3.4); for fewer than 2,000 training images use
/// [`Knn::among`].
///
/// # Errors
/// k of 0, a temperature that is not above 0, features that are not finite.
pub fn knn(encoded: &Versus<Encoded>, options: &Knn) -> Result<Evaluation, EvalError> {
    let mut seconds = 0.0;
    let scores = encoded.try_map(|_, encoded| {
        let start = Instant::now();
        let (train, test) = (&encoded.train, &encoded.test);
        let outcome = options.evaluate(
            encoded.train_features()?,
            &train.labels,
            encoded.test_features()?,
            &test.labels,
            encoded.classes.len(),
        )?;
        let times = [encoded.seconds, start.elapsed().as_secs_f64()];
        seconds += times.iter().sum::<f64>();
        scores(options, &outcome, [&train.labels, &test.labels], &encoded.classes, times)
    })?;
    Ok(Evaluation::new(Protocol::Knn, Counts::of(&encoded.trained), scores, seconds))
}

/// As [`knn`] of the [`encode`](super::encode)d images, to the same bits, without keeping the features of the training
/// images: a few thousand at a time are compared with those of the test images, which are encoded first.
///
/// # Errors
/// Those of [`encode`](super::encode) and of [`knn`].
pub fn knn_of_images(
    models: &Versus<Model>,
    data: &Splits,
    options: &Knn,
    watch: &mut dyn FnMut(Progress),
) -> Result<Evaluation, EvalError> {
    let (reading, classes) = (data.reading(&models.trained), data.classes());
    let mut tested = encode_both("test", models, data.test(), false, reading, watch)?;
    let (test, _) = &mut tested.trained;
    let (test_labels, test_skipped) = (take(&mut test.labels), take(&mut test.skipped));
    let mut searches = tested.map(|(test, took)| Search::new(&test, took, options.k)).transpose()?;

    let (set, images) = ("training", data.train().len());
    let side = if models.random.is_some() { None } else { Some(Side::Trained) };
    let both: Vec<&Model> = once(&models.trained).chain(&models.random).collect();
    let mut each: Vec<&mut Search> = once(&mut searches.trained).chain(&mut searches.random).collect();
    let mut labels = Vec::with_capacity(images);
    let skipped = embed_images_by::<EvalError>(&both, data.train(), reading, &mut |number, batch| {
        if number == 0 {
            labels.extend_from_slice(batch.labels);
        }
        each[number].add(&batch)?;
        if number + 1 == both.len() {
            watch(Progress::Encoding { side, set, done: labels.len(), images });
        }
        Ok(())
    })?;
    some_could_be_read(set, labels.len(), images, &skipped)?;

    let mut seconds = 0.0;
    let of = |search: Search| {
        let (nearest, [encoding, searching]) = search.finish()?;
        let start = Instant::now();
        let outcome = options.outcome(&nearest, &labels, &test_labels, classes.len())?;
        let times = [encoding, searching + start.elapsed()].map(|time| time.as_secs_f64());
        seconds += times.iter().sum::<f64>();
        scores(options, &outcome, [&labels, &test_labels], classes, times)
    };
    let scores = searches.map(of).transpose()?;
    let counts = Counts {
        train: labels.len(),
        test: test_labels.len(),
        broken: BrokenImage::all(&skipped, &test_skipped),
        unlearnt: Targets::One(labels).missing(classes),
    };
    Ok(Evaluation::new(Protocol::Knn, counts, scores, seconds))
}

/// The scores of an outcome, with the labels of the training and the test images. The times are those of encoding and
/// of classifying, in seconds.
fn scores(
    options: &Knn,
    outcome: &KnnOutcome,
    [train, test]: [&[u32]; 2],
    classes: &[String],
    [encoding, classifying]: [f64; 2],
) -> Result<Scores, EvalError> {
    let details = Map::from_iter([
        ("k".to_owned(), json!(options.k.min(train.len()))),
        ("temperature".to_owned(), json!(options.temperature)),
        ("encoding_s".to_owned(), json!(encoding)),
        ("classifier_s".to_owned(), json!(classifying)),
    ]);
    Scores::of_predictions(&outcome.predictions, outcome.top5, test, classes, details)
}

/// The search for the training images nearest to the test images, by one encoder.
struct Search {
    nearest: NearestSoFar,
    dim: usize,
    /// Features of training images that do not fill a block yet.
    waiting: Vec<f32>,
    encoding: Duration,
    searching: Duration,
}

impl Search {
    /// For the test images, which took so long to encode.
    fn new(test: &Embedding, encoding: Duration, k: usize) -> Result<Search, EvalError> {
        let nearest = NearestSoFar::new(test.features()?, k)?;
        Ok(Search { nearest, dim: test.h_dim, waiting: Vec::new(), encoding, searching: Duration::ZERO })
    }

    fn add(&mut self, batch: &EmbeddedBatch<'_>) -> Result<(), EvalError> {
        self.encoding += batch.took;
        self.waiting.extend_from_slice(batch.h);
        // In whole blocks, so that the bits are those of all rows at once.
        let block = NearestSoFar::block_rows(self.dim) * self.dim;
        while self.waiting.len() >= block {
            self.search(block)?;
        }
        Ok(())
    }

    /// Searches the first `values` of those waiting.
    fn search(&mut self, values: usize) -> Result<(), EvalError> {
        let start = Instant::now();
        self.nearest.add(Features::new(&self.waiting[..values], self.dim)?)?;
        self.waiting.drain(..values);
        self.searching += start.elapsed();
        Ok(())
    }

    /// The neighbours, and how long encoding and searching took.
    fn finish(mut self) -> Result<(Neighbours, [Duration; 2]), EvalError> {
        self.search(self.waiting.len())?;
        let start = Instant::now();
        let nearest = self.nearest.finish()?;
        Ok((nearest, [self.encoding, self.searching + start.elapsed()]))
    }
}

impl Counts {
    pub(super) fn of(encoded: &Encoded) -> Counts {
        let Encoded { train, test, classes, .. } = encoded;
        Counts {
            train: train.labels.len(),
            test: test.labels.len(),
            broken: BrokenImage::all(&train.skipped, &test.skipped),
            unlearnt: Targets::One(train.labels.clone()).missing(classes),
        }
    }
}

#[cfg(test)]
mod tests {
    use simclr_metrics::nearest_neighbours;

    use super::*;

    #[test]
    fn blocks_are_searched_as_they_fill() {
        let dim = 20_000;
        let rows = NearestSoFar::block_rows(dim) + 100;
        let h: Vec<f32> =
            (0..rows * dim).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as f32 % 97.0 - 48.0).collect();
        let test = Embedding { h: h[..3 * dim].to_vec(), h_dim: dim, ..Embedding::default() };
        let mut search = Search::new(&test, Duration::ZERO, 5).unwrap();
        for h in h.chunks(100 * dim) {
            let took = Duration::from_secs(1);
            search.add(&EmbeddedBatch { took, h, z: &[], indices: &[], labels: &[] }).unwrap();
        }
        assert!(search.waiting.len() < NearestSoFar::block_rows(dim) * dim);
        let (nearest, [encoding, _]) = search.finish().unwrap();
        assert_eq!(encoding, Duration::from_secs(rows.div_ceil(100) as u64));
        let all = Features::new(&h, dim).unwrap();
        assert_eq!(nearest, nearest_neighbours(test.features().unwrap(), all, 5).unwrap());
    }
}
