//! What a device records about its steps, for the host to read later.

use simclr_kernels::verdict::{
    ACCURACY, ACCURACY_SUM, ENTROPY, LOSS, LOSS_SUM, NORM, SKIPPED, SOUND, STEPS, TAKEN, VALUES,
};

use crate::{DType, Device, EngineError, LossScale, Result, Tensor};

/// What a device found about its steps, and whether all were sound: after an unsound step, nothing changes any more.
#[derive(Debug)]
pub struct Verdict {
    /// [`simclr_kernels::verdict`], f64.
    pub(crate) values: Tensor,
}

/// The figures of a [`Verdict`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VerdictFigures {
    /// The loss of the last step, or of the first that was not sound.
    pub loss: f64,
    /// The share of its anchors whose positive is more similar than every negative.
    pub contrastive_accuracy: f64,
    /// Mean entropy of its softmax over candidates, in nats.
    pub entropy: f64,
    /// |g| over all parameters, of the last step that was not skipped.
    pub gradient_norm: f64,
    /// Whether all steps had a finite loss and, except for skipped steps, a finite gradient.
    pub sound: bool,
    /// Sound steps since the sums were set, including skipped ones.
    pub steps: u64,
    /// The sum of their losses, on top of what it was set to.
    pub loss_sum: f64,
    /// The sum of their contrastive accuracies.
    pub accuracy_sum: f64,
    /// Skipped steps, on top of what it was set to: only their scaled gradients were non-finite.
    pub skipped: u64,
}

impl Verdict {
    /// A verdict on no steps yet.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn new(device: &Device) -> Result<Verdict> {
        let mut verdict = Verdict { values: Tensor::empty_of(device, &[VALUES], DType::F64) };
        verdict.set(&VerdictFigures { sound: true, ..VerdictFigures::default() })?;
        Ok(verdict)
    }

    /// Judges a step by the sums over its `views` anchors, as in [`crate::ops::ContrastiveSums`], and by the sum of
    /// squares of its gradients.
    ///
    /// If the gradients were multiplied by a `scale` above 1 and only they are non-finite, the step is skipped: it
    /// counts as sound but changes nothing.
    ///
    /// # Errors
    /// [`EngineError::Shape`](crate::EngineError::Shape) if there are not 3 sums and 1 sum of squares; errors of the
    /// device.
    pub fn judge(
        &mut self,
        sums: &Tensor,
        squares: &Tensor,
        views: usize,
        scale: Option<&LossScale>,
    ) -> Result<()> {
        for (tensor, values) in [(sums, 3), (squares, 1)] {
            if tensor.len() != values {
                return Err(EngineError::shape("judge", format!("[{values}]"), tensor.shape()));
            }
        }
        let device = self.values.device().clone();
        device.kernels().judge(sums, squares, views, scale, &mut self.values)
    }

    /// The figures, after waiting for all started steps to end.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn figures(&self) -> Result<VerdictFigures> {
        let mut values = [0.0; VALUES];
        self.values.read(&mut values)?;
        Ok(VerdictFigures {
            loss: values[LOSS],
            contrastive_accuracy: values[ACCURACY],
            entropy: values[ENTROPY],
            gradient_norm: values[NORM],
            sound: values[SOUND] != 0.0,
            steps: values[STEPS] as u64,
            loss_sum: values[LOSS_SUM],
            accuracy_sum: values[ACCURACY_SUM],
            skipped: values[SKIPPED] as u64,
        })
    }

    /// Replaces the figures: later steps are added to these sums.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn set(&mut self, figures: &VerdictFigures) -> Result<()> {
        let sound = if figures.sound { 1.0 } else { 0.0 };
        let mut values = [0.0; VALUES];
        values[LOSS] = figures.loss;
        values[ACCURACY] = figures.contrastive_accuracy;
        values[ENTROPY] = figures.entropy;
        values[NORM] = figures.gradient_norm;
        values[SOUND] = sound;
        values[STEPS] = figures.steps as f64;
        values[LOSS_SUM] = figures.loss_sum;
        values[ACCURACY_SUM] = figures.accuracy_sum;
        values[TAKEN] = sound;
        values[SKIPPED] = figures.skipped as f64;
        self.values.write(&values)
    }
}
