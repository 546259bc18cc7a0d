//! Layering: defaults (or the configuration of a resumed run), then a preset, then values chosen for the data, then
//! those of the run to begin with, then a file, then settings (`table.key=value`).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use toml::{Table, Value};

use super::operators::Unapplied;
use super::{Config, DataConfig, KEYS, Key, TrainConfig, keys, kind::AUTO, kind::Kind, operators};
use crate::TrainError;
use crate::presets::{self, photos};
use crate::run_folder::RunFolder;

/// The layers of a configuration; each overrides those before it.
#[derive(Debug, Clone, Default)]
pub struct Layers<'a> {
    /// The configuration of a run that is resumed, in place of the defaults.
    pub base: Option<&'a Config>,
    /// The name of a preset.
    pub preset: Option<&'a str>,
    /// Values chosen for the data ([`presets::photos::choose`]), or `None`; see [`Layers::resolve_for`].
    pub chosen: Option<Table>,
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// `table.key=value`, in order; the value is TOML, and a bare word is a string.
    pub sets: &'a [String],
    /// How many workers are to share a batch that [`Layers::resolve_for`] chooses; 0 counts as 1.
    pub workers: usize,
}

impl Layers<'_> {
    /// Merges the tables and checks each value against its key. A run that begins with the encoder of another run takes
    /// over its `[encoder]` and `data.image_size`.
    pub(super) fn merge(&self) -> Result<Table, TrainError> {
        let merged = self.merge_over(None)?;
        let from = merged.get("train").and_then(|train| train.get("from")).and_then(Value::as_str);
        let Some(from) = from.and_then(TrainConfig::named) else { return Ok(merged) };
        match self.base.filter(|base| base.train.begins_with() == Some(from)) {
            // The base has these keys already; the other run may no longer exist.
            Some(base) => self.merge_over(Some(base)),
            None => self.merge_over(Some(&opened(from)?)),
        }
    }

    /// The table `[data]`, which does not depend on other runs.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn data(&self) -> Result<DataConfig, TrainError> {
        Ok(Config::from_table(self.merge_over(None)?, "the configuration")?.data)
    }

    /// The keys that the file or a setting changes from their defaults, in the order of [`KEYS`].
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn given(&self) -> Result<Vec<&'static str>, TrainError> {
        let given = self.stated()?;
        let defaults = Config::default().to_table()?;
        let is_given = |key: &&Key| {
            let (table, name) = key.split();
            let value = given.get(table).and_then(|table| table.get(name));
            value.is_some() && value != defaults.get(table).and_then(|table| table.get(name))
        };
        Ok(KEYS.iter().filter(is_given).map(|key| key.path).collect())
    }

    /// The operators in lists of the file or a setting that are never applied in `config`, which was resolved from
    /// these layers, though they do not say so themselves.
    ///
    /// # Errors
    /// As [`Config::resolve`].
    pub fn unapplied(&self, config: &Config) -> Result<Vec<Unapplied>, TrainError> {
        let (given, resolved) = (self.stated()?, config.to_table()?);
        let [given, view] = [&given, &resolved].map(|table| table.get("view").and_then(Value::as_table));
        Ok(given.zip(view).map(|(given, view)| operators::unapplied(given, view)).unwrap_or_default())
    }

    /// The values of the file and the settings alone.
    pub(super) fn stated(&self) -> Result<Table, TrainError> {
        let mut stated = Table::new();
        self.overlay_given(&mut stated)?;
        Ok(stated)
    }

    /// Overlays the values of the file and the settings on `merged`.
    fn overlay_given(&self, merged: &mut Table) -> Result<(), TrainError> {
        if let Some(path) = self.file {
            let origin = path.display().to_string();
            let text = fs::read_to_string(path).map_err(|error| match error.kind() {
                ErrorKind::InvalidData => TrainError::Syntax {
                    origin: origin.clone(),
                    message: "is not text; give a TOML file".to_owned(),
                },
                _ => TrainError::io("read", path)(error),
            })?;
            overlay(merged, parse(&text, &origin)?, &origin).map_err(|error| error.in_text(&text))?;
        }
        for set in self.sets {
            let (table, origin) = parse_set(set)?;
            overlay(merged, table, &origin)?;
        }
        Ok(())
    }

    fn merge_over(&self, begun: Option<&Config>) -> Result<Table, TrainError> {
        const KERNELS: &str = "selective_kernels";
        const VARIANT: &str = "variant";
        let mut merged = match self.base {
            Some(base) => base.to_table()?,
            None => Config::default().to_table()?,
        };
        if let Some(Value::Table(encoder)) = merged.get_mut("encoder") {
            encoder.insert(VARIANT.to_owned(), AUTO.into());
        }
        // A rate that is the usual one of its optimiser and scaling follows them where they are changed.
        if self.base.is_some_and(|base| base.optim.settled_rate() == base.optim.usual_rate())
            && let Some(Value::Table(optim)) = merged.get_mut("optim")
        {
            optim.insert("rate".to_owned(), AUTO.into());
        }
        if let Some(name) = self.preset {
            overlay(&mut merged, presets::table(name)?, &format!("preset {name}"))?;
        }
        if let Some(chosen) = &self.chosen {
            overlay(&mut merged, chosen.clone(), "what the data suggests")?;
        }
        if let Some(begun) = begun {
            let mut known = begun.to_table()?;
            known.retain(|name, _| ["data", "encoder"].contains(&name));
            if let Some(Value::Table(data)) = known.get_mut("data") {
                data.retain(|key, _| key == "image_size");
            }
            overlay(&mut merged, known, "the run that is begun with")?;
        }
        overlay_batch(&mut merged, |merged| self.overlay_given(merged))?;
        if self.preset == Some(photos::NAME) && self.base.is_none() {
            photos::follow_epochs(&self.stated()?, &mut merged);
        }
        // A resumed run keeps its resolved variant unless it is set, or `selective_kernels`, which decides `auto`,
        // has changed.
        if let Some(base) = self.base
            && let Some(Value::Table(encoder)) = merged.get_mut("encoder")
            && encoder.get(VARIANT).and_then(Value::as_str) == Some(AUTO)
            && encoder.get(KERNELS).and_then(Value::as_float) == Some(base.encoder.selective_kernels)
        {
            encoder.insert(VARIANT.to_owned(), base.encoder.settled_variant().word().into());
        }
        Ok(merged)
    }
}

pub(super) fn batch_of(config: &Table) -> Option<&Value> {
    config.get("train")?.get("batch")
}

/// Whether `train.batch` is "auto". The merged table of the layers then holds the batch of the layers below, from which
/// [`presets::batch::choose`] starts.
pub(super) fn leaves_batch(config: &Table) -> bool {
    batch_of(config).and_then(Value::as_str) == Some(AUTO)
}

/// Applies `put` to `merged`; `train.batch = "auto"` leaves the batch as it was.
fn overlay_batch(
    merged: &mut Table,
    put: impl FnOnce(&mut Table) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let below = batch_of(merged).cloned();
    put(merged)?;
    if leaves_batch(merged)
        && let (Some(below), Some(Value::Table(train))) = (below, merged.get_mut("train"))
    {
        train.insert("batch".to_owned(), below);
    }
    Ok(())
}

/// The configuration of the run in `from`.
fn opened(from: &Path) -> Result<Config, TrainError> {
    match RunFolder::open(from) {
        Ok((_, config)) => Ok(config),
        Err(error) => Err(TrainError::conflict(
            "train.from",
            format!("names no run that another can begin with: {error}"),
        )),
    }
}

pub(crate) fn parse(text: &str, origin: &str) -> Result<Table, TrainError> {
    text.parse().map_err(|error: toml::de::Error| TrainError::Syntax {
        origin: origin.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })
}

/// Checks the values of `layer` and overlays them on `base`.
pub(super) fn overlay(base: &mut Table, layer: Table, origin: &str) -> Result<(), TrainError> {
    for (name, value) in layer {
        let entries = match value {
            Value::Table(entries) if keys::is_table(&name) => entries,
            other if keys::is_table(&name) => {
                return Err(TrainError::BadValue {
                    origin: origin.to_owned(),
                    found: found(&other),
                    expected: format!("a table: [{name}] with keys below it"),
                    key: name,
                });
            }
            other => return Err(unknown(&path_of(&name, &other), origin)),
        };
        for (key, value) in entries {
            let path = format!("{name}.{key}");
            let known = keys::find(&path).ok_or_else(|| unknown(&path, origin))?;
            if known.kind == Kind::Operators && value.as_str() != Some(AUTO) {
                operators::accept(&value).map_err(|fault| fault_in(&path, fault, origin))?;
            }
            let accepted = known.kind.accept(&value).map_err(|expected| TrainError::BadValue {
                origin: origin.to_owned(),
                key: path.clone(),
                found: found(&value),
                expected,
            })?;
            let Value::Table(table) = base.entry(name.clone()).or_insert_with(|| Table::new().into()) else {
                continue;
            };
            // Keys of these kinds may be `Option`s in the typed form, where "auto" is an absent key, not a word.
            if matches!(known.kind, Kind::NumberOrAuto(_) | Kind::IntervalOrAuto(_) | Kind::Operators)
                && accepted.as_str() == Some(AUTO)
            {
                table.remove(&key);
            } else {
                table.insert(key, accepted);
            }
        }
    }
    Ok(())
}

/// The path of the first key in an unknown table, so that the hint for `[optmi] rate = 1` is `optim.rate`.
fn path_of(name: &str, value: &Value) -> String {
    match value.as_table().and_then(|table| table.keys().next()) {
        Some(key) => format!("{name}.{key}"),
        None => name.to_owned(),
    }
}

fn unknown(path: &str, origin: &str) -> TrainError {
    TrainError::UnknownKey { origin: origin.to_owned(), key: path.to_owned(), hint: keys::hint(path) }
}

fn fault_in(path: &str, fault: operators::Fault, origin: &str) -> TrainError {
    let (origin, key) = (origin.to_owned(), format!("{path}{}", fault.place));
    match fault.found {
        Some(value) => TrainError::BadValue { origin, key, found: found(&value), expected: fault.expected },
        None => TrainError::UnknownKey { origin, key, hint: fault.expected },
    }
}

fn found(value: &Value) -> String {
    let text = value.to_string();
    match value {
        Value::Table(_) => "a table".to_owned(),
        _ if text.chars().count() > 80 => format!("{}...", text.chars().take(80).collect::<String>()),
        _ => text,
    }
}

/// Parses `table.key=value` into a table. Also returns how messages name the setting.
fn parse_set(set: &str) -> Result<(Table, String), TrainError> {
    let origin = format!("setting {set}");
    let syntax = |message: &str| TrainError::Syntax { origin: origin.clone(), message: message.to_owned() };
    let (path, text) = set.split_once('=').ok_or_else(|| syntax("expected table.key=value"))?;
    let path = path.trim();
    let value = parse_value(text.trim()).map_err(|message| syntax(&message))?;
    let (table, key) = match path.split_once('.') {
        Some((table, key)) if !table.is_empty() && !key.is_empty() => (table, key),
        _ if keys::is_table(path) => return Err(syntax(&format!("expected {path}.key=value"))),
        _ if path.is_empty() || path.contains('.') => return Err(syntax("expected table.key=value")),
        _ => return Err(unknown(path, &origin)),
    };
    let inner = Table::from_iter([(key.to_owned(), value)]);
    Ok((Table::from_iter([(table.to_owned(), inner.into())]), origin))
}

fn parse_value(text: &str) -> Result<Value, String> {
    let bare = |c: char| c.is_alphanumeric() || "_-./+:".contains(c);
    let parsed = format!("v = {text}").parse::<Table>();
    match parsed {
        // A line break in the text could add further keys.
        Ok(mut table) if table.len() == 1 => table.remove("v").ok_or_else(|| "expected one value".to_owned()),
        Ok(_) => Err("expected one value".to_owned()),
        Err(_) if text.is_empty() => Err("the value is missing after =".to_owned()),
        Err(_) if text.chars().all(bare) => Ok(Value::from(text)),
        Err(error) => Err(format!("`{text}` is not a TOML value: {}", error.message())),
    }
}
