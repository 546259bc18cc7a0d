//! What is saved of a run that ends with an error.

use crate::TrainError;

use super::run::Run;
use super::{Batches, Failure, Observer};

impl Run<'_> {
    /// Saves the state of a run that ended from outside (by the data, the disk or another worker), so that no step is
    /// lost, even if the figures of the last epoch are still due. If the state is no longer known, because a GPU failed
    /// for example, the steps after the newest checkpoint are lost. In both cases the observer is told of that
    /// checkpoint and of the number of steps after it. A step that could not be logged is logged now, if possible.
    ///
    /// An error from inside (values that are not finite) is recorded. It names its checkpoint itself.
    pub(super) fn rescue(&mut self, error: &TrainError, batches: &Batches, observer: &mut dyn Observer) {
        if let Some(writer) = &self.writer {
            // The first error is the one to report.
            let _ = Failure::record(writer.folder, error, self.config, writer.identity);
        }
        if matches!(error, TrainError::NotFinite { .. }) {
            return;
        }
        let is_known = self.consistent && self.settle().is_ok();
        // Otherwise the checkpoints there may be those of another run.
        if self.writer.as_ref().is_none_or(|writer| writer.folder.check_in_place().is_err()) {
            return;
        }
        if is_known {
            // The run goes on behind the batches that have met them.
            let _ = self.note_skipped(batches, observer);
        }
        let (step, done) = (self.state.step, self.plan.done);
        let Some(writer) = self.writer.as_mut() else { return };
        let _ = writer.checkpoint_writer.wait();
        if let Some(record) = self.unlogged.take().filter(|_| is_known) {
            let room = writer.checkpoint_writer.room();
            while writer.logs.step(&record).is_err_and(|error| error.is_full_disk() && room.make()) {}
        }
        let is_saved =
            writer.checkpoint_writer.newest() == Some(writer.checkpoint_writer.checkpoints().path(step));
        if is_known && step > done && !is_saved {
            let _ = writer.save(&self.state, self.config).and_then(|()| writer.checkpoint_writer.wait());
        }
        // A good checkpoint may exist although the writer only knows that writing a later one failed.
        if let Ok(Some(found)) = writer.checkpoint_writer.checkpoints().latest_good() {
            observer.rescued(&found.path, step.saturating_sub(found.checkpoint.meta.step));
        }
    }
}
