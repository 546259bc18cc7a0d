//! The safetensors format: the length of the header, the header as JSON padded with spaces, the tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::format::{Description, Rows, Writer};
use super::matrix::Matrix;
use crate::EvalError;

/// The label of an image without one.
const NONE: i64 = -1;
/// The header is padded to a multiple of this, so that values can be mapped into memory.
const ALIGNMENT: usize = 8;
/// The longest header that the format allows, in bytes.
const MAX_HEADER_LEN: usize = 100_000_000;

/// A .safetensors file being written: `features`, then `labels`, which are complete only after all rows.
pub(super) struct Safetensors {
    matrix: Matrix,
    labels: Vec<i64>,
    dim: usize,
    notes: Value,
    /// Bytes of the header's text.
    room: usize,
}

impl Safetensors {
    /// Starts the file.
    ///
    /// # Errors
    /// [`EvalError::Taken`] where a file of that name holds other tensors, such as a network.
    pub fn create(path: &Path, what: &Description) -> Result<Safetensors, EvalError> {
        if names_of_tensors(path).is_some_and(|names| !names.iter().eq(["features", "labels"])) {
            return Err(EvalError::Taken { path: path.to_owned(), what: "file of features" });
        }
        let notes = what.notes.iter().map(|(name, note)| ((*name).to_owned(), json!(note)));
        let notes = Value::Object(notes.collect::<Map<_, _>>());
        let room = text(what.most_rows, what.dim, &notes).len().next_multiple_of(ALIGNMENT);
        let matrix = Matrix::create(path, &header(what.most_rows, what.dim, &notes, room))?;
        Ok(Safetensors { matrix, labels: Vec::new(), dim: what.dim, notes, room })
    }
}

impl Writer for Safetensors {
    fn write(&mut self, rows: &Rows<'_>) -> Result<(), EvalError> {
        self.labels.extend(rows.images.iter().map(|image| image.label.map_or(NONE, i64::from)));
        self.matrix.write(rows)
    }

    fn finish(mut self: Box<Self>) -> Result<(), EvalError> {
        let labels: Vec<u8> = self.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        self.matrix.append(&labels)?;
        let header = header(self.matrix.rows, self.dim, &self.notes, self.room);
        self.matrix.finish(&header)
    }
}

/// The names of the tensors of a file, in alphabetical order; `None` if it is none of tensors.
fn names_of_tensors(path: &Path) -> Option<Vec<String>> {
    let mut file = File::open(path).ok()?;
    let mut room = [0; size_of::<u64>()];
    file.read_exact(&mut room).ok()?;
    let mut text =
        vec![0; usize::try_from(u64::from_le_bytes(room)).ok().filter(|&room| room <= MAX_HEADER_LEN)?];
    file.read_exact(&mut text).ok()?;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&text).ok()?;
    Some(header.into_keys().filter(|name| name != "__metadata__").collect())
}

fn text(rows: usize, dim: usize, notes: &Value) -> String {
    let features = rows * dim * size_of::<f32>();
    let labels = features + rows * size_of::<i64>();
    let header = json!({
        "__metadata__": notes,
        "features": { "dtype": "F32", "shape": [rows, dim], "data_offsets": [0, features] },
        "labels": { "dtype": "I64", "shape": [rows], "data_offsets": [features, labels] },
    });
    header.to_string()
}

/// Everything before the values; its text takes `room` bytes.
fn header(rows: usize, dim: usize, notes: &Value, room: usize) -> Vec<u8> {
    let mut text = text(rows, dim, notes).into_bytes();
    // Padded in bytes: characters of a class name may take several.
    text.resize(room, b' ');
    [&(room as u64).to_le_bytes()[..], &text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_aligned_whatever_classes_are_called() {
        for class in ["a", "é", "éé", "猫", "猫é", "🐈"] {
            let notes = json!({ "classes": class });
            let room = text(1000, 3, &notes).len().next_multiple_of(ALIGNMENT);
            for rows in [1000, 999, 1] {
                let header = header(rows, 3, &notes, room);
                assert_eq!(header.len(), size_of::<u64>() + room, "{class}, {rows} rows");
                assert!(serde_json::from_slice::<Value>(&header[size_of::<u64>()..]).is_ok());
            }
        }
    }
}
