//! Images and their targets.

use std::fmt;
use std::sync::Arc;

use simclr_data::{Concat, Dataset, Subset};
use simclr_metrics::MetricsError;

use super::stratify::stratify;
use crate::{EvalError, Targets};

/// Images and their targets.
#[derive(Clone)]
pub struct Examples {
    /// The images.
    pub images: Arc<dyn Dataset>,
    /// The target of each image.
    pub targets: Targets,
}

impl fmt::Debug for Examples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (images, targets) = (self.images.len(), &self.targets);
        f.debug_struct("Examples").field("images", &images).field("targets", targets).finish()
    }
}

impl Examples {
    /// Images that all have a label, with it as the target.
    pub(super) fn labelled(images: Arc<dyn Dataset>) -> Examples {
        let targets = Targets::One((0..images.len()).filter_map(|index| images.label(index)).collect());
        Examples { images, targets }
    }

    /// Selects `rows`, in that order.
    pub(super) fn select(&self, rows: &[usize]) -> Examples {
        let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let targets = self.targets.select(&rows);
        Examples { images: Arc::new(Subset::new(self.images.clone(), rows)), targets }
    }

    /// Returns (the rest, the `share` of each of the `classes` drawn by `seed`); an image that shows several classes
    /// counts for the rarest. The rows of each group in `same`, which hold the same image ([`simclr_data::copies`]),
    /// stay together.
    ///
    /// # Errors
    /// [`EvalError::TooFewToSplit`] with `purpose`.
    pub(super) fn set_apart(
        &self,
        classes: usize,
        same: &[Vec<u32>],
        share: f64,
        purpose: &'static str,
        seed: u64,
    ) -> Result<(Examples, Examples), EvalError> {
        let (rest, part) = stratify(&classes_to_split_by(&self.targets, classes), same, share, seed);
        match part.is_empty() {
            true => Err(EvalError::TooFewToSplit { purpose }),
            false => Ok((self.select(&rest), self.select(&part))),
        }
    }

    /// Returns these examples followed by `more`.
    ///
    /// # Errors
    /// If the images of one show a single class and those of the other several.
    pub(super) fn then(&self, more: &Examples) -> Result<Examples, MetricsError> {
        let sets = [&self.images, &more.images];
        let classes = Concat::classes_of(sets.into_iter().map(|set| set.classes()));
        let sets = sets.map(|images| (String::new(), images.clone())).to_vec();
        let targets = self.targets.then(&more.targets)?;
        Ok(Examples { images: Arc::new(Concat::new(sets, classes)), targets })
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }
}

/// One class for each row: its own, or the rarest of several. Rows that show none form a class of their own.
fn classes_to_split_by(targets: &Targets, classes: usize) -> Vec<u32> {
    let shown = match targets {
        Targets::One(labels) => return labels.clone(),
        Targets::Several { shown, .. } => shown,
    };
    let rows = || shown.chunks_exact(classes);
    let images = |class: usize| rows().filter(|row| row[class]).count();
    let frequency: Vec<usize> = (0..classes).map(images).collect();
    let rarest =
        |row: &[bool]| (0..classes).filter(|&class| row[class]).min_by_key(|&class| frequency[class]);
    rows().map(|row| rarest(row).unwrap_or(classes) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_classes_the_rarest_is_split_by() {
        let [t, f] = [true, false];
        let shown = vec![t, f, f, /**/ t, t, f, /**/ t, f, t, /**/ f, t, f, /**/ f, f, f];
        let targets = Targets::Several { classes: 3, shown };
        assert_eq!(classes_to_split_by(&targets, 3), [0, 1, 2, 1, 3]);
        assert_eq!(classes_to_split_by(&Targets::One(vec![2, 0]), 3), [2, 0]);
    }
}
