//! How often predictions are right: top-k, per class, confusion.

use crate::MetricsError;
use crate::error::check_labels;

/// The class with the highest score, in a tie the lowest such class. A score that is NaN counts as the lowest. 0 if
/// there are no scores.
pub fn likeliest(scores: &[f32]) -> u32 {
    let mut best = 0;
    for (class, score) in scores.iter().enumerate() {
        if *score > scores[best] || scores[best].is_nan() && !score.is_nan() {
            best = class;
        }
    }
    best as u32
}

/// Fraction of rows whose label is among the `k` highest scores; 0 if there are no rows.
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

/// The images of each class, and how many of them were recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassCounts {
    images: Vec<u64>,
    recognised: Vec<u64>,
}

impl ClassCounts {
    /// Counts predictions against labels.
    ///
    /// # Errors
    /// The two differ in length, or a prediction or a label is not below `classes`.
    pub fn new(predictions: &[u32], labels: &[u32], classes: usize) -> Result<Self, MetricsError> {
        check_pairs(predictions, labels, classes)?;
        let mut counts = ClassCounts { images: vec![0; classes], recognised: vec![0; classes] };
        for (&prediction, &label) in predictions.iter().zip(labels) {
            counts.images[label as usize] += 1;
            counts.recognised[label as usize] += u64::from(prediction == label);
        }
        Ok(counts)
    }

    /// The number of images of each class.
    pub fn images(&self) -> &[u64] {
        &self.images
    }

    /// Fraction of each class's images that were recognised; `None` for a class without images.
    pub fn per_class(&self) -> Vec<Option<f64>> {
        let both = self.recognised.iter().zip(&self.images);
        both.map(|(&right, &images)| (images > 0).then(|| right as f64 / images as f64)).collect()
    }

    /// Mean of [`ClassCounts::per_class`] over the classes that have images; 0 if none has.
    pub fn mean_per_class(&self) -> f64 {
        let present: Vec<f64> = self.per_class().into_iter().flatten().collect();
        present.iter().sum::<f64>() / present.len().max(1) as f64
    }

    /// The 95% interval of [`ClassCounts::accuracy`], by [`wilson`].
    pub fn interval(&self) -> [f64; 2] {
        wilson(self.recognised.iter().sum(), self.images.iter().sum())
    }

    /// Fraction of all images that were recognised; 0 if there are none.
    pub fn accuracy(&self) -> f64 {
        self.recognised.iter().sum::<u64>() as f64 / self.images.iter().sum::<u64>().max(1) as f64
    }
}

/// The 95% interval of the true fraction when `right` of `images` were found right, by Wilson (1927): it holds for
/// few images too, and for fractions near 0 and 1. [0, 1] if there are no images.
pub fn wilson(right: u64, images: u64) -> [f64; 2] {
    if images == 0 {
        return [0.0, 1.0];
    }
    /// 2.5% of the normal distribution lie above this many standard deviations.
    const Z: f64 = 1.959_963_984_540_054;
    let n = images as f64;
    let p = right as f64 / n;
    let centre = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    [centre - half, centre + half].map(|end| (end / (1.0 + Z * Z / n)).clamp(0.0, 1.0))
}

/// How many images of each class (rows) were predicted to be of each class (columns): `classes` squared numbers.
///
/// # Errors
/// As [`ClassCounts::new`].
pub fn confusion(predictions: &[u32], labels: &[u32], classes: usize) -> Result<Vec<Vec<u64>>, MetricsError> {
    check_pairs(predictions, labels, classes)?;
    let mut counts = vec![vec![0; classes]; classes];
    for (&prediction, &label) in predictions.iter().zip(labels) {
        counts[label as usize][prediction as usize] += 1;
    }
    Ok(counts)
}

/// Checks that there is a prediction for each label, and that all are below `classes`.
fn check_pairs(predictions: &[u32], labels: &[u32], classes: usize) -> Result<(), MetricsError> {
    check_labels(predictions.len(), labels, classes)?;
    check_labels(labels.len(), predictions, classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_class() {
        let labels = [0, 0, 0, 0, 1, 1, 3];
        let predictions = [0, 0, 0, 1, 1, 0, 0];
        let counts = ClassCounts::new(&predictions, &labels, 4).unwrap();
        assert_eq!(confusion(&predictions, &labels, 4).unwrap()[0], [3, 1, 0, 0]);
        assert_eq!(counts.images(), [4, 2, 0, 1]);
        assert_eq!(counts.per_class(), [Some(0.75), Some(0.5), None, Some(0.0)]);
        assert_eq!(counts.mean_per_class(), 1.25 / 3.0);
        assert_eq!(counts.accuracy(), 4.0 / 7.0);
        assert!(ClassCounts::new(&[4], &[0], 4).is_err());
        assert!(confusion(&[0], &[0, 1], 4).is_err());
    }

    #[test]
    fn intervals_are_those_of_wilson() {
        // Computed by the formula in Python.
        for (right, images, expected) in [
            (0, 10, [0.0, 0.277_532_799_862_889_1]),
            (5, 10, [0.236_593_090_512_564_22, 0.763_406_909_487_435_8]),
            (81, 92, [0.798_464_204_066_493_8, 0.931_908_651_911_837_6]),
            (10, 10, [0.722_467_200_137_110_9, 1.0]),
        ] {
            let found = wilson(right, images);
            let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(near, "{right} of {images}: {found:?}");
        }
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
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
        assert_eq!([&[f32::NAN, -1.0, 2.0][..], &[f32::NAN; 2], &[1.0, f32::NAN]].map(likeliest), [2, 0, 0]);
        assert!(top_k(&scores, &[2, 1, 3], 3, 1).is_err());
    }
}
