//! ResNets, projection heads, initialisation and parameter names.
//!
//! ```
//! use simclr_engine::{Device, Mode, Parameters, SingleProcess, Tape, Tensor};
//! use simclr_nn::{Depth, Head, HeadSpec, ResNet, ResNetSpec, Stem};
//!
//! let device = Device::cpu(1)?;
//! let mut parameters = Parameters::new();
//! let spec = ResNetSpec::new(Depth::D18, 0.125, Stem::Small);
//! let encoder = ResNet::new(&spec, &device, 0, &mut parameters)?;
//! let head = Head::new(&HeadSpec::default(), encoder.features(), &device, 0, &mut parameters)?;
//! let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
//! let views = tape.input(Tensor::zeros(&device, &[4, 32, 32, 3])?);
//! let h = encoder.forward(&mut tape, &views)?;
//! let z = head.forward(&mut tape, &h)?;
//! assert_eq!((h.tensor().shape(), z.tensor().shape()), (&[4, 64][..], &[4, 128][..]));
//! # Ok::<(), simclr_nn::NnError>(())
//! ```

#![forbid(unsafe_code)]

mod error;
mod head;
mod initialize;
mod layers;
mod layout;
mod resnet;

pub use error::NnError;
pub use head::{Head, HeadLayer, HeadSpec};
pub use layers::{Conv, Linear};
pub use layout::{load_tensor, store_tensor, stored_shape};
pub use resnet::{
    AvgPool, Block, Depth, Downsample, MaxPool, Memory, PoolPadding, ResNet, ResNetSpec, SelectiveKernels,
    Stem, StemLayers, Variant,
};

/// The result type of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, NnError>;
