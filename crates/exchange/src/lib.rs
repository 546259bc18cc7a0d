//! Encoders to and from the formats of other programs.
//!
//! | file | |
//! |---|---|
//! | `trained` | a network and its origin: what is written |
//! | `flaw` | values with which a network is useless |
//! | `state_dict` | torchvision's names in a safetensors file |
//! | `encoder_file` | the `encoder.safetensors` of a run folder |
//! | `import` | networks read from files: into a run folder, or a fine-tuned network to use as it is |
//! | `onnx` | a graph that ONNX runtimes run |
//! | `error` | the error type |

#![forbid(unsafe_code)]

mod checksum;
mod encoder_file;
mod error;
mod flaw;
mod import;
pub mod onnx;
mod state_dict;
mod trained;

pub use encoder_file::{has_encoder, write_encoder};
pub use error::ExchangeError;
pub use import::{FineTunedFile, ImportOptions, Imported};
pub use onnx::OnnxFile;
pub use state_dict::StateDict;
pub use trained::Trained;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, ExchangeError>;

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
