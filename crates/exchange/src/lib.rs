//! Encoders to and from the formats of other programs.
//!
//! | file | |
//! |---|---|
//! | `trained` | a network with where it comes from, which is what is written |
//! | `flaw` | values with which a network is useless |
//! | `state_dict` | torchvision's names in a safetensors file |
//! | `import` | the way back, into a run folder; a fine-tuned network, to be used |
//! | `onnx` | a graph that ONNX runtimes run |
//! | `error` | what can go wrong |

#![forbid(unsafe_code)]

mod checksum;
mod error;
mod flaw;
mod import;
pub mod onnx;
mod state_dict;
mod trained;

pub use error::ExchangeError;
pub use import::{FineTunedFile, ImportOptions, Imported};
pub use onnx::OnnxFile;
pub use state_dict::StateDict;
pub use trained::Trained;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, ExchangeError>;
