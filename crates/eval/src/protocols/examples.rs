//! Images, and what each is to be told apart by.

use std::fmt;
use std::sync::Arc;

use simclr_data::{Concat, Dataset, Subset};
use simclr_metrics::MetricsError;

use crate::Targets;

/// Images and what each shows.
#[derive(Clone)]
pub struct Examples {
    /// The images.
    pub images: Arc<dyn Dataset>,
    /// One for each.
    pub targets: Targets,
}

impl fmt::Debug for Examples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (images, targets) = (self.images.len(), &self.targets);
        f.debug_struct("Examples").field("images", &images).field("targets", targets).finish()
    }
}

impl Examples {
    /// Images that all have a label.
    pub(super) fn labelled(images: Arc<dyn Dataset>) -> Examples {
        let targets = Targets::One((0..images.len()).filter_map(|index| images.label(index)).collect());
        Examples { images, targets }
    }

    /// Some of them, in that order.
    pub(super) fn select(&self, rows: &[usize]) -> Examples {
        let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let targets = self.targets.select(&rows);
        Examples { images: Arc::new(Subset::new(self.images.clone(), rows)), targets }
    }

    /// These, then `more`.
    ///
    /// # Errors
    /// Where images of one show one class and those of the other several.
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
