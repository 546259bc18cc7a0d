//! A tensor: contiguous values on a device.

use std::fmt;
use std::sync::Arc;

use simclr_kernels::buffer::Buffer;

use crate::{Device, EngineError, Result};

/// The most dimensions a tensor has: images, rows, columns, channels.
const MAX_RANK: usize = 4;

/// The type of a tensor's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit IEEE floats.
    F32,
}

impl DType {
    /// Bytes that a value takes.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
        }
    }
}

/// Contiguous values on a device, images channels last: (N, H, W, C), convolution weights (out, h, w, in).
///
/// Cloning shares the values. There are no strided views: a kernel never meets a layout that it was not written for.
#[derive(Clone)]
pub struct Tensor {
    dims: [usize; MAX_RANK],
    rank: usize,
    dtype: DType,
    buffer: Arc<Buffer>,
    device: Device,
}

impl Tensor {
    /// A tensor whose values are arbitrary until written. `shape` has at most four sizes.
    pub fn empty(device: &Device, shape: &[usize]) -> Tensor {
        assert!(shape.len() <= MAX_RANK, "a tensor has at most {MAX_RANK} dimensions, not {}", shape.len());
        let mut dims = [1; MAX_RANK];
        dims[..shape.len()].copy_from_slice(shape);
        let dtype = DType::F32;
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Tensor {
            dims,
            rank: shape.len(),
            dtype,
            buffer: Arc::new(device.pool().take(bytes)),
            device: device.clone(),
        }
    }

    /// A tensor of `value`s.
    pub fn full(device: &Device, shape: &[usize], value: f32) -> Result<Tensor> {
        let mut tensor = Tensor::empty(device, shape);
        tensor.as_mut_slice()?.fill(value);
        Ok(tensor)
    }

    /// A tensor of zeros.
    pub fn zeros(device: &Device, shape: &[usize]) -> Result<Tensor> {
        Tensor::full(device, shape, 0.0)
    }

    /// A tensor of the given values, row-major.
    pub fn from_slice(device: &Device, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        if shape.iter().product::<usize>() != values.len() {
            return Err(EngineError::shape("tensor", format!("{shape:?}"), values.len()));
        }
        let mut tensor = Tensor::empty(device, shape);
        tensor.as_mut_slice()?.copy_from_slice(values);
        Ok(tensor)
    }

    /// [`Tensor::from_slice`] of a vector.
    pub fn from_vec(device: &Device, shape: &[usize], values: Vec<f32>) -> Result<Tensor> {
        Tensor::from_slice(device, shape, &values)
    }

    /// 8-bit values mapped to [0, 1], as a loader's images are.
    pub fn from_bytes(device: &Device, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
        if shape.iter().product::<usize>() != bytes.len() {
            return Err(EngineError::shape("tensor", format!("{shape:?}"), bytes.len()));
        }
        let mut tensor = Tensor::empty(device, shape);
        device.kernels().unit_from_bytes(bytes, &mut tensor)?;
        Ok(tensor)
    }

    /// The sizes.
    pub fn shape(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last size: channels, or the width of a row.
    pub fn last_dim(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }

    /// The type of the values.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the tensor lives.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The values in place. An error where they are not in host memory.
    pub fn as_slice(&self) -> Result<&[f32]> {
        Ok(self.buffer.as_slice())
    }

    /// The values in place, for writing. Shared values are copied first: other clones keep theirs.
    pub fn as_mut_slice(&mut self) -> Result<&mut [f32]> {
        if Arc::get_mut(&mut self.buffer).is_none() {
            let mut copy = self.device.pool().take(self.buffer.len());
            copy.as_mut_slice::<f32>().copy_from_slice(self.buffer.as_slice());
            self.buffer = Arc::new(copy);
        }
        match Arc::get_mut(&mut self.buffer) {
            Some(buffer) => Ok(buffer.as_mut_slice()),
            None => unreachable!("the buffer was copied above and not shared since"),
        }
    }

    /// The values, copied to the host.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        self.as_slice().map(<[f32]>::to_vec)
    }

    /// The same values under another shape of as many.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if shape.len() > MAX_RANK || shape.iter().product::<usize>() != self.len() {
            return Err(EngineError::shape("reshape", format!("a shape of {} values", self.len()), shape));
        }
        let mut dims = [1; MAX_RANK];
        dims[..shape.len()].copy_from_slice(shape);
        Ok(Tensor { dims, rank: shape.len(), ..self.clone() })
    }

    /// self += other, in place where nobody shares the values.
    pub fn add_assign(&mut self, other: &Tensor) -> Result<()> {
        if self.shape() != other.shape() {
            return Err(EngineError::shape("add", format!("{:?}", self.shape()), other.shape()));
        }
        let device = self.device.clone();
        device.kernels().add_assign(self, other)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {:?}, {})", self.shape(), self.dtype, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_leaves_clones_alone() {
        let device = Device::cpu(1).unwrap();
        let a = Tensor::from_vec(&device, &[2], vec![1.0, 2.0]).unwrap();
        let mut b = a.clone();
        b.as_mut_slice().unwrap()[0] = 5.0;
        b.add_assign(&a).unwrap();
        assert_eq!((a.to_vec().unwrap(), b.to_vec().unwrap()), (vec![1.0, 2.0], vec![6.0, 4.0]));
    }

    #[test]
    fn wrong_sizes_are_errors() {
        let device = Device::cpu(1).unwrap();
        assert!(Tensor::from_vec(&device, &[2, 2], vec![0.0; 3]).is_err());
        let mut a = Tensor::zeros(&device, &[6]).unwrap();
        assert!(a.reshape(&[4]).is_err());
        assert_eq!(a.reshape(&[2, 3]).unwrap().shape(), [2, 3]);
        assert!(a.add_assign(&Tensor::zeros(&device, &[5]).unwrap()).is_err());
    }

    #[test]
    fn memory_returns_to_the_pool() {
        let device = Device::cpu(1).unwrap();
        drop(Tensor::zeros(&device, &[1000]).unwrap());
        let first = device.memory();
        drop(Tensor::zeros(&device, &[1000]).unwrap());
        assert_eq!(first, device.memory());
        assert_eq!((first.live, first.held), (0, 4000));
    }
}
