//! The training engine: tensors, the tape, one file per operator, kernels per device.
//!
//! An operator in [`ops`] is about a layer in size. It runs its kernel immediately and, if the [`Tape`] records,
//! saves what its backward pass needs. [`Tape::backward`] walks the record once, from the loss to the parameters.
//!
//! Where functions name "errors of the device", these are [`EngineError::Value`] for a type of values that the device
//! does not compute with, [`EngineError::OutOfMemory`], and [`EngineError::Device`].
//!
//! ```
//! use simclr_engine::{Collective, Device, Mode, Parameters, ParameterKind, SingleProcess, Tape, Tensor, ops};
//!
//! let device = Device::cpu(1)?;
//! let mut parameters = Parameters::new();
//! let w = parameters.add("w", ParameterKind::Weight, Tensor::from_vec(&device, &[1, 2], vec![3.0, 4.0])?)?;
//! let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
//! let x = tape.input(Tensor::from_vec(&device, &[1, 2], vec![1.0, 2.0])?);
//! let w_var = tape.parameter(w);
//! let y = ops::linear(&mut tape, &x, &w_var, None)?;
//! assert_eq!(y.tensor().as_slice()?, [11.0]);
//! let gradients = tape.backward(&y, Tensor::from_vec(&device, &[1, 1], vec![1.0])?)?;
//! assert_eq!(gradients.get(w).unwrap().as_slice()?, [1.0, 2.0]);
//! # Ok::<(), simclr_engine::EngineError>(())
//! ```

#![forbid(unsafe_code)]

mod between_gpus;
mod captured;
mod collective;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod error;
mod kernels;
mod loss_scale;
mod mask;
mod memory;
pub mod ops;
mod parameters;
mod pixels;
mod profile;
mod spare;
mod tape;
mod tensor;
mod update;
mod verdict;
mod view_maker;
mod watched;

pub use between_gpus::between_gpus;
pub use captured::Captured;
pub use collective::{Collective, SingleProcess, ThreadGroup};
pub use device::{Arithmetic, Device, MemoryUse, Peak, has_bf16, has_gpu};
pub use error::EngineError;
pub(crate) use kernels::{
    BackwardSums, Conv2dNorm, FirstLayer, Gate, Kernels, NormConv2d, NormPair, NormParameters,
};
pub use loss_scale::{LossScale, LossScaleFigures};
pub(crate) use mask::Mask;
pub use parameters::{ParameterId, ParameterKind, Parameters};
pub(crate) use pixels::Bytes;
pub use pixels::Pixels;
pub use profile::{Cost, Profile, Shape, Work};
pub(crate) use simclr_kernels::optimizer::bias_corrections;
pub(crate) use simclr_kernels::{Conv2dGeometry, PoolGeometry};
pub use simclr_kernels::{Isa, Level};
pub use spare::BufferUpdates;
pub use tape::{Gradients, Mode, Segment, Tape, Var};
pub use tensor::{DType, Stored, Tensor};
pub use update::{Deferred, ParameterUpdate, Rule, StepInputs};
pub use verdict::{Verdict, VerdictFigures};
pub use view_maker::{KeptAt, Source, ViewMaker, impossible_on_gpu};

/// The result type of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, EngineError>;
