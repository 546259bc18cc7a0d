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
    /// kNN accuracy where it is going to be measured, however seldom, else contrastive accuracy; nothing where
    /// neither will be.
    pub(super) fn choose(
        config: &TrainConfig,
        train: &Arc<dyn Dataset>,
        holdout: Option<&Arc<dyn Dataset>>,
    ) -> Option<BestBy> {
        let holdout = holdout?;
        if config.knn_every > 0 && can_measure_knn(train, holdout) {
            return Some(BestBy::Knn);
        }
        (config.health_every > 0).then_some(BestBy::ContrastiveAccuracy)
    }

    /// The better one of the best so far and the state after an epoch, if that was measured.
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
            (Some(best), Some(new)) if best.figure() == figure && best.value() >= new.value() => Some(best),
            (best, new) => new.or(best),
        }
    }
}
