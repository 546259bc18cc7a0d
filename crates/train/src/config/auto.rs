//! A value, or `"auto"`.

use serde::de::{self, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::kind::AUTO;

/// A configuration value that may be left to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auto<T> {
    /// Written `"auto"`: the program decides.
    #[default]
    Auto,
    /// A value was given.
    Value(T),
}

impl<T> Auto<T> {
    /// The given value, or the result of `decide`.
    pub fn unwrap_or_else(self, decide: impl FnOnce() -> T) -> T {
        match self {
            Self::Auto => decide(),
            Self::Value(value) => value,
        }
    }

    /// The given value, or its type's default.
    pub fn unwrap_or_default(self) -> T
    where
        T: Default,
    {
        self.unwrap_or_else(T::default)
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
            // Not a value: read it again for the error that lists the valid ones.
            Either::Word(word) => T::deserialize(word.into_deserializer())
                .map(Self::Value)
                .map_err(|error: de::value::Error| de::Error::custom(format!("{error}, or \"{AUTO}\""))),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Auto, EncoderConfig, Stem, TrainConfig};

    #[test]
    fn a_word_is_a_value_or_auto_and_else_both_are_said() {
        let stem = |word: &str| toml::from_str::<EncoderConfig>(&format!("stem = \"{word}\""));
        assert_eq!(stem("small").unwrap().stem, Auto::Value(Stem::Small));
        assert_eq!(stem("auto").unwrap().stem, Auto::Auto);
        let error = stem("large").unwrap_err().to_string();
        assert!(error.contains("expected `imagenet` or `small`, or \"auto\""), "{error}");
        let error = toml::from_str::<TrainConfig>("threads = \"many\"").unwrap_err().to_string();
        assert!(error.contains("string \"many\", expected usize, or \"auto\""), "{error}");
    }
}
