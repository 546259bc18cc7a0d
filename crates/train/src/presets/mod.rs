//! Presets: named differences from the default configuration.

pub mod batch;
pub mod photos;

use toml::Table;

use crate::TrainError;
use crate::config::nearest::nearest;

/// A built-in preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Its TOML text, which starts with a comment on command, time and accuracy.
    pub text: &'static str,
}

/// All presets.
pub const PRESETS: &[Preset] = &[
    Preset { name: "cifar10", text: include_str!("cifar10.toml") },
    Preset { name: "cifar10-short", text: include_str!("cifar10-short.toml") },
    Preset { name: "imagenet", text: include_str!("imagenet.toml") },
    Preset { name: "small", text: include_str!("small.toml") },
    Preset { name: "photos", text: include_str!("photos.toml") },
];

/// The values of a preset.
pub(crate) fn table(name: &str) -> Result<Table, TrainError> {
    let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else {
        let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
        let all = names.join(", ");
        let hint = match nearest(name, names) {
            Some(near) => format!("did you mean `{near}`? There are {all}"),
            None => format!("there are {all}"),
        };
        return Err(TrainError::UnknownPreset { name: name.to_owned(), hint });
    };
    crate::config::parse(preset.text, &format!("preset {name}"))
}
