//! The configuration of a run: one typed value, resolved once and passed down.

mod auto;
mod device_name;
mod for_images;
mod idle;
mod keys;
mod kind;
mod layers;
mod line;
pub(crate) mod nearest;
mod operators;
mod tables;
mod text;

use serde::{Deserialize, Serialize};
use simclr_augment::ViewConfig;
use simclr_engine::{Arithmetic, Device};
pub use simclr_nn::{Depth, Memory, PoolPadding, Stem, Variant};
use toml::{Table, Value};

pub use auto::Auto;
pub use device_name::DeviceName;
pub use for_images::{ForImages, Machine};
pub use keys::{KEYS, Key, key_called};
pub use kind::{Kind, Range};
pub use layers::Layers;
pub(crate) use layers::parse;
pub(crate) use line::counted_from_0;
pub use line::with_line;
pub use nearest::nearest;
pub use operators::Unapplied;
pub use tables::{
    Cache, DataConfig, EncoderConfig, HeadConfig, HeadKind, LossConfig, LossName, Mining, Normalize,
    OptimConfig, OptimizerName, Precision, Scaling, ScheduleKind, Shortcut, TrainConfig, ViewsOn,
};

use crate::TrainError;

/// Everything that a pretraining run depends on, apart from the data and the program's version.
///
/// The default is the paper's ImageNet recipe on a ResNet-18 with a batch of 256.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The images.
    pub data: DataConfig,
    /// The distribution of the two views.
    pub view: ViewConfig,
    /// The network whose output h is kept.
    pub encoder: EncoderConfig,
    /// The projection from h to z.
    pub head: HeadConfig,
    /// The contrastive loss.
    pub loss: LossConfig,
    /// The optimiser.
    pub optim: OptimConfig,
    /// The run.
    pub train: TrainConfig,
}

/// A key whose value differs between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The dotted path.
    pub key: &'static str,
    /// The value in the first, as TOML.
    pub ours: String,
    /// The value in the second, as TOML.
    pub theirs: String,
    /// Whether a run may be resumed with the second value.
    pub changes_nothing: bool,
}

impl Config {
    /// Merges the layers, checks every value and resolves those that are "auto", as far as they do not depend on the
    /// images: [`Layers::resolve_for`] also chooses the batch and the sizes of `photos` for these.
    ///
    /// # Errors
    /// A key that does not exist (naming the nearest), a value of the wrong type or out of range, values that
    /// contradict each other, a preset or file that does not exist, text that is not TOML; a `train.batch` of "auto",
    /// unless a run is resumed, which keeps its own.
    pub fn resolve(layers: &Layers<'_>) -> Result<Self, TrainError> {
        let config = Self::merged(layers)?;
        if layers.base.is_none() && layers::leaves_batch(&layers.stated()?) {
            let advice = "give a whole number, or have Layers::resolve_for choose one";
            return Err(for_images::batch_needs_images("the configuration", advice));
        }
        Ok(config)
    }

    /// What keeps the run that is resumed ([`Layers::base`]) from going on with the values of `layers`, if each of them
    /// is valid, even where they contradict each other; `None` if nothing does.
    pub fn unlike_base(layers: &Layers<'_>) -> Option<TrainError> {
        let given: Self = Self::completed(layers).ok()?.try_into().ok()?;
        layers.base?.check_resume(&given.settled()).err()
    }

    /// [`Config::resolve`], except that a batch of "auto" is that of the layers below.
    fn merged(layers: &Layers<'_>) -> Result<Self, TrainError> {
        Ok(Self::from_table(Self::completed(layers)?, "the configuration")?.settled())
    }

    fn completed(layers: &Layers<'_>) -> Result<Table, TrainError> {
        let mut merged = layers.merge()?;
        if let Some(Value::Table(view)) = merged.get_mut("view") {
            operators::complete(view);
        }
        Ok(merged)
    }

    /// Reads a configuration as [`Config::to_toml`] writes it; absent keys have their defaults, those of listed
    /// operators too.
    ///
    /// # Errors
    /// As [`Config::resolve`]; `origin` is named in the message.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, TrainError> {
        let mut merged = Self::default().to_table()?;
        let given = layers::parse(text, origin)?;
        if layers::leaves_batch(&given) {
            return Err(for_images::batch_needs_images(origin, "give a whole number"));
        }
        layers::overlay(&mut merged, given, origin)?;
        Ok(Self::from_table(merged, origin)?.settled())
    }

    /// The keys that a text of [`Config::to_toml`] lacks.
    ///
    /// # Errors
    /// Text that is not TOML; `origin` is named in the message.
    pub fn missing(text: &str, origin: &str) -> Result<Vec<&'static str>, TrainError> {
        let given = layers::parse(text, origin)?;
        let is_there = |key: &&Key| {
            let (table, name) = key.split();
            given.get(table).is_some_and(|table| table.get(name).is_some())
        };
        Ok(KEYS.iter().filter(|key| !is_there(key)).map(|key| key.path).collect())
    }

    /// Checks a configuration built in code as if it had been read.
    ///
    /// # Errors
    /// The first key whose value is out of range or contradicts another.
    pub fn validate(&self) -> Result<(), TrainError> {
        let origin = "the configuration";
        layers::overlay(&mut Table::new(), self.to_table()?, origin)?;
        self.agree(origin)
    }

    /// Checks the configuration and resolves its "auto" values as if it had been read: a run uses the result.
    ///
    /// # Errors
    /// Those of [`Config::validate`].
    pub fn resolved(&self) -> Result<Self, TrainError> {
        self.validate()?;
        Ok(self.clone().settled())
    }

    /// The keys whose values differ from those of `other`; both configurations must be valid.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let (ours, theirs) = (self.to_table().unwrap_or_default(), other.to_table().unwrap_or_default());
        KEYS.iter()
            .filter_map(|key| {
                let (ours, theirs) = (text::value_of(&ours, key), text::value_of(&theirs, key));
                let changes_nothing = key.changes_nothing;
                (ours != theirs).then_some(Difference { key: key.path, ours, theirs, changes_nothing })
            })
            .collect()
    }

    /// Checks that a run with this configuration may be resumed with `given`, which may differ only in keys that change
    /// nothing.
    ///
    /// # Errors
    /// [`TrainError::Conflict`] naming the first key that would change what the run computes.
    pub fn check_resume(&self, given: &Self) -> Result<(), TrainError> {
        match self.differences(given).into_iter().find(|difference| !difference.changes_nothing) {
            None => Ok(()),
            Some(Difference { key, ours, theirs, .. }) => Err(TrainError::conflict(
                key,
                format!("is {theirs}, the run was begun with {ours}; leave it out, or begin another run"),
            )),
        }
    }

    /// Sets the arithmetic of `device` as configured. With 16-bit encoder activations, the dense layers, which stay
    /// f32, may round their factors to tf32.
    ///
    /// # Errors
    /// [`TrainError::NeedsGpu`] for fp16 and tf32 on a CPU; [`TrainError::NetworkDoesNotFit`].
    pub fn prepare(&self, device: &Device) -> Result<(), TrainError> {
        let precision = self.train.precision;
        if precision.needs_gpu() && !device.is_gpu() {
            return Err(TrainError::NeedsGpu { precision, device: device.to_string() });
        }
        crate::memory::check_state(self, device)?;
        let tf32 = !matches!(precision, Precision::F32 | Precision::Auto);
        device.set_arithmetic(Arithmetic { deterministic: self.train.deterministic, tf32 });
        Ok(())
    }

    fn from_table(table: Table, origin: &str) -> Result<Self, TrainError> {
        let config: Self = table.try_into().map_err(|error: toml::de::Error| TrainError::Syntax {
            origin: origin.to_owned(),
            message: error.message().to_owned(),
        })?;
        config.agree(origin)?;
        Ok(config)
    }

    /// Checks that values which are each valid do not contradict each other.
    fn agree(&self, origin: &str) -> Result<(), TrainError> {
        let conflict = |key: &str, problem: String| {
            Err(TrainError::Conflict { origin: origin.to_owned(), key: key.to_owned(), problem })
        };
        if let Err(error) = self.view.validate() {
            return Err(TrainError::Views(error));
        }
        let (warmup, epochs) = (self.optim.warmup_epochs, self.train.epochs);
        if warmup > epochs as f64 {
            let problem =
                format!("is {warmup}, more than the {epochs} of `train.epochs`; lower it or train longer");
            return conflict("optim.warmup_epochs", problem);
        }
        let (loss, mining) = (self.loss.name, self.loss.mining);
        if mining != Mining::None && !loss.takes_mining() {
            let able = quoted(&LossName::ALL, LossName::takes_mining, LossName::word);
            let problem = format!(
                "is {mining}, which needs loss.name = {able}: {loss} weighs all negatives by their similarity"
            );
            return conflict("loss.mining", problem);
        }
        if self.optim.nesterov && (!self.optim.name.takes_nesterov() || self.optim.momentum == 0.0) {
            let able = quoted(&OptimizerName::ALL, OptimizerName::takes_nesterov, OptimizerName::word);
            let problem = format!("is true, which needs optim.name = {able} and a momentum above 0");
            return conflict("optim.nesterov", problem);
        }
        let (name, ratio) = (self.encoder.name, self.encoder.selective_kernels);
        if ratio > 0.0 && !name.is_bottleneck() {
            let problem = format!(
                "is {ratio}, which needs bottleneck blocks: encoder.name = \"resnet50\" or deeper, not {name}"
            );
            return conflict("encoder.selective_kernels", problem);
        }
        let precision = self.train.precision;
        if precision.needs_gpu() && self.train.device == DeviceName::Cpu {
            let problem =
                format!("is {precision}, which needs a GPU, and train.device is cpu; use bf16 or f32");
            return conflict("train.precision", problem);
        }
        Ok(())
    }

    /// Resolves the "auto" values that change what is computed: a resolved configuration means the same in every
    /// version and on every machine.
    fn settled(mut self) -> Self {
        let size = self.data.image_size;
        self.view = self.view.settled_at(size);
        self.encoder.stem = Auto::Value(self.encoder.stem_at(size));
        self.encoder.variant = Auto::Value(self.encoder.settled_variant());
        self.optim.rate = Auto::Value(self.optim.settled_rate());
        if self.train.precision == Precision::Auto {
            let multiplied = self.train.device.is_gpu() || simclr_engine::has_bf16();
            self.train.precision = if multiplied { Precision::Bf16 } else { Precision::F32 };
        }
        self
    }
}

/// The words of the values for which `can` holds, such as `"nt_logistic" or "margin_triplet"`.
fn quoted<T: Copy>(all: &[T], can: fn(T) -> bool, word: fn(T) -> &'static str) -> String {
    let able = all.iter().filter(|&&one| can(one)).map(|&one| format!("\"{}\"", word(one)));
    able.collect::<Vec<_>>().join(" or ")
}
