//! Networks from files: those of other programs, made into a run folder, and fine-tuned ones, used as they are.

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
    Auto, Config, Depth, EncoderConfig, HeadConfig, HeadKind, Normalize, Precision, Stem,
};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Model, TrainError};

pub(crate) use self::safetensors::is_of_step;
pub use fine_tuned::FineTunedFile;

use crate::trained::HEAD;
use crate::{ExchangeError, Result};
use recognise::Recognised;
use weights::Weights;

/// Image sides of networks whose file does not state it.
const LARGE: u32 = 224;
const SMALL: u32 = 32;

/// What the caller knows about a network. Nothing that the file states or its tensors show need be given.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The network that it must be.
    pub encoder: Option<Depth>,
    /// Side of its images in pixels. The default, where the file does not state it, is 224, or 32 with the stem for
    /// small images.
    pub image_size: Option<u32>,
    /// How its images are normalised, which files of other programs do not state.
    pub normalize: Option<Normalize>,
    /// The prefix of this network's tensor names in a PyTorch file that holds several networks.
    pub prefix: Option<String>,
    /// The precision to compute in; f32 by default.
    pub precision: Option<Precision>,
}

/// A network read from a file, to be used as a [`Model`] or made into a run folder.
///
/// Using the `encoder.safetensors` of a run:
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
    /// Its configuration. For networks of other programs, the keys about training have their defaults.
    pub config: Config,
    /// The prefix that was stripped from its tensor names to give torchvision's.
    pub prefix: String,
    /// The prefixes of the other networks in the file.
    pub other_prefixes: Vec<String>,
    /// Tensors that were not imported: those of a classifier, of other networks, and those without the prefix.
    pub left_out: Vec<String>,
    checkpoint: Checkpoint,
    from: String,
}

impl Imported {
    /// Reads a safetensors file with torchvision's names (a ResNet of torchvision, or one written by
    /// [`StateDict`](crate::StateDict)), a `torch.save` file (a dictionary of tensors, possibly nested; no code in it
    /// is run), or a TensorFlow checkpoint of the official code of SimCLR: its `.index` file, its name without
    /// `.index`, or the folder of one.
    ///
    /// # Errors
    /// A file of another kind or of a network that this program does not have; a tensor that is missing, has another
    /// shape, or is unknown; a file that does not state how images are normalised, where the options do not either.
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

    /// The network itself, without a run folder. Without a head in the file, its z is h.
    ///
    /// # Errors
    /// Those of the device.
    pub fn model(&self, device: &Device) -> Result<Model> {
        let (model, _) = Model::from_checkpoint(&self.checkpoint, device)?;
        Ok(model)
    }

    /// Makes a run folder of it, at a path that does not exist or is an empty folder.
    ///
    /// # Errors
    /// Those of [`RunFolder::create`] and of writing a checkpoint; no files are left behind then.
    pub fn save(&self, out: &Path) -> Result<()> {
        let run = RunFolder::create_imported(out, &self.config, &self.from)?;
        if let Err(error) = run.checkpoints(1).save(&self.checkpoint) {
            run.discard();
            return Err(error.into());
        }
        Ok(())
    }

    /// The number of its trained values, without running averages.
    pub fn parameters(&self) -> usize {
        let averages = [".running_mean", ".running_var"];
        let trained =
            self.checkpoint.tensors.iter().filter(|t| !averages.iter().any(|end| t.name.ends_with(end)));
        trained.map(|tensor| tensor.data.len()).sum()
    }
}

/// The configuration of a network: from the file's metadata, then from the shapes of its tensors, then from the
/// options.
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
            let is_small = recognised.encoder.stem == Auto::Value(Stem::Small);
            config.data.image_size = if is_small { SMALL } else { LARGE };
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
    let stated = file.facts.config.as_ref().map(|_| config.encoder.normalize).or(file.facts.normalize);
    if let Some((stated, asked)) = stated.zip(options.normalize).filter(|(stated, asked)| stated != asked) {
        return Err(file.problem(format!(
            "it says that its network takes images normalised by {stated}, not by {asked}; leave the normalisation out"
        )));
    }
    config.head = recognised.head.clone();
    config.data.image_size = options.image_size.unwrap_or(config.data.image_size);
    config.encoder.normalize = options.normalize.unwrap_or(config.encoder.normalize);
    config.train.precision = options.precision.unwrap_or(config.train.precision);
    // Parsed again, so that every value is checked against its range.
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

/// The part of a network that a tensor of this name belongs to: the head, if there is one, or the encoder.
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
