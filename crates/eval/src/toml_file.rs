//! TOML files written by users: errors name the file, the line, the key, and what would be right.

use simclr_train::TrainError;
use simclr_train::config::{nearest, with_line};
use toml::{Table, Value};

use crate::EvalError;

/// A file's text and its parsed table.
pub(crate) struct TomlFile<'t> {
    origin: &'t str,
    text: &'t str,
    table: Table,
}

/// A table whose keys are read one by one.
pub(crate) struct Keys<'t> {
    file: &'t TomlFile<'t>,
    /// Its path in the file.
    path: String,
    /// Its name in messages.
    place: String,
    /// The table.
    pub table: &'t Table,
}

impl<'t> TomlFile<'t> {
    /// Parses `text`; messages call it `origin`.
    ///
    /// # Errors
    /// [`TrainError::Syntax`].
    pub fn parse(text: &'t str, origin: &'t str) -> Result<TomlFile<'t>, EvalError> {
        let table = text.parse().map_err(|error: toml::de::Error| TrainError::Syntax {
            origin: origin.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        Ok(TomlFile { origin, text, table })
    }

    /// The top-level keys.
    pub fn top(&'t self) -> Keys<'t> {
        Keys { file: self, path: String::new(), place: String::new(), table: &self.table }
    }

    /// The tables `[[name]]`. Messages call a table by its key `name` where it has one.
    ///
    /// # Errors
    /// [`TrainError::BadValue`] if `name` is something else.
    pub fn tables(&'t self, name: &str) -> Result<Vec<Keys<'t>>, EvalError> {
        let bad = |path: &str, value: &Value| {
            let found = if value.is_table() { "one table".to_owned() } else { value.to_string() };
            self.top().bad(path, found, format!("tables, each below a line [[{name}]]"))
        };
        let Some(value) = self.table.get(name) else { return Ok(Vec::new()) };
        let items = value.as_array().ok_or_else(|| bad(name, value))?;
        let keys = items.iter().enumerate().map(|(at, item)| {
            let path = format!("{name}[{at}]");
            let table = item.as_table().ok_or_else(|| bad(&path, item))?;
            // A name says more than an index.
            let place = match table.get("name").and_then(Value::as_str) {
                Some(own) => format!("{name}.{own}"),
                None => path.clone(),
            };
            Ok(Keys { file: self, path, place, table })
        });
        keys.collect()
    }
}

impl<'t> Keys<'t> {
    /// Returns an error for the first key that is not in `known`.
    pub fn check(&self, known: &[&str]) -> Result<(), EvalError> {
        match self.table.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                let hint = match nearest(key, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the keys are {}", known.join(", ")),
                };
                Err(self.unknown(key, hint))
            }
            None => Ok(()),
        }
    }

    /// The value of a key that must be text.
    pub fn text(&self, key: &str) -> Result<Option<&'t str>, EvalError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(other) => Err(self.bad(key, other.to_string(), "text in quotes")),
        }
    }

    /// As [`Keys::text`], for a required key.
    pub fn required(&self, key: &str, expected: &str) -> Result<&'t str, EvalError> {
        self.text(key)?.ok_or_else(|| self.bad(key, "nowhere".to_owned(), expected))
    }

    /// The value of a key that must be a list of texts; empty where the key is missing.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, EvalError> {
        let Some(value) = self.table.get(key) else { return Ok(Vec::new()) };
        let texts = value.as_array().map(|items| items.iter().map(|item| item.as_str().map(str::to_owned)));
        let texts: Option<Vec<String>> = texts.and_then(Iterator::collect);
        texts.ok_or_else(|| self.bad(key, value.to_string(), "a list of texts in quotes: [\"...\", \"...\"]"))
    }

    /// The value of a key that must be a number.
    pub fn number(&self, key: &str) -> Result<Option<f64>, EvalError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) => Ok(Some(*number)),
            Some(Value::Integer(number)) => Ok(Some(*number as f64)),
            Some(other) => Err(self.bad(key, other.to_string(), "a number")),
        }
    }

    /// An error for an unknown key.
    pub fn unknown(&self, key: &str, hint: String) -> EvalError {
        TrainError::UnknownKey { origin: self.origin(key), key: self.called(key), hint }.into()
    }

    /// An error for a key's value.
    pub fn bad(&self, key: &str, found: String, expected: impl Into<String>) -> EvalError {
        let (origin, key, expected) = (self.origin(key), self.called(key), expected.into());
        TrainError::BadValue { origin, key, found, expected }.into()
    }

    fn origin(&self, key: &str) -> String {
        with_line(self.file.origin, self.file.text, &joined(&self.path, key))
    }

    fn called(&self, key: &str) -> String {
        joined(&self.place, key)
    }
}

fn joined(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}
