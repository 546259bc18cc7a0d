//! Training steps on a GPU: the first is captured, later ones replay it.

use simclr_engine::{
    Captured, Collective, DType, Deferred, LossScale, LossScaleFigures, Pixels, Tensor, Verdict,
    VerdictFigures,
};

use super::step::{Pass, forward_backward};
use crate::config::LossConfig;
use crate::optim::Optimizer;
use crate::{Model, TrainError};

/// Steps of one model and optimiser, with their figures on the GPU.
///
/// Steps are asynchronous: [`CapturedStep::figures`] fetches their figures. After a step with non-finite values, later
/// steps change nothing. With activations in f16 the loss is scaled dynamically; a step in which only scaled gradients
/// overflow is skipped. The model's and the optimiser's tensors must stay those of the first step; their values may
/// change.
#[derive(Debug)]
pub struct CapturedStep {
    pixels: Pixels,
    hyper: Tensor,
    verdict: Verdict,
    /// The loss scale, if activations are in f16.
    scale: Option<LossScale>,
    step: Option<Captured>,
}

impl CapturedStep {
    /// Creates steps of `views` views each: n first views, then the n second views.
    pub fn new(model: &Model, views: usize) -> Result<CapturedStep, TrainError> {
        let (device, side) = (&model.device, model.image_size());
        Ok(CapturedStep {
            pixels: Pixels::new(device, [views, side, side, 3])?,
            hyper: Tensor::zeros(device, &[3])?,
            verdict: Verdict::new(device)?,
            scale: match model.activations() {
                DType::F16 => Some(LossScale::new(device)?),
                _ => None,
            },
            step: None,
        })
    }

    /// The buffer for the views of the next step.
    pub fn pixels(&mut self) -> &mut Pixels {
        &mut self.pixels
    }

    /// Starts a step on the views in [`CapturedStep::pixels`], together with the workers of `collective`, which must
    /// be the same each time.
    pub fn step(
        &mut self,
        model: &mut Model,
        optimizer: &mut Optimizer,
        loss: &LossConfig,
        collective: &dyn Collective,
        rate: f64,
    ) -> Result<(), TrainError> {
        self.hyper.write(&optimizer.advance(rate))?;
        match &self.step {
            Some(step) => step.replay()?,
            None => self.step = Some(self.capture(model, optimizer, loss, collective)?),
        }
        Ok(())
    }

    fn capture(
        &mut self,
        model: &mut Model,
        optimizer: &mut Optimizer,
        loss: &LossConfig,
        collective: &dyn Collective,
    ) -> Result<Captured, TrainError> {
        let CapturedStep { pixels, hyper, verdict, scale, .. } = self;
        let device = model.device.clone();
        device.capture(|| {
            let images = Tensor::from_pixels(pixels, model.activations())?;
            let Pass { sums, gradients, mut averages } =
                forward_backward(model, loss, collective, images, scale.as_ref())?;
            let squares = device.sum_of_squares_on_device(gradients.iter().map(|(_, gradient)| gradient))?;
            verdict.judge(&sums.sums, &squares, sums.views, scale.as_ref())?;
            let mut moved = vec![None; model.parameters.len()];
            averages.drain().for_each(|(id, average)| moved[id.index()] = Some(average));
            let to = model.parameters.iter_mut().map(|(_, _, value)| value);
            let mut list: Vec<_> =
                to.zip(&moved).filter_map(|(value, average)| Some((value, average.as_ref()?))).collect();
            device.replace(verdict, &mut list)?;
            let deferred = Deferred { hyper, verdict, scale: scale.as_ref() };
            optimizer.step_deferred(deferred, &mut model.parameters, &gradients)?;
            if let Some(scale) = scale {
                scale.update(verdict)?;
            }
            Ok(())
        })
    }

    /// Bytes of GPU memory that the captured step holds for intermediate values; 0 before the first step.
    pub fn held(&self) -> usize {
        self.step.as_ref().map_or(0, Captured::held)
    }

    /// Waits for all steps so far and returns their figures.
    pub fn figures(&self) -> Result<VerdictFigures, TrainError> {
        Ok(self.verdict.figures()?)
    }

    /// Waits for all steps so far and returns the loss scale, if the loss is scaled.
    pub fn loss_scale(&self) -> Result<Option<LossScaleFigures>, TrainError> {
        Ok(self.scale.as_ref().map(LossScale::figures).transpose()?)
    }

    /// Sets the loss scale of later steps, if the loss is scaled.
    ///
    /// # Errors
    /// A scale that is not a number above 0.
    pub fn set_loss_scale(&mut self, figures: LossScaleFigures) -> Result<(), TrainError> {
        match &mut self.scale {
            Some(scale) => Ok(scale.set(figures)?),
            None => Ok(()),
        }
    }

    /// Sets the sums that later steps add to.
    pub fn set_figures(&mut self, figures: &VerdictFigures) -> Result<(), TrainError> {
        Ok(self.verdict.set(figures)?)
    }
}
