//! Targets of a classifier: the class of each image, or all classes that it shows.

use simclr_metrics::{MetricsError, check_labels};

/// The targets of rows of features, one row per image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// The class of each row.
    One(Vec<u32>),
    /// The classes that each row shows, row-major.
    Several {
        /// Number of classes, and so of values per row.
        classes: usize,
        /// Whether each row shows each class.
        shown: Vec<bool>,
    },
}

/// The target of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// Its class.
    One(usize),
    /// Whether it shows each class.
    Several(&'a [bool]),
}

impl Targets {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Targets::One(labels) => labels.len(),
            Targets::Several { classes, shown } => shown.len() / (*classes).max(1),
        }
    }

    /// The targets of `rows`, in that order.
    ///
    /// # Panics
    /// If a row is out of range.
    pub fn select(&self, rows: &[u32]) -> Targets {
        let rows = rows.iter().map(|&row| row as usize);
        match self {
            Targets::One(labels) => Targets::One(rows.map(|row| labels[row]).collect()),
            &Targets::Several { classes, ref shown } => {
                let shown = rows.flat_map(|row| &shown[row * classes..][..classes]).copied().collect();
                Targets::Several { classes, shown }
            }
        }
    }

    /// Returns these targets followed by those of `more`.
    ///
    /// # Errors
    /// If one has a single class per row and the other several, or if their numbers of classes differ.
    pub fn then(&self, more: &Targets) -> Result<Targets, MetricsError> {
        match (self, more) {
            (Targets::One(first), Targets::One(more)) => {
                Ok(Targets::One([first.as_slice(), more.as_slice()].concat()))
            }
            (
                Targets::Several { classes, shown: first },
                Targets::Several { classes: others, shown: more },
            ) if classes == others => {
                let shown = [first.as_slice(), more.as_slice()].concat();
                Ok(Targets::Several { classes: *classes, shown })
            }
            _ => Err(MetricsError::Shape {
                what: "targets, of one kind and of as many classes",
                expected: self.width(),
                got: more.width(),
            }),
        }
    }

    /// Returns those of `classes` that no row shows.
    pub(crate) fn missing(&self, classes: &[String]) -> Vec<String> {
        let mut there = vec![false; classes.len()];
        for row in 0..self.rows() {
            match self.of(row) {
                Target::One(class) => there[class] = true,
                Target::Several(shown) => {
                    there.iter_mut().zip(shown).for_each(|(there, shown)| *there |= shown);
                }
            }
        }
        classes.iter().zip(there).filter(|(_, there)| !there).map(|(class, _)| class.clone()).collect()
    }

    /// Checks that there is one target for each of `rows` rows, and that every class is below `classes`.
    pub(crate) fn check(&self, rows: usize, classes: usize) -> Result<(), MetricsError> {
        match self {
            Targets::One(labels) => check_labels(rows, labels, classes),
            Targets::Several { shown, .. } if shown.len() == rows * classes => Ok(()),
            Targets::Several { shown, .. } => Err(MetricsError::Shape {
                what: "targets, one for each class of each row",
                expected: rows * classes,
                got: shown.len(),
            }),
        }
    }

    /// The target of a row.
    pub(crate) fn of(&self, row: usize) -> Target<'_> {
        match self {
            Targets::One(labels) => Target::One(labels[row] as usize),
            Targets::Several { classes, shown } => Target::Several(&shown[row * classes..][..*classes]),
        }
    }

    /// Values per row.
    fn width(&self) -> usize {
        match self {
            Targets::One(_) => 1,
            Targets::Several { classes, .. } => *classes,
        }
    }
}

impl Target<'_> {
    /// Returns the loss of one row of class scores, and replaces the scores by its gradient. For one class it is the
    /// softmax cross-entropy; for several, the sum over classes of an independent logistic loss.
    pub(crate) fn loss(self, scores: &mut [f32]) -> f64 {
        match self {
            Target::One(class) => softmax_cross_entropy(scores, class),
            Target::Several(shown) => {
                scores.iter_mut().zip(shown).map(|(score, &shown)| sigmoid_cross_entropy(score, shown)).sum()
            }
        }
    }
}

/// -log softmax(scores)\[class\]; the gradient is softmax minus one-hot.
fn softmax_cross_entropy(scores: &mut [f32], class: usize) -> f64 {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let own = f64::from(scores[class] - most);
    let mut total = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - most).exp();
        total += f64::from(*score);
    }
    let scale = (1.0 / total) as f32;
    scores.iter_mut().for_each(|score| *score *= scale);
    scores[class] -= 1.0;
    total.ln() - own
}

/// -log sigmoid(score) of a class that is shown, -log sigmoid(-score) of one that is not; the gradient is
/// sigmoid(score) minus 1 or 0.
fn sigmoid_cross_entropy(score: &mut f32, shown: bool) -> f64 {
    let towards = f64::from(if shown { *score } else { -*score });
    // The argument of exp is never positive: no overflow.
    let small = (-towards.abs()).exp();
    let missed = if towards >= 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
    *score = if shown { -missed as f32 } else { missed as f32 };
    small.ln_1p() - towards.min(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_scores_do_not_overflow() {
        let mut row = [1000.0, -1000.0];
        assert_eq!(Target::One(0).loss(&mut row), 0.0);
        assert_eq!(row, [0.0, 0.0]);
        let mut row = [1000.0, -1000.0];
        assert_eq!(Target::One(1).loss(&mut row), 2000.0);
        let mut row = [1000.0, -1000.0];
        assert_eq!(Target::Several(&[true, true]).loss(&mut row), 1000.0);
        assert_eq!(row, [0.0, -1.0]);
        let mut row = [1000.0, -1000.0];
        assert_eq!(Target::Several(&[false, false]).loss(&mut row), 1000.0);
        assert_eq!(row, [1.0, 0.0]);
    }

    #[test]
    fn several_classes_are_as_many_questions() {
        // log(1 + e^-x) and its derivative, at x = 0.7 for a class shown and at -0.4 for one not shown.
        let mut row = [0.7, -0.4];
        let loss = Target::Several(&[true, false]).loss(&mut row);
        assert!(
            (loss - ((1.0 + (-0.7f64).exp()).ln() + (1.0 + (-0.4f64).exp()).ln())).abs() < 1e-7,
            "{loss}"
        );
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        assert!((row[0] - (sigmoid(0.7) - 1.0)).abs() < 1e-6 && (row[1] - sigmoid(-0.4)).abs() < 1e-6);
    }

    #[test]
    fn rows_are_chosen_and_joined() {
        let one = Targets::One(vec![3, 1, 2]);
        assert_eq!(one.select(&[2, 0]), Targets::One(vec![2, 3]));
        assert_eq!(one.then(&one.select(&[1])).unwrap(), Targets::One(vec![3, 1, 2, 1]));
        let several = Targets::Several { classes: 2, shown: vec![true, false, false, true, true, true] };
        assert_eq!((several.rows(), several.of(1)), (3, Target::Several(&[false, true])));
        let joined = several.select(&[2]).then(&several.select(&[0])).unwrap();
        assert_eq!(joined, Targets::Several { classes: 2, shown: vec![true, true, true, false] });
        assert!(one.then(&several).is_err());
        assert!(several.check(3, 2).is_ok() && several.check(2, 3).is_ok() && several.check(3, 3).is_err());
        assert!(one.check(3, 4).is_ok() && one.check(3, 3).is_err() && one.check(2, 4).is_err());
    }
}
