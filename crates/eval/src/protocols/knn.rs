//! The nearest-neighbour protocol: nothing is trained, so it is the quickest and has no settings to get wrong.

use std::time::Instant;

use serde_json::{Map, json};
use simclr_metrics::Knn;

use super::encode::Encoded;
use super::evaluation::{BrokenImage, Counts, Evaluation, Scores};
use super::versus::Versus;
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
        let own = start.elapsed().as_secs_f64();
        seconds += own + encoded.seconds;
        let details = Map::from_iter([
            ("k".to_owned(), json!(options.k.min(train.labels.len()))),
            ("temperature".to_owned(), json!(options.temperature)),
            ("encoding_s".to_owned(), json!(encoded.seconds)),
            ("classifier_s".to_owned(), json!(own)),
        ]);
        Scores::of_predictions(&outcome.predictions, outcome.top5, &test.labels, &encoded.classes, details)
    })?;
    Ok(Evaluation::new("knn", Counts::of(&encoded.trained), scores, seconds))
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
