//! How often predictions are right: top-k, per class, confusion.

use crate::MetricsError;
use crate::error::check_labels;

/// Fraction of `predictions` that equal their label; 0 where there are none.
///
/// # Errors
/// The two differ in length.
pub fn accuracy(predictions: &[u32], labels: &[u32]) -> Result<f64, MetricsError> {
    if predictions.len() != labels.len() {
        return Err(MetricsError::Shape {
            what: "predictions, one per label",
            expected: labels.len(),
            got: predictions.len(),
        });
    }
    let right = predictions.iter().zip(labels).filter(|(p, l)| p == l).count();
    Ok(right as f64 / labels.len().max(1) as f64)
}

/// The class of the highest score; of equals the lowest. 0 where there are no scores.
pub fn likeliest(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = class;
        }
    }
    best as u32
}

/// Fraction of rows whose label is among the `k` highest scores; 0 where there are no rows.
///
/// `scores` is row-major, one row of `classes` scores per label, higher meaning likelier. Of equal scores the
/// lower class ranks first; a label whose score is NaN is a miss.
///
/// # Errors
/// `scores` is not one row per label, or a label is not below `classes`.
pub fn top_k(scores: &[f32], labels: &[u32], classes: usize, k: usize) -> Result<f64, MetricsError> {
    check_labels(labels.len(), labels, classes)?;
    if scores.len() != labels.len() * classes {
        return Err(MetricsError::Shape {
            what: "scores, classes per label",
            expected: labels.len() * classes,
            got: scores.len(),
        });
    }
    if labels.is_empty() {
        return Ok(0.0);
    }
    let hit = |row: &[f32], label: usize| {
        let ahead = |class: usize| row[class] > row[label] || (row[class] == row[label] && class < label);
        !row[label].is_nan() && (0..classes).filter(|&class| ahead(class)).count() < k
    };
    let rows = scores.chunks_exact(classes).zip(labels);
    let hits = rows.filter(|&(row, &label)| hit(row, label as usize)).count();
    Ok(hits as f64 / labels.len() as f64)
}

/// How many images of each class were taken for each class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

impl Confusion {
    /// Counts predictions against labels.
    ///
    /// # Errors
    /// The two differ in length, or one of either is not below `classes`.
    pub fn new(predictions: &[u32], labels: &[u32], classes: usize) -> Result<Self, MetricsError> {
        check_labels(predictions.len(), labels, classes)?;
        check_labels(labels.len(), predictions, classes)?;
        let mut counts = vec![0; classes * classes];
        for (&prediction, &label) in predictions.iter().zip(labels) {
            counts[label as usize * classes + prediction as usize] += 1;
        }
        Ok(Confusion { classes, counts })
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How many images of class `label` were taken for each class: `classes` counts.
    pub fn row(&self, label: usize) -> &[u64] {
        &self.counts[label * self.classes..][..self.classes]
    }

    /// Fraction of each class's images that were recognised; `None` for a class without images.
    pub fn per_class(&self) -> Vec<Option<f64>> {
        let recognised = |label: usize| {
            let images: u64 = self.row(label).iter().sum();
            (images > 0).then(|| self.row(label)[label] as f64 / images as f64)
        };
        (0..self.classes).map(recognised).collect()
    }

    /// Mean of [`Confusion::per_class`] over the classes that have images; 0 where none has.
    pub fn mean_per_class(&self) -> f64 {
        let present: Vec<f64> = self.per_class().into_iter().flatten().collect();
        present.iter().sum::<f64>() / present.len().max(1) as f64
    }

    /// Fraction of all images that were recognised; 0 where there are none.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.classes).map(|label| self.row(label)[label]).sum();
        right as f64 / self.counts.iter().sum::<u64>().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_class() {
        let labels = [0, 0, 0, 0, 1, 1, 3];
        let predictions = [0, 0, 0, 1, 1, 0, 0];
        let confusion = Confusion::new(&predictions, &labels, 4).unwrap();
        assert_eq!(confusion.row(0), [3, 1, 0, 0]);
        assert_eq!(confusion.per_class(), [Some(0.75), Some(0.5), None, Some(0.0)]);
        assert_eq!(confusion.mean_per_class(), 1.25 / 3.0);
        assert_eq!(confusion.accuracy(), 4.0 / 7.0);
        assert_eq!(accuracy(&predictions, &labels), Ok(4.0 / 7.0));
        assert!(Confusion::new(&[4], &[0], 4).is_err());
        assert!(Confusion::new(&[0], &[0, 1], 4).is_err());
        assert!(accuracy(&[0], &[]).is_err());
    }

    #[test]
    fn ranks_scores() {
        let scores = [0.1, 0.9, 0.3, /**/ 0.5, 0.5, 0.5, /**/ f32::NAN, 1.0, 0.0];
        let labels = [2, 1, 0];
        assert_eq!(top_k(&scores, &labels, 3, 1), Ok(0.0));
        assert_eq!(top_k(&scores, &labels, 3, 2), Ok(2.0 / 3.0));
        assert_eq!(top_k(&scores, &labels, 3, 3), Ok(2.0 / 3.0));
        assert_eq!(top_k(&[], &[], 3, 1), Ok(0.0));
        assert!(top_k(&scores[1..], &labels, 3, 1).is_err());
        assert_eq!((likeliest(&scores[..3]), likeliest(&scores[3..6]), likeliest(&[])), (1, 0, 0));
        assert!(top_k(&scores, &[2, 1, 3], 3, 1).is_err());
    }
}
