//! Serialises `f32` settings as the decimals that were typed.
//!
//! Serialisers that know only `f64` would turn 0.08 into 0.07999999821186066. Going through the shortest decimal
//! that reads back as the same `f32` keeps a resolved configuration as legible as its source.

use serde::Serializer;
use serde::ser::SerializeTuple;

fn widen(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

pub(crate) fn one<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(widen(*value))
}

pub(crate) fn optional<S: Serializer>(value: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_some(&widen(*value)),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn pair<S: Serializer>(value: &[f32; 2], serializer: S) -> Result<S::Ok, S::Error> {
    let mut tuple = serializer.serialize_tuple(2)?;
    tuple.serialize_element(&widen(value[0]))?;
    tuple.serialize_element(&widen(value[1]))?;
    tuple.end()
}

pub(crate) fn optional_pair<S: Serializer>(
    value: &Option<[f32; 2]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(value.iter().flatten().map(|&value| widen(value)))
}
