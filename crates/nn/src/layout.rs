//! Conversion between files, in PyTorch's shapes, and memory, channels last.

use simclr_engine::{ParameterId, Parameters, Tensor};

use crate::{NnError, Result};

/// The shape of a parameter as PyTorch writes it.
pub fn stored_shape(tensor: &Tensor) -> Vec<usize> {
    match *tensor.shape() {
        [out, h, w, inputs] => vec![out, inputs, h, w],
        _ => tensor.shape().to_vec(),
    }
}

/// A parameter as PyTorch writes it: convolution weights (out, in, h, w), everything else as it is.
pub fn store_tensor(tensor: &Tensor) -> Result<(Vec<usize>, Vec<f32>)> {
    let values = tensor.to_vec()?;
    let shape = stored_shape(tensor);
    let &[_, inputs, h, w] = &shape[..] else {
        return Ok((shape, values));
    };
    let mut stored = Vec::with_capacity(values.len());
    for kernel in values.chunks_exact((h * w * inputs).max(1)) {
        for c in 0..inputs {
            stored.extend((0..h * w).map(|tap| kernel[tap * inputs + c]));
        }
    }
    Ok((shape, stored))
}

/// Loads stored values, in PyTorch's shape, into a parameter.
pub fn load_tensor(
    parameters: &mut Parameters,
    id: ParameterId,
    shape: &[usize],
    values: &[f32],
) -> Result<()> {
    let name = parameters.name(id).to_owned();
    let tensor = parameters.get_mut(id);
    let expected = stored_shape(tensor);
    if shape != expected || values.len() != expected.iter().product::<usize>() {
        return Err(NnError::Mismatch { name, expected, got: shape.to_vec() });
    }
    let &[_, inputs, h, w] = shape else {
        return Ok(tensor.write(values)?);
    };
    let len = (h * w * inputs).max(1);
    let mut own = vec![0.0; values.len()];
    for (kernel, stored) in own.chunks_exact_mut(len).zip(values.chunks_exact(len)) {
        for tap in 0..h * w {
            for c in 0..inputs {
                kernel[tap * inputs + c] = stored[c * h * w + tap];
            }
        }
    }
    Ok(tensor.write(&own)?)
}
