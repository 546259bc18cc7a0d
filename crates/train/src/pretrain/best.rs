//! The choice of a run's best state.

use std::sync::Arc;

use simclr_data::Dataset;

use crate::checkpoint::Best;
use crate::config::TrainConfig;

use super::health::can_measure_knn;
use super::records::EpochRecord;

/// The figure that decides, the same for the whole run, since values of different figures cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BestBy {
    /// kNN accuracy of held-out images.
    Knn,
    /// Contrastive accuracy of held-out images.
    ContrastiveAccuracy,
}

impl BestBy {
    /// Chooses kNN accuracy if it will be measured, however seldom, on enough images; else contrastive accuracy;
    /// `None` if neither will be measured.
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

    /// Returns the better of the best so far and the state after `epoch`, if the figure was measured; if they are
    /// equal, the later one.
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
            // A best recorded by another metric is from an older version: ignore it.
            // One of the same step is of an epoch that is measured again.
            (Some(best), Some(new))
                if best.figure() == figure && best.step() != new.step() && best.value() > new.value() =>
            {
                Some(best)
            }
            (best, new) => new.or(best),
        }
    }
}

/// Whether accuracy on `labelled` of `images` says more than contrastive accuracy on all of them: with few labels,
/// chance decides which epoch is the best.
fn is_enough(labelled: usize, images: usize) -> bool {
    /// Accuracy on this many images has a standard error of at most 3.5 points.
    const MIN_LABELLED: usize = 200;
    labelled >= MIN_LABELLED || 2 * labelled >= images
}

/// The number of images with a label.
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
