//! The arguments that make a configuration, shared by commands that train.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Error, Result};
use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::{Arg, Args, Command};
use simclr_cuda::{Gpus, Libraries};
use simclr_data::{Dataset, Source, not_a_file};
use simclr_eval::embedding::Split;
use simclr_train::config::{
    Auto, DataConfig, DeviceName, EncoderConfig, ForImages, KEYS, Machine, Stem, Unapplied,
};
use simclr_train::presets::PRESETS;
use simclr_train::presets::photos::Trainer;
use simclr_train::pretrain::Resumed;
use simclr_train::{Config, Layers, TrainError, memory};

use crate::exit::usage;
use crate::terminal;

/// Where a configuration comes from; later ones override earlier ones.
#[derive(Args, Clone, Debug, Default)]
pub struct Settings {
    /// Start from a preset: cifar10, cifar10-short (100 epochs), imagenet, small (32 x 32 on a CPU), photos (a
    /// folder of your own)
    #[arg(
        long,
        value_name = "NAME",
        value_parser = suggesting(PRESETS.iter().map(|preset| preset.name)),
        hide_possible_values = true,
        help_heading = "Configuration"
    )]
    pub preset: Option<String>,

    /// Read keys from a TOML file
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<PathBuf>,

    /// Set a key, such as train.batch=128; several may follow (simclr keys lists them)
    #[arg(
        long = "set",
        value_name = "KEY=VALUE",
        value_parser = suggesting(KEYS.iter().map(|key| key.path)),
        hide_possible_values = true,
        help_heading = "Configuration"
    )]
    pub sets: Vec<String>,

    /// Seed for weights, order and views (train.seed)
    #[arg(long, value_name = "N", value_parser = seed, help_heading = "Configuration")]
    pub seed: Option<u64>,
}

/// Where the keys of `[data]` come from, for a command to which the others mean nothing.
#[derive(Args, Clone, Debug, Default)]
pub struct DataSettings {
    /// Read keys from a TOML file
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    config: Option<PathBuf>,

    /// Set a key of the table data, such as data.shrink=512; several may follow
    #[arg(
        long = "set",
        value_name = "KEY=VALUE",
        value_parser = suggesting(KEYS.iter().map(|key| key.path).filter(|path| path.starts_with("data."))),
        hide_possible_values = true,
        help_heading = "Configuration"
    )]
    sets: Vec<String>,
}

/// How many processors to use.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Threads {
    /// Threads to compute with; the results do not depend on their number [default: one per CPU]
    #[arg(long, value_name = "N", value_parser = from_to(1, MOST_THREADS))]
    pub threads: Option<usize>,
}

/// What to compute on.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct OnDevice {
    /// Device that computes the network: cpu, cuda or cuda:N (an NVIDIA GPU), or auto: a GPU if one works
    /// (train.device) [default: auto]
    #[arg(long, value_name = "DEVICE", value_parser = device(), hide_possible_values = true)]
    pub device: Option<DeviceName>,
}

/// The keys that fit settings to the size of images.
const SIZES: [&str; 2] = ["data.image_size", "train.from"];

/// The most threads, as for `train.threads`: more would only wait for each other.
const MOST_THREADS: usize = 1024;

/// Parses a whole number above 0.
pub fn at_least_one<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| *number >= T::from(1));
    number.ok_or_else(|| "expected a whole number of at least 1".to_owned())
}

/// Parses a whole number from `least` to `most`.
pub fn from_to<T>(least: T, most: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + TryInto<u64> + Copy + Send + Sync + 'static,
{
    let told = |end: T| terminal::grouped(end.try_into().unwrap_or_default());
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("expected a whole number from {} to {}", told(least), told(most)))
    }
}

/// Parses a seed, as `train.seed` takes it.
pub fn seed(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|&number| i64::try_from(number).is_ok());
    number.ok_or_else(|| "expected a whole number of 0 or more".to_owned())
}

/// Parses a number above 0.
pub fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| *number > 0.0 && f64::is_finite(*number));
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

/// Parses a number of 0 or more.
pub fn zero_or_more(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| *number >= 0.0 && f64::is_finite(*number));
    number.ok_or_else(|| "expected a number of 0 or more".to_owned())
}

/// Parses the word of one of the values `all`.
pub fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    word: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(move |&value| word(value))).try_map(move |given| {
        all.iter().copied().find(|&value| word(value) == given).ok_or("not among the possible values")
    })
}

/// Parses any text, and has shells complete these words. For arguments whose help already lists them, and whose errors
/// are reported better elsewhere.
pub fn suggesting(words: impl IntoIterator<Item = &'static str>) -> Suggesting<StringValueParser> {
    Suggesting { parser: StringValueParser::new(), words: words.into_iter().collect() }
}

/// Like [`suggesting`], with the words that a configuration key accepts.
pub fn suggesting_for(path: &str) -> Suggesting<StringValueParser> {
    suggesting(KEYS.iter().filter(|key| key.path == path).flat_map(|key| key.kind.words()))
}

/// Parses a device.
pub fn device() -> impl TypedValueParser<Value = DeviceName> {
    Suggesting { parser: DeviceName::from_str, words: vec!["auto", "cpu", "cuda"] }
}

/// Parses a part of the images.
pub fn part() -> impl TypedValueParser<Value = Split> {
    Suggesting { parser: Split::from_str, words: Split::WORDS.to_vec() }
}

/// Accepts what `parser` does, and suggests some words.
#[derive(Clone)]
pub struct Suggesting<P> {
    parser: P,
    words: Vec<&'static str>,
}

impl<P: TypedValueParser> TypedValueParser for Suggesting<P> {
    type Value = P::Value;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<P::Value, clap::Error> {
        self.parser.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.words.iter().map(PossibleValue::new)))
    }
}

impl Threads {
    /// The number of threads; 0 means one per processor.
    pub fn count(self) -> usize {
        self.threads.unwrap_or(0)
    }

    /// The number of threads; by default the number of processors.
    pub fn counted(self) -> usize {
        self.threads.unwrap_or_else(processors)
    }
}

/// What trains on `device`, and how much of its memory is free. The number of threads is not part of it, as no result
/// may depend on that.
fn machine(device: DeviceName) -> Machine {
    if !device.is_gpu() {
        return Machine::processors();
    }
    let libraries = Libraries::find();
    let number = if let DeviceName::Cuda(number) = device { number } else { 0 };
    let memory = Gpus::free_memory(&libraries, number)
        .or_else(|| Gpus::find(&libraries).gpus.get(number).and_then(|gpu| gpu.memory));
    Machine { trainer: Trainer::Gpu, memory: memory.unwrap_or_else(memory::available_bytes) }
}

/// Resolves `layers` for training on `images` on this machine, and prints the reasons for what is chosen.
pub fn resolve_for(layers: &Layers<'_>, images: &dyn Dataset) -> Result<Config, TrainError> {
    let ForImages { config, reasons } = layers.resolve_for(images, machine)?;
    reasons.iter().for_each(|reason| terminal::say(reason));
    Ok(config)
}

/// The number of processors that this program may use; 1 where the system does not say.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Says that a key means nothing beside others.
pub fn no_effect(key: &str, reason: &str) -> String {
    format!("{key} has no effect with {reason}")
}

impl DataSettings {
    /// Resolves the table `[data]`.
    pub fn resolve(&self) -> Result<DataConfig> {
        if let Some(other) = self.sets.iter().find(|set| !set.starts_with("data.")) {
            return Err(usage(format!("--set {other}: only keys of [data] count here, such as data.window")));
        }
        let settings =
            Settings { config: self.config.clone(), sets: self.sets.clone(), ..Settings::default() };
        settings.with_layers(None, Threads::default(), |layers| Ok(layers.data()?))
    }
}

impl Settings {
    /// Rejects an option that sets a key to one value where `--set` sets it to another. Beside those that are given
    /// here, the caller's `others` count: option, key and value.
    pub fn check_options(
        &self,
        threads: Threads,
        on: OnDevice,
        others: impl IntoIterator<Item = (String, &'static str, String)>,
    ) -> Result<()> {
        let of = |option: &str, key, value: Option<String>| {
            Some((format!("--{option} {}", value.as_ref()?), key, value?))
        };
        let options = [
            of("seed", "train.seed", self.seed.map(|seed| seed.to_string())),
            of("threads", "train.threads", threads.threads.map(|threads| threads.to_string())),
            of("device", "train.device", on.device.map(|device| device.to_string())),
        ];
        let alone = |set: String| Config::resolve(&Layers { sets: &[set], ..Layers::default() });
        for (option, key, value) in options.into_iter().flatten().chain(others) {
            let is_of_key = |set: &&String| set.split_once('=').is_some_and(|(path, _)| path.trim() == key);
            // The last one counts. One that is wrong by itself is reported elsewhere.
            let Some(set) = self.sets.iter().rfind(is_of_key) else { continue };
            if let (Ok(one), Ok(other)) = (alone(format!("{key}={value}")), alone(set.clone()))
                && one.differences(&other).iter().any(|difference| difference.key == key)
            {
                return Err(usage(format!("{option} contradicts --set {set}; give one of them")));
            }
        }
        Ok(())
    }

    /// Resolves the configuration for training on `source`. Prints what `photos` chooses, and the batch where that is
    /// left to the program.
    pub fn resolve(&self, source: &Source, threads: Threads) -> Result<Config> {
        self.resolve_shared(source, threads, 1)
    }

    /// [`Settings::resolve`] for a number of workers that share each batch.
    pub fn resolve_shared(&self, source: &Source, threads: Threads, workers: usize) -> Result<Config> {
        let images = source.to_pretrain();
        self.with_layers(None, threads, |layers| {
            Ok(resolve_for(&Layers { workers, ..layers.clone() }, &*images)?)
        })
    }

    /// Prints which settings are used if none were chosen to suit the images: no preset, no file, no image size.
    pub fn say_unsized(&self, config: &Config) {
        let chooses = |set: &String| SIZES.iter().any(|key| set.starts_with(&format!("{key}=")));
        if self.preset.is_none() && self.config.is_none() && !self.sets.iter().any(chooses) {
            terminal::say(&format!(
                "no --preset: ImageNet-sized settings ({0} on {1} x {1} pixels); for your own photos: --preset photos",
                config.encoder.name, config.data.image_size
            ));
        }
    }

    /// The keys that these settings change from their defaults, beyond what a preset does.
    pub fn given(&self) -> Result<Vec<&'static str>> {
        self.with_layers(None, Threads::default(), |layers| Ok(layers.given()?))
    }

    /// Says of operators in lists that `config`, which was resolved from these settings, never applies them, unless
    /// they say so themselves.
    pub fn unapplied(&self, config: &Config) -> Result<Vec<String>> {
        let unapplied = self.with_layers(None, Threads::default(), |layers| Ok(layers.unapplied(config)?))?;
        let said = unapplied.into_iter().map(|Unapplied { place, op, key }| {
            format!(
                "{place}: {op} is never applied: its probability is {key}, which is 0; set that, or its prob"
            )
        });
        Ok(said.collect())
    }

    /// Warns of keys that were given and have no effect in `config`, which was resolved from these settings, and of
    /// operators without effect.
    pub fn warn_of_idle(&self, config: &Config) -> Result<()> {
        for key in self.given()? {
            if let Some(reason) = config.idle(key) {
                terminal::warn(&no_effect(key, &reason));
            }
        }
        self.unapplied(config)?.iter().for_each(|unapplied| terminal::warn(unapplied));
        Ok(())
    }

    /// Warns if a stem for large images was given for small ones, which loses much of their accuracy. A preset or the
    /// run to begin with means it.
    pub fn warn_of_stem(&self, config: &Config) -> Result<()> {
        let (stem, size) = (config.encoder.stem_at(config.data.image_size), config.data.image_size);
        let usual = EncoderConfig { stem: Auto::Auto, ..config.encoder.clone() }.stem_at(size);
        if stem == usual || stem != Stem::ImageNet || config.train.begins_with().is_some() {
            return Ok(());
        }
        if self.given()?.contains(&"encoder.stem") {
            let left = size.div_ceil(4);
            terminal::warn(&format!(
                "encoder.stem=imagenet leaves {left} x {left} of {size} x {size} pixels: others reached 76.5% on CIFAR-10 with it, \
                 and about 91% with encoder.stem=small, the default at this size"
            ));
        }
        Ok(())
    }

    /// Resolves the table `[data]` alone: how to decode images must be known before they are looked at.
    pub fn data(&self) -> Result<DataConfig> {
        self.with_layers(None, Threads::default(), |layers| Ok(layers.data()?))
    }

    /// Resolves `base`, changed by what was given.
    pub fn resolve_over(&self, base: &Config, threads: Threads) -> Result<Config> {
        self.with_layers(Some(base), threads, |layers| Ok(Config::resolve(layers)?))
    }

    /// Resolves the configuration that a run goes on with. Once there is a checkpoint, a value that would make it
    /// another run is reported before one that contradicts others.
    pub fn resolve_resumed(&self, resumed: &Resumed, threads: Threads) -> Result<Config> {
        let has_begun = resumed.from.is_some();
        self.with_layers(Some(&resumed.config), threads, |layers| {
            let unlike = |error| Config::unlike_base(layers).filter(|_| has_begun).unwrap_or(error);
            Ok(Config::resolve(layers).map_err(unlike)?)
        })
    }

    /// Resolves a variant of `base`, which was resolved from these settings: they once more, on top of what was chosen
    /// for the images, and then those of the variant. What operators in the lists of these settings leave out thus
    /// follows the keys of the variant.
    pub fn resolve_variant(&self, base: &Config, set: &[String], threads: Threads) -> Result<Config> {
        self.of_variant(set).resolve_over(base, threads)
    }

    /// The settings of a variant on top of these, for use over a configuration that has those of the preset.
    pub fn of_variant(&self, set: &[String]) -> Settings {
        Settings { preset: None, sets: [&self.sets[..], set].concat(), ..self.clone() }
    }

    /// Rewrites an error of resuming to name the preset, if the wrong key was set by the preset alone.
    pub fn named(&self, error: Error) -> Error {
        let Some(TrainError::Conflict { key, problem, .. }) = error.downcast_ref() else { return error };
        let is_given = self.given().is_ok_and(|given| given.contains(&key.as_str()))
            || self.sets.iter().any(|set| set.starts_with(&format!("{key}=")));
        match &self.preset {
            Some(preset) if !is_given => {
                let origin = format!("--preset {preset}");
                TrainError::Conflict { origin, key: key.clone(), problem: problem.clone() }.into()
            }
            _ => error,
        }
    }

    /// Calls `made` with all layers that were given.
    fn with_layers<R>(
        &self,
        base: Option<&Config>,
        threads: Threads,
        made: impl FnOnce(&Layers<'_>) -> Result<R>,
    ) -> Result<R> {
        if let Some(path) = &self.config
            && let Some(found) = not_a_file(path)
        {
            return Err(usage(format!("--config {}: {found}; give a TOML file", path.display())));
        }
        let mut sets = self.sets.clone();
        sets.extend(self.seed.map(|seed| format!("train.seed={seed}")));
        sets.extend(threads.threads.map(|threads| format!("train.threads={threads}")));
        made(&Layers {
            base,
            preset: self.preset.as_deref(),
            chosen: None,
            file: self.config.as_deref(),
            sets: &sets,
            workers: 0,
        })
    }
}
