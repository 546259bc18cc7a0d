//! The linear protocol by logistic regression, on features that are computed once.

use std::cmp::Ordering;
use std::time::Instant;

use serde_json::{Map, json};
use simclr_engine::Device;
use simclr_train::Embedding;

use super::choice::FEW_TO_CHOOSE_BY;
use super::encode::Encoded;
use super::evaluation::{Counts, Evaluation, Scores};
use super::protocol::{Protocol, Representation};
use super::splits::check_fraction;
use super::stratify::stratify;
use super::versus::{Progress, Versus};
use crate::logistic::{Labelled, PathOptions, fit_path};
use crate::{EvalError, Targets};

/// Settings of [`logistic`].
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticOptions {
    /// The share of every class's training images on which the L2 weight is chosen.
    pub validation: f64,
    /// Seed of the draw of those images.
    pub seed: u64,
}

impl Default for LogisticOptions {
    /// A tenth for validation.
    fn default() -> Self {
        LogisticOptions { validation: 0.1, seed: 0 }
    }
}

/// Fits a classifier on standardised h by L-BFGS with each of 45 L2 weights from 1e-6 to 1e5, keeps the weight that
/// does best on a stratified validation split of the training images, and refits on all of them (arXiv:2002.05709,
/// B.8). The sums over images run on `device`. Images with bit-identical h, such as copies, stay on one side of the
/// split, unless that leaves nothing to choose by.
///
/// # Errors
/// [`EvalError::TooFewToSplit`], options out of range, features that are not finite, a GPU that fails.
pub fn logistic(
    device: &Device,
    encoded: &Versus<Encoded>,
    options: &LogisticOptions,
    watch: &mut dyn FnMut(Progress),
) -> Result<Evaluation, EvalError> {
    check_fraction("the share of validation images", options.validation)?;
    let mut seconds = 0.0;
    let scores = encoded.try_map(|side, encoded| {
        let start = Instant::now();
        let (labels, same) = (&encoded.train.labels, same_images(&encoded.train));
        let (mut rest, mut part) = stratify(labels, &same, options.validation, options.seed);
        if part.is_empty() {
            // A collapsed encoder gives all images the same h, and these nothing away to each other: it is at chance.
            (rest, part) = stratify(labels, &[], options.validation, options.seed);
        }
        if part.is_empty() {
            return Err(EvalError::TooFewToSplit { purpose: "choose the L2 weight on some of them" });
        }
        let (train, validation) = (Rows::of(&encoded.train, &rest), Rows::of(&encoded.train, &part));
        let path = PathOptions::default();
        let mut fitting = |tried, weights| watch(Progress::Fitting { side, tried, weights });
        let (train, validation) = (train.labelled()?, validation.labelled()?);
        let outcome = fit_path(device, train, validation, encoded.classes.len(), &path, &mut fitting)?;
        let scores = outcome.model.scores(encoded.test_features()?)?;
        let own = start.elapsed().as_secs_f64();
        seconds += own + encoded.seconds;
        let details = Map::from_iter([
            ("l2".to_owned(), json!(outcome.chosen.l2)),
            ("validation_top1".to_owned(), json!(outcome.chosen.score)),
            ("validation_images".to_owned(), json!(part.len())),
            ("few_validation_images".to_owned(), json!(part.len() < FEW_TO_CHOOSE_BY)),
            ("weights_tried".to_owned(), json!(outcome.tried.len())),
            ("seed".to_owned(), json!(options.seed)),
            ("encoding_s".to_owned(), json!(encoded.seconds)),
            ("classifier_s".to_owned(), json!(own)),
        ]);
        Scores::of_scores(&scores, &encoded.test.labels, &encoded.classes, details)
    })?;
    Ok(Evaluation::new(Protocol::Logistic(Representation::H), Counts::of(&encoded.trained), scores, seconds))
}

/// As [`logistic`], on z in place of h.
///
/// # Errors
/// As [`logistic`], and if the images were encoded without z.
pub fn logistic_z(
    device: &Device,
    encoded: &Versus<Encoded>,
    options: &LogisticOptions,
    watch: &mut dyn FnMut(Progress),
) -> Result<Evaluation, EvalError> {
    let projected = encoded.try_map(|_, encoded| {
        let (found, expected) = ("without z".to_owned(), "one with z");
        encoded.projected().ok_or(EvalError::Option { name: "the encoding", found, expected })
    })?;
    let protocol = Protocol::Logistic(Representation::Z);
    Ok(Evaluation { protocol, ..logistic(device, &projected, options, watch)? })
}

/// Groups of rows with bit-identical h, each ascending.
fn same_images(embedding: &Embedding) -> Vec<Vec<u32>> {
    let row = |&row: &u32| &embedding.h[row as usize * embedding.h_dim..][..embedding.h_dim];
    let compare = |a: &u32, b: &u32| {
        let values = row(a).iter().zip(row(b));
        values.map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    };
    let mut rows: Vec<u32> = (0..embedding.indices.len() as u32).collect();
    rows.sort_unstable_by(|a, b| compare(a, b).then(a.cmp(b)));
    let groups = rows.chunk_by(|a, b| compare(a, b).is_eq()).filter(|group| group.len() > 1);
    groups.map(<[u32]>::to_vec).collect()
}

/// Some rows of an embedding.
struct Rows {
    embedding: Embedding,
    targets: Targets,
}

impl Rows {
    fn of(all: &Embedding, rows: &[usize]) -> Rows {
        let mut embedding = all.select(rows);
        let targets = Targets::One(std::mem::take(&mut embedding.labels));
        Rows { embedding, targets }
    }

    fn labelled(&self) -> Result<Labelled<'_>, EvalError> {
        Ok(Labelled { features: self.embedding.features()?, targets: &self.targets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_equal_features_are_the_same_image() {
        let h = vec![
            1.0, 0.0, /**/ 0.0, 2.0, /**/ 1.0, 0.0, /**/ 1.0, 0.5, /**/ 0.0, 2.0,
            /**/ 1.0, 0.0,
        ];
        let embedding = Embedding { h, h_dim: 2, indices: vec![4, 5, 6, 8, 9, 10], ..Embedding::default() };
        assert_eq!(same_images(&embedding), [vec![1, 4], vec![0, 2, 5]]);
    }
}
