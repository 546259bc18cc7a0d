//! A tensor: contiguous values on a device.

use std::fmt;

use bytemuck::Pod;
use half::{bf16, f16};
use simclr_kernels::Element;

use crate::memory::Memory;
use crate::{Bytes, Device, EngineError, Pixels, Result};

/// The most dimensions a tensor has: images, rows, columns, channels.
const MAX_RANK: usize = 4;

/// The type of a tensor's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit IEEE floats.
    F32,
    /// The upper halves of 32-bit floats: the same range, 8 bits of precision. For activations and their gradients.
    Bf16,
    /// 16-bit IEEE floats: 11 bits of precision, up to 65,504. For activations and their gradients, on GPUs only.
    F16,
    /// 64-bit IEEE floats. For sums over many values: statistics, norms, the loss.
    F64,
}

/// A Rust type that a tensor can hold.
pub trait Stored: Pod {
    /// The corresponding [`DType`].
    const DTYPE: DType;
}

impl Stored for f32 {
    const DTYPE: DType = DType::F32;
}

impl Stored for bf16 {
    const DTYPE: DType = DType::Bf16;
}

impl Stored for f16 {
    const DTYPE: DType = DType::F16;
}

impl Stored for f64 {
    const DTYPE: DType = DType::F64;
}

impl DType {
    /// The size of a value in bytes.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::Bf16 | DType::F16 => 2,
            DType::F64 => 8,
        }
    }
}

/// Contiguous values on a device, images channels last: (N, H, W, C), convolution weights (out, h, w, in). f32
/// unless said otherwise.
///
/// Cloning shares the values. There are no strided views: a kernel never meets a layout that it was not written for.
#[derive(Clone)]
pub struct Tensor {
    dims: [usize; MAX_RANK],
    rank: usize,
    dtype: DType,
    memory: Memory,
    device: Device,
}

/// The number of values in `shape`, saturating at `usize::MAX`, which cannot be allocated.
pub(crate) fn count(shape: &[usize]) -> usize {
    shape.iter().fold(1, |values: usize, &size| values.saturating_mul(size))
}

impl Tensor {
    /// A tensor whose values are arbitrary until written. `shape` has at most four sizes. If a GPU is out of memory,
    /// the first operation that needs the values returns the error.
    pub fn empty(device: &Device, shape: &[usize]) -> Tensor {
        Tensor::empty_of(device, shape, DType::F32)
    }

    /// [`Tensor::empty`] of values of `dtype`.
    ///
    /// # Panics
    ///
    /// If `shape` has more than four sizes, or its values exceed the address space.
    pub fn empty_of(device: &Device, shape: &[usize], dtype: DType) -> Tensor {
        assert!(shape.len() <= MAX_RANK, "a tensor has at most {MAX_RANK} dimensions, not {}", shape.len());
        let mut dims = [1; MAX_RANK];
        dims[..shape.len()].copy_from_slice(shape);
        let bytes = count(shape).saturating_mul(dtype.size());
        Tensor { dims, rank: shape.len(), dtype, memory: device.place().take(bytes), device: device.clone() }
    }

    /// A tensor of `value`s.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn full(device: &Device, shape: &[usize], value: f32) -> Result<Tensor> {
        let mut tensor = Tensor::empty(device, shape);
        device.kernels().fill(&mut tensor, value)?;
        Ok(tensor)
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn zeros(device: &Device, shape: &[usize]) -> Result<Tensor> {
        Tensor::full(device, shape, 0.0)
    }

    /// A tensor of the given values, row-major.
    ///
    /// # Errors
    /// [`EngineError::Shape`](crate::EngineError::Shape) if the number of values is not that of the shape; errors of
    /// the device.
    pub fn from_slice(device: &Device, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        if count(shape) != values.len() {
            return Err(EngineError::shape("tensor", format!("{shape:?}"), values.len()));
        }
        let mut tensor = Tensor::empty(device, shape);
        tensor.write(values)?;
        Ok(tensor)
    }

    /// [`Tensor::from_slice`] of a vector.
    ///
    /// # Errors
    /// As [`Tensor::from_slice`].
    pub fn from_vec(device: &Device, shape: &[usize], values: Vec<f32>) -> Result<Tensor> {
        Tensor::from_slice(device, shape, &values)
    }

    /// 8-bit values mapped to [0, 1], as a loader's images are, stored as `dtype`.
    ///
    /// # Errors
    /// [`EngineError::Shape`](crate::EngineError::Shape) if the number of bytes is not that of the shape; errors of the
    /// device.
    pub fn from_bytes(device: &Device, shape: &[usize], bytes: &[u8], dtype: DType) -> Result<Tensor> {
        if count(shape) != bytes.len() {
            return Err(EngineError::shape("tensor", format!("{shape:?}"), bytes.len()));
        }
        let mut tensor = Tensor::empty_of(device, shape, dtype);
        device.kernels().unit_from_bytes(Bytes::Host(bytes), &mut tensor)?;
        Ok(tensor)
    }

    /// [`Tensor::from_bytes`] of pixels that are on the device already.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn from_pixels(pixels: &Pixels, dtype: DType) -> Result<Tensor> {
        let device = pixels.device();
        let mut tensor = Tensor::empty_of(device, pixels.shape(), dtype);
        device.kernels().unit_from_bytes(pixels.bytes()?, &mut tensor)?;
        Ok(tensor)
    }

    /// The sizes.
    pub fn shape(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        count(self.shape())
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last size: channels, or the width of a row.
    pub fn last_dim(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }

    /// The number of pixels per image, for images (N, H, W, C).
    pub(crate) fn pixels(&self) -> usize {
        match self.shape() {
            [_, pixels @ .., _] => pixels.iter().product(),
            _ => 1,
        }
    }

    /// The type of the values.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the tensor lives.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The f32 values in place.
    ///
    /// # Errors
    /// They have another type or are not in host memory.
    pub fn as_slice(&self) -> Result<&[f32]> {
        self.values()
    }

    /// The values in place.
    ///
    /// # Errors
    /// They have another type or are not in host memory.
    pub fn values<E: Stored>(&self) -> Result<&[E]> {
        self.check_type::<E>()?;
        self.memory.host()
    }

    /// The f32 values in place, for writing. Shared values are copied first: other clones keep theirs.
    ///
    /// # Errors
    /// As [`Tensor::as_slice`].
    pub fn as_mut_slice(&mut self) -> Result<&mut [f32]> {
        self.values_mut()
    }

    /// [`Tensor::values`] for writing. Shared values are copied first: other clones keep theirs.
    ///
    /// # Errors
    /// As [`Tensor::values`].
    pub fn values_mut<E: Stored>(&mut self) -> Result<&mut [E]> {
        self.check_type::<E>()?;
        let device = self.device.clone();
        self.memory.host_mut(device.place())
    }

    /// Copies all values into `to`, wherever they are.
    ///
    /// # Errors
    /// The type or the number of values differs; errors of the device.
    pub fn read<E: Stored>(&self, to: &mut [E]) -> Result<()> {
        self.check_type::<E>()?;
        self.check_len(to.len())?;
        self.memory.read(self.device.place(), to)
    }

    /// Replaces all values, wherever they are; other clones keep theirs.
    ///
    /// # Errors
    /// The type or the number of values differs; errors of the device.
    pub fn write<E: Stored>(&mut self, values: &[E]) -> Result<()> {
        self.check_type::<E>()?;
        self.check_len(values.len())?;
        self.memory.write(self.device.place(), values)
    }

    fn check_len(&self, len: usize) -> Result<()> {
        if self.len() == len {
            return Ok(());
        }
        Err(EngineError::shape("tensor", format!("{} values", self.len()), len))
    }

    fn check_type<E: Stored>(&self) -> Result<()> {
        if self.dtype == E::DTYPE {
            return Ok(());
        }
        let what = format!("values are {:?}, {:?} are needed", self.dtype, E::DTYPE);
        Err(EngineError::Value { op: "tensor", what })
    }

    /// The values in f32, copied to the host.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        match self.dtype {
            DType::F32 => self.copied(),
            DType::Bf16 => Ok(self.copied::<bf16>()?.into_iter().map(Element::widen).collect()),
            DType::F16 => Ok(self.copied::<f16>()?.into_iter().map(f16::to_f32).collect()),
            DType::F64 => Ok(self.copied::<f64>()?.into_iter().map(|v| v as f32).collect()),
        }
    }

    fn copied<E: Stored>(&self) -> Result<Vec<E>> {
        let mut values = vec![E::zeroed(); self.len()];
        self.read(&mut values)?;
        Ok(values)
    }

    /// The values rounded to another type.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype {
            return Ok(self.clone());
        }
        let (values, mut cast) = (self.to_vec()?, Tensor::empty_of(&self.device, self.shape(), dtype));
        match dtype {
            DType::F32 => cast.write(&values)?,
            DType::Bf16 => cast.write::<bf16>(&values.into_iter().map(bf16::narrow).collect::<Vec<_>>())?,
            DType::F16 => cast.write::<f16>(&values.into_iter().map(f16::from_f32).collect::<Vec<_>>())?,
            DType::F64 => cast.write::<f64>(&values.into_iter().map(f64::from).collect::<Vec<_>>())?,
        }
        Ok(cast)
    }

    /// The values for a GPU's kernels. An error if they are not on a GPU.
    #[cfg(feature = "cuda")]
    pub(crate) fn gpu<E: Stored>(&self) -> Result<simclr_cuda::Slice<'_, E>> {
        self.check_type::<E>()?;
        self.memory.gpu()
    }

    /// The same for writing. Shared values are copied first: other clones keep theirs.
    #[cfg(feature = "cuda")]
    pub(crate) fn gpu_mut<E: Stored>(
        &mut self,
        gpu: &simclr_cuda::Device,
    ) -> Result<simclr_cuda::SliceMut<'_, E>> {
        self.check_type::<E>()?;
        self.memory.gpu_mut(gpu)
    }

    /// Returns an error of operator `op` unless the values are of `dtype`.
    pub(crate) fn expect_type(&self, op: &'static str, dtype: DType) -> Result<()> {
        if self.dtype == dtype {
            return Ok(());
        }
        Err(EngineError::Value { op, what: format!("{dtype:?} is needed, {self:?} was given") })
    }

    /// self += other, in place if no clone shares the values.
    ///
    /// # Errors
    /// [`EngineError::Shape`](crate::EngineError::Shape) if the shapes differ, and
    /// [`EngineError::Value`](crate::EngineError::Value) if the types do; errors of the device.
    pub fn add_assign(&mut self, other: &Tensor) -> Result<()> {
        if self.shape() != other.shape() {
            return Err(EngineError::shape("add", format!("{:?}", self.shape()), other.shape()));
        }
        other.expect_type("add", self.dtype)?;
        let device = self.device.clone();
        device.kernels().add_assign(self, other)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {:?}, {})", self.shape(), self.dtype, self.device)
    }
}

/// The error of activation kernels for a type that they do not support.
pub(crate) fn not_activations(x: &Tensor) -> EngineError {
    let needed = match (x.dtype, x.device.is_gpu()) {
        (_, true) => "f32, bf16 or f16 is needed",
        (DType::F16, false) => "f16 needs a GPU, here f32 or bf16 is needed",
        (_, false) => "f32 or bf16 is needed",
    };
    EngineError::Value { op: "kernel", what: format!("{needed}, {x:?} was given") }
}

/// Evaluates an expression with `$E` standing for the Rust type of a tensor's values, for the types that the CPU
/// computes with.
macro_rules! typed {
    ($tensor:expr, $E:ident => $body:expr) => {
        match $tensor.dtype() {
            $crate::DType::F32 => {
                type $E = f32;
                $body
            }
            $crate::DType::Bf16 => {
                type $E = half::bf16;
                $body
            }
            $crate::DType::F16 | $crate::DType::F64 => return Err($crate::tensor::not_activations($tensor)),
        }
    };
}
pub(crate) use typed;

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
    fn types_do_not_mix() {
        let device = Device::cpu(1).unwrap();
        let mut half = Tensor::from_bytes(&device, &[3], &[0, 51, 255], DType::Bf16).unwrap();
        assert_eq!(half.to_vec().unwrap(), [0.0, bf16::narrow(0.2).widen(), 1.0]);
        assert_eq!(half.values::<bf16>().unwrap().len(), 3);
        let wide = half.cast(DType::F32).unwrap();
        assert_eq!(wide.as_slice().unwrap(), half.to_vec().unwrap());
        assert_eq!(wide.cast(DType::Bf16).unwrap().to_vec().unwrap(), half.to_vec().unwrap());
        assert!(half.as_slice().is_err() && half.as_mut_slice().is_err());
        assert!(half.add_assign(&Tensor::zeros(&device, &[3]).unwrap()).is_err());
        let other = half.clone();
        half.add_assign(&other).unwrap();
        assert_eq!(half.to_vec().unwrap()[2], 2.0);
    }

    #[test]
    fn f16_is_kept_but_not_computed_with() {
        let device = Device::cpu(1).unwrap();
        let wide = Tensor::from_vec(&device, &[4], vec![0.1, -2.0, 65504.0, 7e4]).unwrap();
        let half = wide.cast(DType::F16).unwrap();
        assert_eq!((half.dtype().size(), half.values::<f16>().unwrap().len()), (2, 4));
        let tenth = f16::from_f32(0.1).to_f32();
        assert_eq!(half.to_vec().unwrap(), [tenth, -2.0, 65504.0, f32::INFINITY]);
        let refused = half.clone().add_assign(&half).unwrap_err().to_string();
        assert!(refused.contains("f16 needs a GPU"), "{refused}");
    }

    #[test]
    fn wrong_sizes_are_errors() {
        let device = Device::cpu(1).unwrap();
        assert!(Tensor::from_vec(&device, &[2, 2], vec![0.0; 3]).is_err());
        let mut a = Tensor::zeros(&device, &[6]).unwrap();
        assert!(a.add_assign(&Tensor::zeros(&device, &[5]).unwrap()).is_err());
    }

    #[test]
    fn sizes_beyond_all_memory_do_not_wrap() {
        let device = Device::cpu(1).unwrap();
        // 2^64 and 2^64 + 1 values, which would wrap to 0 and 1.
        for shape in [&[1 << 32, 1 << 32][..], &[274_177, 67_280_421_310_721]] {
            assert!(Tensor::from_slice(&device, shape, &[]).is_err());
            assert!(Tensor::from_slice(&device, shape, &[1.0]).is_err());
            let refused = std::panic::catch_unwind(|| {
                drop(Tensor::empty(&Device::cpu(1).unwrap(), shape));
            })
            .unwrap_err();
            let said = refused.downcast_ref::<String>().unwrap();
            assert!(said.contains("exceeds the address space"), "{said}");
        }
        assert!(Tensor::empty(&device, &[1 << 40, 1 << 40, 0]).is_empty());
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
