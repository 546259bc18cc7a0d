//! The network of a run: encoder and projection head, made from a configuration, stored in and loaded from
//! checkpoints.

use std::borrow::Cow;

use simclr_engine::ops::Normalization;
use simclr_engine::{DType, Device, EngineError, Mode, Parameters, SingleProcess, Tape, Tensor};
use simclr_nn::{Head, HeadSpec, Memory, ResNet, ResNetSpec, load_tensor, store_tensor};

use crate::checkpoint::{Checkpoint, NamedTensor};
use crate::config::{HeadKind, Precision, Shortcut};
use crate::{Config, TrainError};

/// The most images in a batch that is embedded.
const MAX_IMAGES: usize = 128;
/// The most pixels: fewer would leave processors without work in a network's last stages, and make Winograd's
/// convolutions not worth while there; more leave the caches between one layer and the next.
const MAX_PIXELS: usize = 64 * 224 * 224;
/// The most pixels on a GPU.
const GPU_MAX_PIXELS: usize = 128 * 224 * 224;
/// Small images fill a GPU only in batches of up to so many, within so many pixels.
const GPU_MAX_IMAGES: usize = 256;
const GPU_FULL_PIXELS: usize = GPU_MAX_IMAGES * 64 * 64;
/// Smallest batch embedded on a GPU, unless large images make even the largest smaller.
const GPU_MIN_IMAGES: usize = 32;

/// Encoder f and projection head g: f maps views to h, g maps h to z.
#[derive(Clone, Debug)]
pub struct Model {
    /// The device of its tensors.
    pub device: Device,
    /// All tensors, the encoder's with torchvision's names, the head's with the prefix `head.`.
    pub parameters: Parameters,
    /// f.
    pub encoder: ResNet,
    /// g, discarded after pretraining.
    pub head: Head,
    image_size: usize,
    /// The type of the encoder's activations.
    activations: DType,
}

impl Model {
    /// Creates the model that `config` describes, with parameters drawn from `config.train.seed`. On a CPU, fp16
    /// computes in f32; [`Config::prepare`] checks what can train. If `train.memory` is auto, everything is kept for
    /// the backward pass until [`memory::choose`](crate::memory::choose) decides.
    ///
    /// # Errors
    /// An invalid size of the network; errors of the device.
    pub fn new(config: &Config, device: &Device) -> Result<Model, TrainError> {
        Model::with_seed(config, device, config.train.seed)
    }

    /// [`Model::new`] with another seed, for a random encoder to compare with.
    pub fn with_seed(config: &Config, device: &Device, seed: u64) -> Result<Model, TrainError> {
        Model::made(config, device, Some(seed))
    }

    /// With parameters drawn from `seed`, or all 0.
    fn made(config: &Config, device: &Device, seed: Option<u64>) -> Result<Model, TrainError> {
        let config = &config.resolved()?;
        let image_size = config.data.image_size as usize;
        let mut parameters = Parameters::new();
        let spec = resnet_spec(config);
        let normalization = config.encoder.normalize.constants();
        let normalization = normalization
            .map(|[mean, deviation]| Normalization::new(device, &mean, &deviation))
            .transpose()?;
        let encoder = match seed {
            Some(seed) => ResNet::new(&spec, device, seed, &mut parameters)?,
            None => ResNet::blank(&spec, device, &mut parameters)?,
        };
        let encoder = encoder.with_normalization(normalization);
        let (spec, features) = (head_spec(config), encoder.features());
        let head = match seed {
            Some(seed) => Head::new(&spec, features, device, seed, &mut parameters)?,
            None => Head::blank(&spec, features, device, &mut parameters)?,
        };
        let activations = match config.train.precision {
            Precision::Bf16 => DType::Bf16,
            Precision::Fp16 if device.is_gpu() => DType::F16,
            // The processor does not compute in f16; f32 is the nearest type.
            Precision::Fp16 | Precision::Tf32 | Precision::F32 | Precision::Auto => DType::F32,
        };
        let model = Model { device: device.clone(), parameters, encoder, head, image_size, activations };
        Ok(model.with_memory(config.train.memory.unwrap_or_default()))
    }

    /// Returns the model with `memory` as what it keeps for the backward pass.
    pub fn with_memory(self, memory: Memory) -> Model {
        Model { encoder: self.encoder.with_memory(memory), ..self }
    }

    /// Returns the model with activations stored as `dtype`.
    pub fn with_activations(self, dtype: DType) -> Model {
        Model { activations: dtype, ..self }
    }

    /// The type of the encoder's activations.
    pub fn activations(&self) -> DType {
        self.activations
    }

    /// Loads the model of a checkpoint, with the configuration recorded in it.
    ///
    /// # Errors
    /// A configuration that cannot be read, and as [`Model::new`] and [`Model::load`].
    pub fn from_checkpoint(checkpoint: &Checkpoint, device: &Device) -> Result<(Model, Config), TrainError> {
        let config = Config::from_toml(&checkpoint.meta.config, "the checkpoint's configuration")?;
        let mut model = Model::made(&config, device, None)?;
        model.load(checkpoint)?;
        Ok((model, config))
    }

    /// Side of the input images, in pixels.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// Converts 8-bit images (n, S, S, 3) to the encoder's input.
    ///
    /// # Errors
    /// Bytes that are not a whole number of such images; errors of the device.
    pub fn images(&self, bytes: &[u8]) -> Result<Tensor, TrainError> {
        let side = self.image_size;
        let shape = [self.count(bytes)?, side, side, 3];
        Ok(Tensor::from_bytes(&self.device, &shape, bytes, self.activations)?)
    }

    /// The best number of images to [embed](Self::embed) in one batch: the fewer, the larger they are, so that a batch
    /// of large images takes no more memory than one of small ones.
    pub fn images_at_once(&self) -> usize {
        let most = |pixels| self.images_within(pixels).clamp(1, MAX_IMAGES);
        match self.device.is_gpu() {
            true => self.images_within(GPU_FULL_PIXELS).clamp(most(GPU_MAX_PIXELS), GPU_MAX_IMAGES),
            false => most(MAX_PIXELS),
        }
    }

    /// How many images have so many pixels.
    pub(crate) fn images_within(&self, pixels: usize) -> usize {
        pixels / self.image_size.pow(2).max(1)
    }

    /// The number of images, padding included, that go through the network when `count` are embedded. A GPU tunes its
    /// kernels for each batch size, so up to [`Model::images_at_once`] there are two: for few images and for many.
    pub(crate) fn embedded_with(&self, count: usize) -> usize {
        let few = GPU_MIN_IMAGES.min(self.images_at_once());
        match self.device.is_gpu() {
            true if count <= few => few,
            true => count.next_multiple_of(self.images_at_once()),
            false => count,
        }
    }

    /// The number of images in `bytes`.
    fn count(&self, bytes: &[u8]) -> Result<usize, TrainError> {
        let side = self.image_size;
        let size = side * side * 3;
        if size > 0 && bytes.len().is_multiple_of(size) {
            return Ok(bytes.len() / size);
        }
        let expected = format!("images of {side} x {side} x 3 = {size} bytes each");
        let got = format!("{} bytes", bytes.len());
        Err(EngineError::Shape { op: "images", expected, got }.into())
    }

    /// Returns h and z of images, using BatchNorm's running averages: row-major (n, features) and (n, head.dim()),
    /// neither normalised. No images give no values.
    ///
    /// `bytes` are 8-bit RGB images (n, S, S, 3) with S = [`Model::image_size`], rows from the top, interleaved. For
    /// larger images use the [central crops](simclr_augment::central_crop()), as evaluations do.
    /// [`Model::images_at_once`] is a good n; several threads may embed with one model.
    ///
    /// # Errors
    /// [`EngineError::Shape`] for bytes that are not a whole number of images; errors of the device.
    pub fn embed(&self, bytes: &[u8]) -> Result<(Vec<f32>, Vec<f32>), TrainError> {
        let size = self.image_size * self.image_size * 3;
        let count = self.count(bytes)?;
        if count == 0 {
            return Ok((Vec::new(), Vec::new()));
        }
        let padded = self.embedded_with(count);
        let bytes = match padded == count {
            true => Cow::Borrowed(bytes),
            false => Cow::Owned([bytes, &vec![0; (padded - count) * size]].concat()),
        };
        let mut tape = Tape::new(&self.parameters, Mode::Eval, &SingleProcess);
        let images = tape.input(self.images(&bytes)?);
        let h = self.encoder.forward(&mut tape, &images)?;
        let z = self.head.forward(&mut tape, &h)?;
        let rows = |x: &Tensor| {
            let mut values = x.to_vec()?;
            values.truncate(count * x.last_dim());
            Ok::<_, TrainError>(values)
        };
        Ok((rows(h.tensor())?, rows(z.tensor())?))
    }

    /// Returns all tensors, in PyTorch's layouts.
    pub fn store(&self) -> Result<Vec<NamedTensor>, TrainError> {
        let tensors = self.parameters.iter().map(|(name, _, value)| {
            let (shape, data) = store_tensor(value)?;
            Ok(NamedTensor { name: name.to_owned(), shape, data })
        });
        tensors.collect()
    }

    /// A checksum (CRC-32C) of the encoder's tensors with their names and shapes, to detect results of a different
    /// encoder.
    pub fn fingerprint(&self) -> Result<u32, TrainError> {
        let mut crc = 0;
        for (name, _, value) in self.parameters.iter().filter(|(name, ..)| !name.starts_with("head.")) {
            let (shape, data) = store_tensor(value)?;
            crc = crc32c::crc32c_append(crc, name.as_bytes());
            let sides = shape.iter().flat_map(|&side| (side as u64).to_le_bytes());
            let values = data.iter().flat_map(|value| value.to_le_bytes());
            crc = crc32c::crc32c_append(crc, &sides.chain(values).collect::<Vec<u8>>());
        }
        Ok(crc)
    }

    /// Loads all tensors from a checkpoint.
    ///
    /// # Errors
    /// [`TrainError::MissingTensor`], a tensor of the wrong shape; some tensors may then already be loaded.
    pub fn load(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        for id in self.parameters.ids() {
            let name = self.parameters.name(id).to_owned();
            let Some(stored) = checkpoint.tensor(&name) else {
                return Err(TrainError::MissingTensor { name });
            };
            load_tensor(&mut self.parameters, id, &stored.shape, &stored.data)?;
        }
        Ok(())
    }
}

/// The encoder that a configuration describes.
pub fn resnet_spec(config: &Config) -> ResNetSpec {
    let encoder = &config.encoder;
    ResNetSpec {
        depth: encoder.name,
        width: encoder.width,
        stem: encoder.stem_at(config.data.image_size),
        variant: encoder.settled_variant(),
        selective_kernels: Some(encoder.selective_kernels).filter(|&ratio| ratio > 0.0),
        projection_shortcuts: encoder.shortcut == Shortcut::Projection,
        pool_padding: encoder.pool_padding,
    }
}

fn head_spec(config: &Config) -> HeadSpec {
    let head = &config.head;
    HeadSpec {
        layers: match head.kind {
            HeadKind::None => 0,
            HeadKind::Linear => 1,
            HeadKind::Nonlinear => head.layers,
        },
        hidden: head.hidden.value(),
        dim: head.dim,
        batch_norm: head.batch_norm,
    }
}
