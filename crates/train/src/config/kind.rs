//! The kinds of configuration values: what each accepts, and how messages describe it.

use simclr_words::text::grouped;
use toml::Value;

use super::device_name::{DEVICES, DeviceName};
use super::operators;

/// What a configuration key accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// A whole number between two bounds, both included.
    Whole(u64, u64),
    /// [`Kind::Whole`], or `"auto"`.
    WholeOrAuto(u64, u64),
    /// A finite number.
    Number(Range),
    /// [`Kind::Number`], or `"auto"`.
    NumberOrAuto(Range),
    /// Two numbers `[low, high]` with low <= high, both in the range.
    Interval(Range),
    /// [`Kind::Interval`], or `"auto"`.
    IntervalOrAuto(Range),
    /// `true` or `false`.
    Flag,
    /// A colour: `[red, green, blue]` of 0 to 255, or one of a few names.
    Color,
    /// A range of stored values: `"full"`, `"image"`, or `[low, high]` with low < high.
    Window,
    /// One of these words.
    Word(&'static [&'static str]),
    /// [`Kind::Word`], or `"auto"`.
    WordOrAuto(&'static [&'static str]),
    /// A device: see [`super::DeviceName`].
    Device,
    /// A run folder, or `"none"`.
    Run,
    /// A list of view operators, or `"auto"`.
    Operators,
}

/// A range of finite numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    low: f64,
    low_included: bool,
    high: f64,
}

impl Range {
    /// Numbers `x` with `low <= x <= high`.
    pub const fn between(low: f64, high: f64) -> Self {
        Self { low, low_included: true, high }
    }

    /// Numbers `x` with `low < x <= high`.
    pub const fn above(low: f64, high: f64) -> Self {
        Self { low, low_included: false, high }
    }

    fn contains(&self, x: f64) -> bool {
        let low = if self.low_included { x >= self.low } else { x > self.low };
        low && x <= self.high && x.is_finite()
    }

    fn describe(&self) -> String {
        let [low, high] = [self.low, self.high].map(|end| match (1e-6..1e15).contains(&end) || end == 0.0 {
            true => end.to_string(),
            false => format!("{end:e}"),
        });
        match (self.low_included, self.high == f64::INFINITY) {
            (true, true) => format!("of {low} or more"),
            (false, true) => format!("above {low}"),
            (true, false) => format!("from {low} to {high}"),
            (false, false) => format!("above {low}, up to {high}"),
        }
    }
}

/// The named colours.
const COLORS: [(&str, i64); 4] = [("white", 255), ("black", 0), ("grey", 128), ("gray", 128)];

/// The word that leaves a value to the program.
pub(super) const AUTO: &str = "auto";

impl Kind {
    /// Checks a value and converts it to the form that the typed configuration reads (`1` for a number becomes `1.0`).
    ///
    /// # Errors
    /// A description of what is accepted.
    pub(super) fn accept(&self, value: &Value) -> Result<Value, String> {
        let accepted = match *self {
            Self::Whole(low, high) => whole(value, low, high),
            Self::WholeOrAuto(low, high) => auto(value).or_else(|| whole(value, low, high)),
            Self::Number(range) => number(value, range),
            Self::NumberOrAuto(range) => auto(value).or_else(|| number(value, range)),
            Self::Interval(range) => interval(value, range),
            Self::IntervalOrAuto(range) => auto(value).or_else(|| interval(value, range)),
            Self::Flag => value.as_bool().map(Value::Boolean),
            Self::Color => color(value),
            Self::Window => window(value),
            Self::Word(words) => word(value, words),
            Self::WordOrAuto(words) => auto(value).or_else(|| word(value, words)),
            Self::Device => value.as_str().filter(|name| name.parse::<DeviceName>().is_ok()).map(Value::from),
            Self::Run => value.as_str().filter(|path| !path.is_empty()).map(Value::from),
            // `operators::accept` itself reports what is wrong within a list.
            Self::Operators => auto(value).or_else(|| operators::accept(value).ok()),
        };
        accepted.ok_or_else(|| self.expected(value))
    }

    /// What is accepted, in words: "a whole number from 2 to 65,536".
    pub fn describe(&self) -> String {
        match self {
            Self::Whole(low, high) => format!("a whole number {}", whole_range(*low, *high)),
            Self::WholeOrAuto(low, high) => {
                format!("\"auto\" or a whole number {}", whole_range(*low, *high))
            }
            Self::Number(range) => format!("a number {}", range.describe()),
            Self::NumberOrAuto(range) => format!("\"auto\" or a number {}", range.describe()),
            Self::Interval(range) => {
                format!("two numbers [low, high], low <= high, each {}", range.describe())
            }
            Self::IntervalOrAuto(range) => format!("\"auto\" or {}", Self::Interval(*range).describe()),
            Self::Flag => "true or false".to_owned(),
            Self::Color => {
                "three whole numbers [red, green, blue] from 0 to 255, or \"white\", \"black\" or \"grey\""
                    .to_owned()
            }
            Self::Window => {
                "\"full\", \"image\", or two whole numbers [low, high] from 0 to 65,535, low < high"
                    .to_owned()
            }
            Self::Device => DEVICES.to_owned(),
            Self::Run => "the path of a run folder, or \"none\"".to_owned(),
            Self::Operators => {
                "\"auto\" or a list of operators, each a table with `op` and its keys".to_owned()
            }
            Self::Word(_) | Self::WordOrAuto(_) => {
                let quoted: Vec<_> = self.words().map(|w| format!("\"{w}\"")).collect();
                match quoted.as_slice() {
                    [one] => one.clone(),
                    many => format!("one of {}", many.join(", ")),
                }
            }
        }
    }

    /// The words to choose from; empty for kinds other than [`Kind::Word`] and [`Kind::WordOrAuto`].
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        let (auto, words): (Option<&str>, &[&str]) = match *self {
            Self::Word(words) => (None, words),
            Self::WordOrAuto(words) => (Some(AUTO), words),
            _ => (None, &[]),
        };
        auto.into_iter().chain(words.iter().copied())
    }

    fn expected(&self, value: &Value) -> String {
        let mut expected = self.describe();
        if let Some(near) = value.as_str().and_then(|word| super::nearest::nearest(word, self.words())) {
            expected.push_str(&format!(" (did you mean \"{near}\"?)"));
        }
        expected
    }
}

fn whole_range(low: u64, high: u64) -> String {
    let low = grouped(low);
    if high >= i64::MAX as u64 {
        format!("of {low} or more")
    } else {
        format!("from {low} to {}", grouped(high))
    }
}

fn auto(value: &Value) -> Option<Value> {
    value.as_str().filter(|&word| word == AUTO).map(Value::from)
}

fn word(value: &Value, words: &[&str]) -> Option<Value> {
    value.as_str().filter(|word| words.contains(word)).map(Value::from)
}

fn whole(value: &Value, low: u64, high: u64) -> Option<Value> {
    let n = u64::try_from(value.as_integer()?).ok()?;
    (low <= n && n <= high).then(|| value.clone())
}

fn number(value: &Value, range: Range) -> Option<Value> {
    let x = as_number(value)?;
    range.contains(x).then_some(Value::Float(x))
}

fn interval(value: &Value, range: Range) -> Option<Value> {
    let [low, high] = value.as_array()?.as_slice() else {
        return None;
    };
    let (low, high) = (as_number(low)?, as_number(high)?);
    (low <= high && range.contains(low) && range.contains(high)).then(|| Value::from(vec![low, high]))
}

fn color(value: &Value) -> Option<Value> {
    if let Some(word) = value.as_str() {
        let (_, shade) = COLORS.iter().find(|(name, _)| *name == word)?;
        return Some(Value::from(vec![*shade; 3]));
    }
    let parts = value.as_array()?;
    let inside = parts.iter().all(|part| whole(part, 0, 255).is_some());
    (parts.len() == 3 && inside).then(|| value.clone())
}

fn window(value: &Value) -> Option<Value> {
    if let Some(word) = value.as_str() {
        return ["full", "image"].contains(&word).then(|| value.clone());
    }
    let [low, high] = value.as_array()?.as_slice() else {
        return None;
    };
    let bound = |value| whole(value, 0, 65_535).and_then(|value| value.as_integer());
    (bound(low)? < bound(high)?).then(|| value.clone())
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(x) => Some(*x),
        // Larger whole numbers are typing errors; below 2^53 the conversion is exact.
        Value::Integer(n) if n.unsigned_abs() < 1 << 53 => Some(*n as f64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, KEYS, Layers};

    /// All words that a kind accepts, or its lowest and highest values.
    fn edges(kind: Kind) -> Vec<Value> {
        let ends = |range: Range| {
            let above = if range.low_included { range.low } else { range.low + f64::from(f32::MIN_POSITIVE) };
            [above, range.high]
        };
        match kind {
            Kind::Number(range) | Kind::NumberOrAuto(range) => ends(range).map(Value::from).to_vec(),
            Kind::Interval(range) | Kind::IntervalOrAuto(range) => {
                let [low, high] = ends(range);
                [[low, low], [low, high], [high, high]].map(|pair| Value::from(pair.to_vec())).to_vec()
            }
            Kind::Word(words) => words.iter().map(|&word| Value::from(word)).collect(),
            Kind::Operators => vec![],
            other => panic!("the views have no {other:?} yet"),
        }
    }

    #[test]
    fn what_is_accepted_for_the_views_is_accepted_by_them() {
        let mut tried = 0;
        for key in KEYS.iter().filter(|key| key.split().0 == "view") {
            for value in edges(key.kind) {
                let sets = [format!("{}={value}", key.path)];
                Config::resolve(&Layers { sets: &sets, ..Layers::default() })
                    .unwrap_or_else(|error| panic!("{}: {error}", sets[0]));
                tried += 1;
            }
        }
        assert!(tried > 20);
    }
}
