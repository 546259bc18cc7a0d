//! A value, or `"auto"`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::kind::AUTO;

/// A configuration value that may be left to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auto<T> {
    /// Written `"auto"`: the program decides.
    #[default]
    Auto,
    /// Given.
    Value(T),
}

impl<T> Auto<T> {
    /// The given value, or that of `decide`.
    pub fn unwrap_or_else(self, decide: impl FnOnce() -> T) -> T {
        match self {
            Self::Auto => decide(),
            Self::Value(value) => value,
        }
    }

    /// The given value, if one is.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Value(value) => Some(value),
        }
    }
}

impl<T: Serialize> Serialize for Auto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(AUTO),
            Self::Value(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<T> {
            Value(T),
            Word(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Value(value) => Ok(Self::Value(value)),
            Either::Word(word) if word == AUTO => Ok(Self::Auto),
            Either::Word(word) => {
                Err(de::Error::custom(format!("\"{word}\", expected \"auto\" or a number")))
            }
        }
    }
}
