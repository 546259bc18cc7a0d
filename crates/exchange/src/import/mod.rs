//! A network from a file: of another program, as a run folder; fine-tuned, as it is.

mod bundle;
mod fine_tuned;
mod official;
mod pickle;
mod prefix;
mod recognise;
mod safetensors;
mod weights;

use std::path::Path;

use simclr_engine::Device;
use simclr_nn::stored_shape;
use simclr_train::checkpoint::{Checkpoint, Meta, NamedTensor};
use simclr_train::config::{
    Auto, Config, EncoderConfig, EncoderName, HeadConfig, HeadKind, Normalize, Precision, Stem,
};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Model, TrainError};

pub use fine_tuned::FineTunedFile;

use crate::trained::HEAD;
use crate::{ExchangeError, Result};
use recognise::Recognised;
use weights::Weights;

/// Side of the images of networks that do not tell theirs.
const LARGE: u32 = 224;
const SMALL: u32 = 32;

/// What is known of a network beside its file; what the file tells and its tensors show need not be said.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Which network it must be.
    pub encoder: Option<EncoderName>,
    /// Side of the images that it takes, in pixels; where nobody tells, 224, or 32 with the stem for small images.
    pub image_size: Option<u32>,
    /// How its images are normalised, which a file of another program does not tell.
    pub normalize: Option<Normalize>,
    /// Of several networks in a file of PyTorch's, what the names of this one's tensors begin with.
    pub prefix: Option<String>,
    /// What to compute it in; where nobody tells, f32.
    pub precision: Option<Precision>,
}

/// A network that was read: a [`Model`], or a run folder.
///
/// What a run wrote as `encoder.safetensors`, used again:
///
/// ```
/// use simclr_engine::Device;
/// use simclr_exchange::{ImportOptions, Imported};
/// # use simclr_exchange::{StateDict, Trained};
/// # use simclr_train::{Config, Layers, Model};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("encoder.safetensors");
/// # let sets = ["encoder.width=0.0625", "data.image_size=16", "train.precision=f32"].map(String::from);
/// # let config = Config::resolve(&Layers { sets: &sets, ..Layers::default() })?;
/// # let written = Model::new(&config, &Device::cpu(1)?)?;
/// # StateDict::new(&Trained { model: &written, config: &config, step: 1, epoch: 1 }, false)?.save(&file)?;
/// let imported = Imported::read(&file, &ImportOptions::default())?;
/// let model = imported.model(&Device::cpu(0)?)?;
/// // Two images (n, S, S, 3).
/// let side = model.image_size();
/// let images = vec![200; 2 * side * side * 3];
/// let (h, _) = model.embed(&images)?;
/// assert_eq!(h.len(), 2 * model.encoder.features());
/// # assert_eq!(h, written.embed(&images)?.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Imported {
    /// What it is. A network of another program has the defaults where this says how it was trained.
    pub config: Config,
    /// What was taken off the names of its tensors, which are torchvision's without it.
    pub prefix: String,
    /// What the names of other networks in the file begin with.
    pub other_prefixes: Vec<String>,
    /// Tensors that were left out: those of a classifier, of other networks, and those that do not begin with the
    /// prefix.
    pub left_out: Vec<String>,
    checkpoint: Checkpoint,
    from: String,
}

impl Imported {
    /// Reads a safetensors file with torchvision's names (a ResNet of torchvision's, or what
    /// [`StateDict`](crate::StateDict) wrote), one of `torch.save` (a dictionary of tensors, or one in it; nothing
    /// in it is run), or a checkpoint that the official code of SimCLR wrote with TensorFlow: its `.index`, its
    /// name without that, or a folder of one.
    ///
    /// # Errors
    /// A file that is none, is no ResNet that there is here, or of whose tensors one is missing, of another shape,
    /// or unknown. A file that does not tell how images are normalised, where the options do not either.
    pub fn read(path: &Path, options: &ImportOptions) -> Result<Imported> {
        let file = Weights::read(path, options.prefix.as_deref())?;
        let recognised = Recognised::of(&file)?;
        let config = configure(&file, &recognised, options)?;
        let tensors = take_tensors(&file, &config)?;
        let Weights { facts, prefix, other_prefixes, left_out, .. } = file;
        if facts.config.is_none() && facts.normalize.or(options.normalize).is_none() {
            return Err(ExchangeError::Unnormalized { path: path.to_owned() });
        }
        let meta = Meta {
            step: facts.step,
            epoch: facts.epoch,
            seed: config.train.seed,
            config: config.to_toml()?,
            ..Meta::default()
        };
        let from = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Imported {
            config,
            prefix,
            other_prefixes,
            left_out,
            checkpoint: Checkpoint { tensors, meta },
            from,
        })
    }

    /// The network itself, without a folder. One whose file has no head has none: its z is h.
    ///
    /// # Errors
    /// Those of the device.
    pub fn model(&self, device: &Device) -> Result<Model> {
        let (model, _) = Model::from_checkpoint(&self.checkpoint, device)?;
        Ok(model)
    }

    /// Makes a run folder of it, in a folder that does not exist or is empty.
    ///
    /// # Errors
    /// Those of [`RunFolder::create`] and of writing a checkpoint; nothing is left behind then.
    pub fn save(&self, out: &Path) -> Result<()> {
        let run = RunFolder::create_imported(out, &self.config, &self.from)?;
        if let Err(error) = run.checkpoints(1).save(&self.checkpoint) {
            run.discard();
            return Err(error.into());
        }
        Ok(())
    }

    /// How many values of it are trained, running averages left out.
    pub fn parameters(&self) -> usize {
        let averages = [".running_mean", ".running_var"];
        let trained =
            self.checkpoint.tensors.iter().filter(|t| !averages.iter().any(|end| t.name.ends_with(end)));
        trained.map(|tensor| tensor.data.len()).sum()
    }
}

/// The configuration of a network: what the file tells, then what its tensors show, then what the options say.
fn configure(file: &Weights, recognised: &Recognised, options: &ImportOptions) -> Result<Config> {
    let found = recognised.encoder.name;
    if let Some(encoder) = options.encoder.filter(|&encoder| encoder != found) {
        return Err(file.problem(format!("it is a {found}, not a {encoder}")));
    }
    let origin = format!("{} (its configuration)", file.path.display());
    let mut config = match &file.facts.config {
        Some(text) => Config::from_toml(text, &origin)?,
        None => {
            let mut config = Config::default();
            config.data.image_size = if recognised.encoder.stem == Stem::Small { SMALL } else { LARGE };
            config.train.precision = Precision::F32;
            config.encoder.normalize = file.facts.normalize.unwrap_or(config.encoder.normalize);
            config.encoder.pool_padding = file.facts.pool_padding;
            config
        }
    };
    config.encoder = EncoderConfig {
        normalize: config.encoder.normalize,
        pool_padding: config.encoder.pool_padding,
        ..recognised.encoder.clone()
    };
    config.head = recognised.head.clone();
    config.data.image_size = options.image_size.unwrap_or(config.data.image_size);
    config.encoder.normalize = options.normalize.unwrap_or(config.encoder.normalize);
    config.train.precision = options.precision.unwrap_or(config.train.precision);
    // Read back: every value is checked against its range.
    Ok(Config::from_toml(&config.to_toml()?, &file.path.display().to_string())?)
}

/// The tensors of a network of this configuration.
fn take_tensors(file: &Weights, config: &Config) -> Result<Vec<NamedTensor>> {
    let model = Model::new(config, &Device::dry().map_err(TrainError::from)?)?;
    let mut tensors = Vec::new();
    for (name, _, tensor) in model.parameters.iter() {
        let expected = stored_shape(tensor);
        let problem = match file.shape(name) {
            Some(shape) if shape == expected => {
                tensors.push(file.tensor(name)?);
                continue;
            }
            Some(shape) => {
                format!("is {shape:?}, expected {expected:?} as in {}", whole(name, config, &model))
            }
            None => format!("is missing; {} has it, {expected:?}", whole(name, config, &model)),
        };
        return Err(file.problem(format!("tensor `{}` {problem}", file.called(name))));
    }
    let known = |name: &str| model.parameters.find(name).is_some() || name.ends_with(".num_batches_tracked");
    let unknown: Vec<_> = file.names().filter(|name| !known(name)).collect();
    let Some(name) = unknown.first() else {
        return Ok(tensors);
    };
    let others = match unknown.len() {
        1 => " is".to_owned(),
        count => format!(" and {} more are", count - 1),
    };
    let advice = match name.starts_with("optimizer.") {
        true => "; this is a checkpoint of simclr, whose run folder can be used as it is",
        false => "",
    };
    let whole = whole(name, config, &model);
    Err(file.problem(format!("tensor `{}`{others} no part of {whole}{advice}", file.called(name))))
}

/// What a tensor of this name would be a part of: the head, where there is one, or the encoder.
fn whole(name: &str, config: &Config, model: &Model) -> String {
    let features = model.encoder.features();
    match &config.head {
        HeadConfig { kind: HeadKind::Linear, .. } if name.starts_with(HEAD) => {
            format!("a head of one layer after {features} features")
        }
        HeadConfig { kind: HeadKind::Nonlinear, layers, hidden: Auto::Value(hidden), .. }
            if name.starts_with(HEAD) =>
        {
            format!(
                "a head of {layers} layers after {features} features, whose hidden layers are all as wide as the first, {hidden}"
            )
        }
        _ => format!("a {} of width {}", config.encoder.name, config.encoder.width),
    }
}
