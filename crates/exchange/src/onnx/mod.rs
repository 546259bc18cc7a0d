//! Networks as ONNX files, from `images` (batch, 3, S, S), f32 RGB from 0 to 1, to `h` (batch, features) and, with the
//! projection, to `z` (batch, dim).
//!
//! A file is for inference, in f32 whatever the precision of training: each BatchNorm is folded by its running
//! averages into the convolution or dense layer before it (`fold.rs`), as runtimes would do on loading. The
//! operators are Conv, Relu, MaxPool, Add, GlobalAveragePool, Flatten, in a ResNet-D AveragePool, with selective
//! kernels Split, Sub, Mul and Sigmoid, for a head Gemm and Identity, and Mul and Add where images are normalised
//! (`encoder.normalize`), in the versions of opset 17; all weights are inside. The batch may have any size, S is
//! that of training.

mod fold;
mod graph;
pub mod messages;

use std::path::Path;

use prost::Message;
use simclr_train::file_system::{Disk, write_atomically};

use crate::{ExchangeError, Result, Trained};
use messages::{ModelProto, OperatorSetIdProto, StringStringEntryProto};

/// Versions of the file format and of the operators, which onnxruntime reads since 1.12 (2022).
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// The most bytes that a protocol buffer may have.
const LIMIT: usize = i32::MAX as usize;

/// A network as an ONNX file.
#[derive(Debug)]
pub struct OnnxFile {
    bytes: Vec<u8>,
}

impl OnnxFile {
    /// The file of a network, with its head if `with_projection`.
    ///
    /// # Errors
    /// [`ExchangeError::TooLarge`], [`ExchangeError::Useless`].
    pub fn new(trained: &Trained, with_projection: bool) -> Result<OnnxFile> {
        let graph = graph::graph(trained.model, with_projection)?;
        let facts = trained.facts(true)?.into_iter();
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "simclr".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            doc_string: format!(
                "An encoder pretrained with SimCLR: {} of width {}, after {} steps.",
                trained.config.encoder.name, trained.config.encoder.width, trained.step
            ),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            metadata_props: facts
                .map(|(key, value)| StringStringEntryProto { key: key.to_owned(), value })
                .collect(),
        };
        match model.encoded_len() {
            bytes if bytes > LIMIT => Err(ExchangeError::TooLarge { bytes, limit: LIMIT }),
            _ => Ok(OnnxFile { bytes: model.encode_to_vec() }),
        }
    }

    /// Writes the file to `path`, whole or not at all.
    ///
    /// # Errors
    /// Whatever the system reports, with the path.
    pub fn save(&self, path: &Path) -> Result<()> {
        Ok(write_atomically(&Disk, path, |out| out.write_all(&self.bytes))?)
    }

    /// The contents.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
