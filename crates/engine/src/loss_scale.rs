//! Dynamic loss scaling, which keeps gradients in f16 from vanishing and from overflowing (Micikevicius et al.,
//! arXiv:1710.03740, section 3.2).

use crate::{Device, EngineError, Result, Tensor, Verdict};

/// The factor that a loss is multiplied by before its backward pass, kept on the device.
///
/// Backward starts from it in place of 1; updates and verdicts undo it. It halves where gradients overflow and
/// doubles after [`LossScale::INTERVAL`] sound steps, as PyTorch's `GradScaler` does, up to 2^24.
#[derive(Debug)]
pub struct LossScale {
    /// The factor, its inverse, and the steps since it changed: f32, (1) each.
    pub(crate) scale: Tensor,
    pub(crate) unscale: Tensor,
    pub(crate) steps: Tensor,
}

/// The figures of a [`LossScale`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaleFigures {
    /// The factor, at least 1 unless it was set to less.
    pub scale: f32,
    /// Sound steps since it changed.
    pub steps: u32,
}

impl Default for LossScaleFigures {
    /// The figures with which training begins.
    fn default() -> Self {
        LossScaleFigures { scale: 65536.0, steps: 0 }
    }
}

impl LossScale {
    /// Sound steps after which the factor doubles.
    pub const INTERVAL: u32 = 2000;

    /// The loss scale at the start of a run.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn new(device: &Device) -> Result<LossScale> {
        let one = || Tensor::zeros(device, &[1]);
        let mut scale = LossScale { scale: one()?, unscale: one()?, steps: one()? };
        scale.set(LossScaleFigures::default())?;
        Ok(scale)
    }

    /// What backward starts from, (1).
    pub fn gradient(&self) -> Tensor {
        self.scale.clone()
    }

    /// Updates the factor after a step that was judged.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn update(&mut self, verdict: &Verdict) -> Result<()> {
        let device = self.scale.device().clone();
        device.kernels().update_loss_scale(&verdict.values, self)
    }

    /// The figures, after waiting for all started steps to end.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn figures(&self) -> Result<LossScaleFigures> {
        let ([mut scale], [mut steps]) = ([0.0f32], [0.0f32]);
        self.scale.read(std::slice::from_mut(&mut scale))?;
        self.steps.read(std::slice::from_mut(&mut steps))?;
        Ok(LossScaleFigures { scale, steps: steps as u32 })
    }

    /// Replaces the figures.
    ///
    /// # Errors
    /// A factor that is not a finite number above 0.
    pub fn set(&mut self, figures: LossScaleFigures) -> Result<()> {
        let LossScaleFigures { scale, steps } = figures;
        if !(scale > 0.0 && scale.is_finite()) {
            let what = format!("the factor must be a number above 0, not {scale}");
            return Err(EngineError::Value { op: "loss scale", what });
        }
        self.scale.write(&[scale])?;
        self.unscale.write(&[1.0 / scale])?;
        self.steps.write(&[steps as f32])
    }
}

/// [`LossScale::update`] on plain values, as a GPU's kernel does it; `taken` is whether the step was taken.
pub(crate) fn rescaled(taken: bool, scale: f32, steps: f32) -> (f32, f32) {
    const MAX_SCALE: f32 = 16_777_216.0;
    match (taken, steps + 1.0) {
        (false, _) => (if scale > 1.0 { scale * 0.5 } else { scale }, 0.0),
        (true, steps) if steps >= LossScale::INTERVAL as f32 => {
            (if scale < MAX_SCALE { scale * 2.0 } else { scale }, 0.0)
        }
        (true, steps) => (scale, steps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    /// The figures after one step from `scale` and `steps`, whose gradients have the sum of squares `squares`.
    fn after(scale: f32, steps: u32, squares: f64) -> (f32, u32) {
        let device = Device::cpu(1).unwrap();
        let filled = |values: &[f64]| {
            let mut tensor = Tensor::empty_of(&device, &[values.len()], DType::F64);
            tensor.write(values).unwrap();
            tensor
        };
        let mut factor = LossScale::new(&device).unwrap();
        factor.set(LossScaleFigures { scale, steps }).unwrap();
        let mut verdict = Verdict::new(&device).unwrap();
        verdict.judge(&filled(&[4.0, 2.0, 1.0]), &filled(&[squares]), 4, Some(&factor)).unwrap();
        factor.update(&verdict).unwrap();
        let figures = factor.figures().unwrap();
        // The inverse follows the factor.
        assert_eq!(factor.unscale.to_vec().unwrap(), [1.0 / figures.scale]);
        (figures.scale, figures.steps)
    }

    #[test]
    fn the_factor_follows_the_steps() {
        let begun = LossScale::new(&Device::cpu(1).unwrap()).unwrap().figures().unwrap();
        assert_eq!(begun, LossScaleFigures { scale: 65536.0, steps: 0 });
        // It doubles after 2,000 sound steps, up to 2^24.
        assert_eq!(after(65536.0, 1998, 1.0), (65536.0, 1999));
        assert_eq!(after(65536.0, 1999, 1.0), (131_072.0, 0));
        assert_eq!(after(8_388_608.0, 1999, 1.0), (16_777_216.0, 0));
        assert_eq!(after(16_777_216.0, 1999, 1.0), (16_777_216.0, 0));
        // It halves where gradients overflow, down to 1.
        assert_eq!(after(65536.0, 1999, f64::INFINITY), (32768.0, 0));
        assert_eq!(after(2.0, 5, f64::NAN), (1.0, 0));
        assert_eq!(after(1.0, 5, f64::INFINITY), (1.0, 0));
        // A factor that began below 1 grows like any other.
        assert_eq!(after(0.25, 1999, 1.0), (0.5, 0));
        assert_eq!(after(0.25, 1999, f64::INFINITY), (0.25, 0));
    }
}
