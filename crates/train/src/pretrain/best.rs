//! Which state of a run is its best.

use std::sync::Arc;

use simclr_data::Dataset;

use crate::checkpoint::Best;
use crate::config::TrainConfig;

use super::health::can_measure_knn;
use super::records::EpochRecord;

/// The figure that decides. One serves for the whole run: values of two cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BestBy {
    /// kNN accuracy of held-out images.
    Knn,
    /// Contrastive accuracy of held-out images.
    ContrastiveAccuracy,
}

impl BestBy {
    /// kNN accuracy where it is going to be measured, however seldom, and of enough images; else contrastive accuracy;
    /// nothing where neither will be.
    pub(super) fn choose(
        config: &TrainConfig,
        train: &Arc<dyn Dataset>,
        holdout: Option<&Arc<dyn Dataset>>,
    ) -> Option<BestBy> {
        let holdout = holdout?;
        let has_knn = config.knn_every > 0 && can_measure_knn(train, holdout);
        match config.health_every > 0 {
            true if has_knn && is_enough(labelled(holdout), holdout.len()) => Some(BestBy::Knn),
            true => Some(BestBy::ContrastiveAccuracy),
            false => has_knn.then_some(BestBy::Knn),
        }
    }

    /// The better one of the best so far and the state after an epoch, if that was measured; of equals the one that
    /// was trained longer.
    pub(super) fn better(self, best: Option<Best>, epoch: &EpochRecord) -> Option<Best> {
        let (figure, value) = match self {
            BestBy::Knn => ("knn_top1", epoch.knn_top1),
            BestBy::ContrastiveAccuracy => (
                "holdout_contrastive_accuracy",
                epoch.health.as_ref().map(|health| health.contrastive_accuracy),
            ),
        };
        let new = value.and_then(|value| Best::new(epoch.step, figure, value));
        match (best, new) {
            // One by another figure is of a version that changed between them.
            (Some(best), Some(new)) if best.figure() == figure && best.value() > new.value() => Some(best),
            (best, new) => new.or(best),
        }
    }
}

/// Whether accuracy on `labelled` of `images` tells more than contrastive accuracy, which all of them tell: on a few it
/// is chance which epoch is the best.
fn is_enough(labelled: usize, images: usize) -> bool {
    /// Whose accuracy has a standard error of 3.5 points at the most.
    const ENOUGH: usize = 200;
    labelled >= ENOUGH || 2 * labelled >= images
}

/// How many have a label.
fn labelled(images: &Arc<dyn Dataset>) -> usize {
    (0..images.len()).filter(|&image| images.label(image).is_some()).count()
}

#[cfg(test)]
mod tests {
    use super::is_enough;

    #[test]
    fn a_few_labels_among_many_images_decide_nothing() {
        let few = [(24, 512), (1, 3), (199, 10_000)];
        let enough = [(512, 512), (16, 16), (256, 512), (200, 10_000)];
        assert_eq!(few.map(|(labelled, images)| is_enough(labelled, images)), [false; 3]);
        assert_eq!(enough.map(|(labelled, images)| is_enough(labelled, images)), [true; 4]);
    }
}
