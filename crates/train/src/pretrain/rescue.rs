//! What is saved of a run that ends with an error.

use crate::TrainError;

use super::run::Run;
use super::{Failure, Observer};

impl Run<'_> {
    /// What ended the run from outside (the data, the disk, another worker) costs none of the steps that were taken:
    /// their state is saved once more where it is known, and the newest checkpoint is told. What ended it from inside
    /// is recorded.
    pub(super) fn rescue(&mut self, error: &TrainError, observer: &mut dyn Observer) {
        if let Some(keeper) = &self.keeper {
            // The first error is the one to report.
            let _ = Failure::record(keeper.folder, error, self.config, keeper.identity);
        }
        let is_known = self.whole && !matches!(error, TrainError::NotFinite { .. }) && self.settle().is_ok();
        let (step, done) = (self.state.step, self.plan.done);
        let Some(keeper) = self.keeper.as_mut().filter(|_| is_known) else { return };
        let _ = keeper.saver.wait();
        if step > done && keeper.saver.newest() != Some(keeper.saver.checkpoints().path(step)) {
            let _ = keeper.save(&self.state, self.config).and_then(|()| keeper.saver.wait());
        }
        // A good checkpoint may exist although the saver only knows that writing a later one failed.
        if let Ok(Some(found)) = keeper.saver.checkpoints().latest_good() {
            observer.rescued(&found.path);
        }
    }
}
