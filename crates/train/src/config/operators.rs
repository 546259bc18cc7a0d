//! The operators of the lists `[[view.a]]` and `[[view.b]]`, and the keys of each.

use simclr_augment::Policy;
use toml::{Table, Value};

use super::keys::{ASPECT_LAW, BLUR_PADDING, BRIGHTNESS};
use super::kind::{Kind, Range};
use super::nearest::nearest;
use Kind::{Interval, Number, Word};

/// An operator's name, and its keys with the kinds of their values.
type Operator = (&'static str, &'static [(&'static str, Kind)]);

const PROB: (&str, Kind) = ("prob", Number(Range::between(0.0, 1.0)));
const UNIT: Range = Range::between(0.0, 1.0);
const FRACTION: Range = Range::above(0.0, 1.0);

/// All operators, in the order in which help lists them.
pub(super) const OPERATORS: &[Operator] = &[
    (
        "random_resized_crop",
        &[
            ("area", Interval(FRACTION)),
            ("aspect", Interval(Range::between(0.01, 100.0))),
            ("aspect_law", ASPECT_LAW),
        ],
    ),
    ("horizontal_flip", &[PROB]),
    ("color_jitter", &[PROB, ("strength", Number(Range::between(0.0, 2.5))), ("brightness", BRIGHTNESS)]),
    ("grayscale", &[PROB]),
    ("gaussian_blur", &[PROB, ("sigma", Interval(Range::above(0.0, 1000.0))), ("padding", BLUR_PADDING)]),
    ("solarize", &[PROB, ("threshold", Interval(UNIT))]),
    ("cutout", &[PROB, ("side", Interval(FRACTION)), ("fill", Number(UNIT))]),
    ("rotation", &[PROB, ("degrees", Interval(Range::between(90.0, 270.0)))]),
    ("gaussian_noise", &[PROB, ("sigma", Interval(UNIT))]),
    ("sobel", &[PROB]),
    ("auto_augment", &[PROB, ("policy", Word(Policy::WORDS))]),
];

/// Keys of operators that follow a key of `[view]` where a list does not give them: operator, key, key of `[view]`.
const FOLLOWING: [(&str, &str, &str); 11] = [
    ("random_resized_crop", "area", "crop_area"),
    ("random_resized_crop", "aspect", "crop_aspect"),
    ("random_resized_crop", "aspect_law", "crop_aspect_law"),
    ("horizontal_flip", "prob", "flip"),
    ("color_jitter", "prob", "color_prob"),
    ("color_jitter", "strength", "color_strength"),
    ("color_jitter", "brightness", "brightness"),
    ("grayscale", "prob", "gray_prob"),
    ("gaussian_blur", "prob", "blur_prob"),
    ("gaussian_blur", "sigma", "blur_sigma"),
    ("gaussian_blur", "padding", "blur_padding"),
];

/// The key of `[view]` that `key` of the operator `op` follows, if it follows one.
pub(super) fn followed(op: &str, key: &str) -> Option<&'static str> {
    let following = FOLLOWING.iter().find(|following| (following.0, following.1) == (op, key));
    following.map(|following| following.2)
}

/// Completes the lists of a merged `[view]` by what their operators follow. Lists that were recorded state everything
/// and stay as they are.
pub(super) fn complete(view: &mut Table) {
    let keys = view.clone();
    let lists =
        ["a", "b"].map(|list| view.get(list).and_then(Value::as_array).cloned().map(|ops| (list, ops)));
    for (list, mut ops) in lists.into_iter().flatten() {
        for op in ops.iter_mut().filter_map(Value::as_table_mut) {
            let name = op.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
            for (_, key, of_view) in FOLLOWING.iter().filter(|following| following.0 == name) {
                // An absent key is "auto", which means the same to both.
                if let (None, Some(value)) = (op.get(*key), keys.get(*of_view)) {
                    op.insert((*key).to_owned(), value.clone());
                }
            }
        }
        view.insert(list.to_owned(), ops.into());
    }
}

/// An operator of a list that is never applied, because of a key of `[view]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unapplied {
    /// Its place, such as `view.a[2]`.
    pub place: String,
    /// Its name.
    pub op: String,
    /// The key whose value, 0, is its probability.
    pub key: String,
}

/// The operators in the lists of `given` that do not state a probability, and have one of 0 in the resolved `view`.
pub(super) fn unapplied(given: &Table, view: &Table) -> Vec<Unapplied> {
    let of_list = |list| {
        let ops = |view: &Table| view.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        let pairs = ops(given).into_iter().zip(ops(view)).enumerate();
        pairs.filter_map(move |(at, (given, op))| {
            let op = op.as_table().filter(|op| given.get("prob").is_none() && is_off(op))?;
            let op = op.get("op").and_then(Value::as_str)?;
            let key = format!("view.{}", followed(op, "prob")?);
            Some(Unapplied { place: format!("view.{list}[{}]", at + 1), op: op.to_owned(), key })
        })
    };
    ["a", "b"].into_iter().flat_map(of_list).collect()
}

/// Whether an operator has a probability of 0.
fn is_off(op: &Table) -> bool {
    op.get("prob").and_then(Value::as_float) == Some(0.0)
}

/// Whether an operator of the lists of `view` has the value of its `key`, which it may follow. Of one that is never
/// applied, only the probability counts.
pub(super) fn is_followed(view: &Table, key: &str) -> bool {
    let lists = ["a", "b"].into_iter().filter_map(|list| view.get(list)?.as_array()).flatten();
    let mut ops = lists.filter_map(Value::as_table);
    let followers = || FOLLOWING.iter().filter(|following| following.2 == key);
    ops.any(|op| {
        let is = |name: &str| op.get("op").and_then(Value::as_str) == Some(name);
        let counts = |key: &str| key == "prob" || !is_off(op);
        followers().any(|&(name, own, _)| is(name) && counts(own) && op.get(own) == view.get(key))
    })
}

/// What is wrong with a list, and where.
pub(super) struct Fault {
    /// The place, such as "[2].sigma": the second operator's key.
    pub place: String,
    /// The value found there; `None` for an unknown key.
    pub found: Option<Value>,
    /// What would be right; for an unknown key, a hint.
    pub expected: String,
}

/// Checks a list and converts its values to the form that the typed configuration reads.
pub(super) fn accept(list: &Value) -> Result<Value, Fault> {
    let fault = |place: String, found: Option<&Value>, expected: String| {
        Err(Fault { place, found: found.cloned(), expected })
    };
    let Some(entries) = list.as_array().filter(|entries| entries.iter().all(Value::is_table)) else {
        return fault(String::new(), Some(list), Kind::Operators.describe());
    };
    let mut accepted = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let place = |key: &str| format!("[{}].{key}", number + 1);
        let entry = entry.as_table().cloned().unwrap_or_default();
        let names = || OPERATORS.iter().map(|operator| operator.0);
        let op = entry.get("op");
        let known = op.and_then(Value::as_str).and_then(|op| OPERATORS.iter().find(|known| known.0 == op));
        let Some((name, keys)) = known else {
            let near = op.and_then(Value::as_str).and_then(|op| nearest(op, names()));
            let expected = match near {
                Some(near) => format!("an operator (did you mean \"{near}\"?)"),
                None => format!("one of {}", names().collect::<Vec<_>>().join(", ")),
            };
            return fault(place("op"), Some(op.unwrap_or(&Value::from(""))), expected);
        };
        let mut table = Table::from_iter([("op".to_owned(), Value::from(*name))]);
        for (key, value) in entry.iter().filter(|(key, _)| *key != "op") {
            let Some((_, kind)) = keys.iter().find(|known| known.0 == key) else {
                let hint = match nearest(key, keys.iter().map(|known| known.0)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        let keys: Vec<_> = keys.iter().map(|known| known.0).collect();
                        format!("{name} has {}", keys.join(", "))
                    }
                };
                return fault(place(key), None, hint);
            };
            match kind.accept(value) {
                Ok(value) => table.insert(key.clone(), value),
                Err(expected) => return fault(place(key), Some(value), expected),
            };
        }
        accepted.push(Value::from(table));
    }
    Ok(accepted.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use simclr_augment::ViewOp;

    #[test]
    fn every_operator_of_the_views_has_its_keys() {
        let names: Vec<_> = OPERATORS.iter().map(|operator| operator.0).collect();
        assert_eq!(names, ViewOp::NAMES);
        for (name, keys) in OPERATORS {
            let named: ViewOp = Table::from_iter([("op".to_owned(), Value::from(*name))]).try_into().unwrap();
            let written = Table::try_from(&named).unwrap();
            for key in written.keys().filter(|key| *key != "op") {
                assert!(keys.iter().any(|known| known.0 == key), "{name} has {key}");
            }
        }
    }
}
