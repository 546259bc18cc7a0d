//! The weighted nearest-neighbour classifier by which self-supervised encoders are judged.

use crate::error::{check_labels, check_temperature};
use crate::{Features, MetricsError, Neighbours, nearest_neighbours};
use rayon::prelude::*;

/// A kNN classifier: each of the `k` most similar training images votes for its class with weight
/// exp(s / temperature), where s is its cosine similarity (Wu et al. 2018, section 3.4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knn {
    /// How many neighbours vote; all training images if there are fewer.
    pub k: usize,
    /// The temperature of the weights, above 0.
    pub temperature: f64,
}

impl Default for Knn {
    /// k = 200, temperature 0.1.
    fn default() -> Self {
        Knn { k: 200, temperature: 0.1 }
    }
}

/// The result of a kNN classifier on a test set.
#[derive(Debug, Clone, PartialEq)]
pub struct KnnOutcome {
    /// Fraction of test images whose class got the most votes.
    pub top1: f64,
    /// Fraction whose class is among the five with the most votes. A class without votes is never among them.
    pub top5: f64,
    /// The class with the most votes, for every test image; in a tie, the one with the lowest number.
    pub predictions: Vec<u32>,
}

impl Knn {
    /// The usual classifier for `images` training images: k is a tenth of them, at least one and at most the 200 that
    /// the field reports, which it reaches at 2,000 images. Among few images, the nearest should decide, not the class
    /// with the most images.
    pub fn among(images: usize) -> Knn {
        let usual = Knn::default();
        Knn { k: (images / 10).clamp(1, usual.k), ..usual }
    }

    /// Classifies the test features and compares the predictions with their labels.
    ///
    /// # Errors
    /// No training or no test rows, labels that do not fit the rows or the classes, `k` 0, or a temperature that is
    /// not above 0.
    pub fn evaluate(
        &self,
        train: Features,
        train_labels: &[u32],
        test: Features,
        test_labels: &[u32],
        classes: usize,
    ) -> Result<KnnOutcome, MetricsError> {
        self.outcome(&nearest_neighbours(test, train, self.k)?, train_labels, test_labels, classes)
    }

    /// As [`Knn::evaluate`], with the [`Knn::k`] training rows nearest to each test row found before
    /// ([`NearestSoFar`](crate::NearestSoFar)).
    ///
    /// # Errors
    /// Those of [`Knn::evaluate`].
    pub fn outcome(
        &self,
        nearest: &Neighbours,
        train_labels: &[u32],
        test_labels: &[u32],
        classes: usize,
    ) -> Result<KnnOutcome, MetricsError> {
        let rows = test_labels.len();
        check_labels(nearest.queries(), test_labels, classes)?;
        if rows == 0 {
            return Err(MetricsError::TooFew { what: "test rows", least: 1, got: 0 });
        }
        let ranked = self.ranked(nearest, train_labels, classes)?;
        let hits = |depth: usize| {
            let found = ranked
                .iter()
                .zip(test_labels)
                .filter(|(best, label)| best.iter().take(depth).any(|b| b == *label));
            found.count() as f64 / rows as f64
        };
        Ok(KnnOutcome {
            top1: hits(1),
            top5: hits(5),
            predictions: ranked.iter().map(|best| best[0]).collect(),
        })
    }

    /// For every query, up to five classes with the most votes, best first; never empty.
    ///
    /// # Errors
    /// Those of [`Knn::evaluate`] that concern the training set and the settings.
    pub fn rank(
        &self,
        train: Features,
        train_labels: &[u32],
        queries: Features,
        classes: usize,
    ) -> Result<Vec<Vec<u32>>, MetricsError> {
        check_labels(train.rows(), train_labels, classes)?;
        self.ranked(&nearest_neighbours(queries, train, self.k)?, train_labels, classes)
    }

    fn ranked(
        &self,
        nearest: &Neighbours,
        train_labels: &[u32],
        classes: usize,
    ) -> Result<Vec<Vec<u32>>, MetricsError> {
        check_labels(nearest.rows(), train_labels, classes)?;
        check_temperature(self.temperature)?;
        let ranked = (0..nearest.queries()).into_par_iter().with_min_len(64).map_init(
            || vec![0f64; classes],
            |votes, query| {
                votes.fill(0.0);
                let similarities = nearest.similarities(query);
                for (&index, &similarity) in nearest.indices(query).iter().zip(similarities) {
                    // Relative to the nearest, so that no temperature makes it overflow; the ranking is the same.
                    let less = f64::from(similarity) - f64::from(similarities[0]);
                    votes[train_labels[index as usize] as usize] += (less / self.temperature).exp();
                }
                best_five(votes)
            },
        );
        Ok(ranked.collect())
    }
}

/// The classes of the five largest of `votes` above 0, largest first; in a tie, the lower class first.
fn best_five(votes: &[f64]) -> Vec<u32> {
    let mut best: Vec<u32> = Vec::with_capacity(6);
    for (class, &vote) in votes.iter().enumerate().filter(|(_, vote)| **vote > 0.0) {
        let place = best.partition_point(|&b| votes[b as usize] >= vote);
        if place < 5 {
            best.insert(place, class as u32);
            best.truncate(5);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_images_have_few_neighbours() {
        assert_eq!(Knn::default(), Knn { k: 200, temperature: 0.1 });
        for (images, k) in
            [(0, 1), (1, 1), (19, 1), (20, 2), (399, 39), (400, 40), (1999, 199), (2000, 200), (50_000, 200)]
        {
            assert_eq!(Knn::among(images), Knn { k, ..Knn::default() }, "{images}");
        }
    }

    #[test]
    fn near_votes_outweigh_many() {
        // One neighbour of class 1 at similarity 1, three of class 0 at 0.6: e^10 against 3 e^6.
        let train = [1.0, 0.0, 0.6, 0.8, 0.6, 0.8, 0.6, -0.8];
        let knn = Knn { k: 4, temperature: 0.1 };
        let train = Features::new(&train, 2).unwrap();
        let query = Features::new(&[2.0, 0.0], 2).unwrap();
        let outcome = knn.evaluate(train, &[1, 0, 0, 0], query, &[1], 2).unwrap();
        assert_eq!(outcome, KnnOutcome { top1: 1.0, top5: 1.0, predictions: vec![1] });
        // At a high temperature all neighbours count alike.
        let flat = Knn { k: 4, temperature: 100.0 };
        let outcome = flat.evaluate(train, &[1, 0, 0, 0], query, &[1], 2).unwrap();
        assert_eq!((outcome.top1, outcome.top5), (0.0, 1.0));
    }

    #[test]
    fn a_class_without_votes_is_not_among_the_five() {
        let train = Features::new(&[1.0, 0.9], 1).unwrap();
        let test = Features::new(&[1.0, 1.0], 1).unwrap();
        let outcome = Knn::default().evaluate(train, &[3, 3], test, &[3, 0], 4).unwrap();
        assert_eq!((outcome.top1, outcome.top5), (0.5, 0.5));
    }

    #[test]
    fn a_tiny_temperature_does_not_overflow() {
        let train = Features::new(&[1.0, 0.0, 0.0, 1.0], 2).unwrap();
        let test = Features::new(&[0.1, 1.0], 2).unwrap();
        let knn = Knn { k: 2, temperature: 1e-6 };
        assert_eq!(knn.evaluate(train, &[0, 1], test, &[1], 2).unwrap().top1, 1.0);
    }

    #[test]
    fn refuses_labels_and_settings_that_do_not_fit() {
        let rows = Features::new(&[1.0, 2.0], 1).unwrap();
        let knn = Knn::default();
        let label = knn.evaluate(rows, &[0, 5], rows, &[0, 1], 2).unwrap_err();
        assert_eq!(label.to_string(), "labels: row 1 is of class 5, but there are 2 classes (0 to 1)");
        assert!(knn.evaluate(rows, &[0], rows, &[0, 1], 2).is_err());
        assert!(knn.evaluate(rows, &[0, 1], Features::new(&[], 1).unwrap(), &[], 2).is_err());
        assert!(Knn { k: 0, ..knn }.evaluate(rows, &[0, 1], rows, &[0, 1], 2).is_err());
        assert!(Knn { temperature: 0.0, ..knn }.evaluate(rows, &[0, 1], rows, &[0, 1], 2).is_err());
    }
}
