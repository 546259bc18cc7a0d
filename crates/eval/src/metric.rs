//! The metric by which a data set judges a classifier.

use simclr_metrics::{ClassCounts, MetricsError, eleven_point_map, likeliest, top_k};
use simclr_words::words;

use crate::Targets;

words! {
    /// A metric from 0 to 1, higher being better.
    #[derive(Hash, Default)]
    Metric {
        /// Fraction of images whose class gets the highest score.
        #[default]
        Top1 = "top1",
        /// Mean over classes of that fraction, so that rare classes weigh as much as frequent ones.
        MeanPerClass = "mean_per_class",
        /// Mean over the classes of the 11-point average precision, for images that show several classes
        /// (PASCAL VOC2007).
        ElevenPointMap = "map11",
    }
}

impl Metric {
    /// The metric's name for people.
    pub fn title(self) -> &'static str {
        match self {
            Metric::Top1 => "top-1",
            Metric::MeanPerClass => "mean per class",
            Metric::ElevenPointMap => "11-point mAP",
        }
    }

    /// Whether it judges images that show several classes.
    pub fn of_several(self) -> bool {
        self == Metric::ElevenPointMap
    }

    /// The metric of row-major class scores, `classes` per row, higher meaning likelier; ties go to the lower class.
    ///
    /// # Errors
    /// Scores that do not fit the targets or are NaN where they are ranked, and targets of the wrong kind for this
    /// metric.
    pub fn of(self, scores: &[f32], targets: &Targets, classes: usize) -> Result<f64, MetricsError> {
        match (self, targets) {
            (Metric::Top1, Targets::One(labels)) => top_k(scores, labels, classes, 1),
            (Metric::MeanPerClass, Targets::One(labels)) => {
                let predictions: Vec<u32> = scores.chunks_exact(classes).map(likeliest).collect();
                Ok(ClassCounts::new(&predictions, labels, classes)?.mean_per_class())
            }
            (Metric::ElevenPointMap, Targets::Several { shown, .. }) => {
                eleven_point_map(scores, shown, classes)
            }
            (_, Targets::One(_)) => {
                Err(MetricsError::Shape { what: "classes that a row may show", expected: classes, got: 1 })
            }
            (_, Targets::Several { classes, .. }) => {
                Err(MetricsError::Shape { what: "classes that a row may show", expected: 1, got: *classes })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Three images of class 0, one of them predicted as class 1, and one image of class 1, predicted correctly.
        let scores = [0.9, 0.1, /**/ 0.8, 0.2, /**/ 0.3, 0.7, /**/ 0.1, 0.9];
        let one = Targets::One(vec![0, 0, 0, 1]);
        assert_eq!(Metric::Top1.of(&scores, &one, 2), Ok(0.75));
        assert!((Metric::MeanPerClass.of(&scores, &one, 2).unwrap() - (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-12);
        // Class 0 ranks its three images first, second and third; class 1 ranks its one image first.
        let shown = [true, false, true, false, true, false, false, true].to_vec();
        let several = Targets::Several { classes: 2, shown };
        assert_eq!(Metric::ElevenPointMap.of(&scores, &several, 2), Ok(1.0));
        assert!(Metric::ElevenPointMap.of(&scores, &one, 2).is_err());
        assert!(Metric::Top1.of(&scores, &several, 2).is_err());
    }
}
