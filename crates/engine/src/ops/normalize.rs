//! Normalisation of images to the mean and deviation that a network expects of each channel.

use crate::{Device, EngineError, Result, Tape, Tensor, Var};

/// The constants by which a network normalises its images.
#[derive(Clone, Debug)]
pub struct Normalization {
    /// (4, C), like a BatchNorm's: scale, shift, mean and 1 / deviation.
    coefficients: Tensor,
}

impl Normalization {
    /// Normalises by the mean and the deviation of each channel.
    ///
    /// # Errors
    /// Different numbers of means and deviations, or a deviation that is not above 0.
    pub fn new(device: &Device, mean: &[f32], deviation: &[f32]) -> Result<Normalization> {
        if mean.len() != deviation.len() || !deviation.iter().all(|&deviation| deviation > 0.0) {
            let what = format!(
                "means {mean:?} and deviations {deviation:?}, expected equal numbers of them, deviations above 0"
            );
            return Err(EngineError::Value { op: "normalize", what });
        }
        let channels = 0..mean.len();
        let shift = channels.clone().map(|c| (-f64::from(mean[c]) / f64::from(deviation[c])) as f32);
        let scale: Vec<f32> = channels.map(|c| (1.0 / f64::from(deviation[c])) as f32).collect();
        let values = [&scale[..], &shift.collect::<Vec<f32>>(), mean, &scale].concat();
        Ok(Normalization { coefficients: Tensor::from_vec(device, &[4, mean.len()], values)? })
    }

    /// Scale and shift of y = scale x + shift, one value per channel each.
    ///
    /// # Errors
    /// Those of copying them from a GPU.
    pub fn scale_and_shift(&self) -> Result<(Vec<f32>, Vec<f32>)> {
        let (mut scale, channels) = (self.coefficients.to_vec()?, self.coefficients.last_dim());
        let shift = scale[channels..2 * channels].to_vec();
        scale.truncate(channels);
        Ok((scale, shift))
    }
}

/// y = (x - mean) / deviation of images x (N, H, W, C). No gradient flows back to the images.
///
/// # Errors
/// [`EngineError::Shape`](crate::EngineError::Shape) if x has not as many channels; errors of the device.
pub fn normalize(tape: &mut Tape, x: &Var, by: &Normalization) -> Result<Var> {
    let (x, coefficients) = (x.tensor(), &by.coefficients);
    if x.last_dim() != coefficients.last_dim() {
        let expected = format!("images (N, H, W, {})", coefficients.last_dim());
        return Err(EngineError::shape("normalize", expected, x.shape()));
    }
    let mut y = Tensor::empty_of(x.device(), x.shape(), x.dtype());
    x.device().kernels().batch_norm_forward(x, coefficients, None, false, &mut y, None)?;
    Ok(tape.input(y))
}
