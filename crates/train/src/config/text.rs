//! A configuration as text: TOML that can be read back, and a reference of all keys.

use std::fmt::Write;

use toml::Table;

use super::keys::hint;
use super::kind::AUTO;
use super::operators::{OPERATORS, followed};
use super::{Config, KEYS, Key};
use crate::TrainError;

impl Config {
    /// The configuration as TOML with every key, in the order of [`KEYS`].
    ///
    /// # Errors
    /// A whole number above `i64::MAX`, which TOML cannot hold and [`Config::resolve`] rejects.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        self.keys_to_toml(|_| true)
    }

    /// [`Config::to_toml`] without the keys that do not change what a run computes, such as the number of threads.
    ///
    /// # Errors
    /// As [`Config::to_toml`].
    pub fn recipe_to_toml(&self) -> Result<String, TrainError> {
        self.keys_to_toml(|key| !key.changes_nothing)
    }

    fn keys_to_toml(&self, is_written: impl Fn(&Key) -> bool) -> Result<String, TrainError> {
        let table = self.to_table()?;
        Ok(write_tables(KEYS.iter(), |key, out| {
            if is_written(key) {
                let _ = writeln!(out, "{} = {}", key.split().1, value_of(&table, key));
            }
        }))
    }

    /// The value of the key with this path as TOML, if there is such a key.
    ///
    /// # Errors
    /// As [`Config::to_toml`].
    pub fn value(&self, path: &str) -> Result<Option<String>, TrainError> {
        let table = self.to_table()?;
        Ok(KEYS.iter().find(|key| key.path == path).map(|key| value_of(&table, key)))
    }

    /// Every key with its default, its meaning and what it accepts, and every operator of the view lists, as a TOML
    /// file of comments: to set a key, remove its `#`.
    pub fn reference() -> String {
        Self::reference_of_keys(|_| true)
    }

    /// The part of [`Config::reference`] about these keys: each is named by its table, its path or the end of its path.
    /// The operators belong to `view.a` and `view.b`.
    ///
    /// # Errors
    /// [`TrainError::UnknownKey`] if a name is none of these.
    pub fn reference_of(names: &[String]) -> Result<String, TrainError> {
        let is_named = |key: &Key, name: &str| {
            let (table, last) = key.split();
            [key.path, table, last].contains(&name) || key.also.contains(&name)
        };
        match names.iter().find(|name| !KEYS.iter().any(|key| is_named(key, name))) {
            Some(name) => {
                Err(TrainError::UnknownKey { origin: "keys".to_owned(), key: name.clone(), hint: hint(name) })
            }
            None => Ok(Self::reference_of_keys(|key| names.iter().any(|name| is_named(key, name)))),
        }
    }

    fn reference_of_keys(is_wanted: impl Fn(&Key) -> bool) -> String {
        let table = Self::default().to_table().unwrap_or_default();
        let mut out = write_tables(KEYS.iter().filter(|key| is_wanted(key)), |key, out| {
            let _ = writeln!(out, "# {}", key.doc);
            let _ = writeln!(out, "# ({})", key.kind.describe());
            let _ = writeln!(out, "#{} = {}\n", key.split().1, value_of(&table, key));
        });
        if !KEYS.iter().any(|key| is_wanted(key) && matches!(key.path, "view.a" | "view.b")) {
            return out;
        }
        let _ = writeln!(out, "\n# The operators of view.a and view.b, and what each may be set to:");
        for (name, keys) in OPERATORS {
            let _ = writeln!(out, "\n#[[view.a]]\n#op = \"{name}\"");
            for (key, kind) in *keys {
                let follows =
                    followed(name, key).map_or(String::new(), |key| format!("; by default view.{key}"));
                let _ = writeln!(out, "#   {key}: {}{follows}", kind.describe());
            }
        }
        out
    }

    pub(super) fn to_table(&self) -> Result<Table, TrainError> {
        Table::try_from(self).map_err(|error| TrainError::Syntax {
            origin: "the configuration".to_owned(),
            message: error.to_string(),
        })
    }
}

fn write_tables<'a>(
    keys: impl Iterator<Item = &'a Key>,
    mut write_key: impl FnMut(&Key, &mut String),
) -> String {
    let mut out = String::new();
    let mut current = "";
    for key in keys {
        let (table, _) = key.split();
        if table != current {
            let _ = writeln!(out, "{}[{table}]", if current.is_empty() { "" } else { "\n" });
            current = table;
        }
        write_key(key, &mut out);
    }
    out
}

/// The TOML form of a key's value.
pub(super) fn value_of(config: &Table, key: &Key) -> String {
    let (table, name) = key.split();
    match config.get(table).and_then(|table| table.get(name)) {
        Some(value) => value.to_string(),
        None => format!("\"{AUTO}\""),
    }
}
