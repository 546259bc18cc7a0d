//! The labels of a table's rows, from a column of numbers or of text.

use std::collections::{BTreeSet, HashMap};

use parquet::basic::Type as Physical;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};

use super::{Table, column, descriptor, guarded, read_rows};
use crate::error::{DataError, inert, inert_bytes};
use crate::fault::Fault;
use crate::files::archive::{MAX_LABEL, numbered};
use crate::files::labels_among;
use crate::layout::Classes;
use crate::loader::NO_LABEL;

/// The labels of all rows, as they are stored.
pub(super) enum Labels {
    None,
    /// Numbers, with the class names that the file gives them.
    Numbers {
        labels: Vec<u32>,
        names: Option<Vec<String>>,
    },
    Texts(Vec<Option<String>>),
}

impl Labels {
    pub fn read(tables: &[Table]) -> Result<Self, DataError> {
        let kind = |table: &Table| table.label.map(|label| descriptor(table, label).physical_type());
        if tables.iter().any(|table| kind(table).is_none() || kind(table) != kind(&tables[0])) {
            return Ok(Self::None);
        }
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        let (names, renumbered) = one_numbering(tables.iter().map(class_names).collect())
            .map_err(|(table, reason)| DataError::malformed(&tables[table].path, reason))?;
        for (table, new) in tables.iter().zip(renumbered) {
            let number = |value: Option<i64>| match (number(value), &new) {
                (label, Some(new)) => new.get(label as usize).copied().unwrap_or(NO_LABEL),
                (label, None) => label,
            };
            let Some(label) = table.label else { return Ok(Self::None) };
            let bad = |reason: String| DataError::malformed(&table.path, format!("its labels: {reason}"));
            for group in 0..table.metadata.num_row_groups() {
                guarded(|| match kind(table) {
                    Some(Physical::INT32) => column_of::<Int32Type>(table, group, label, |value| {
                        numbers.push(number(value.map(i64::from)))
                    }),
                    Some(Physical::INT64) => {
                        column_of::<Int64Type>(table, group, label, |value| numbers.push(number(value)))
                    }
                    _ => column_of::<ByteArrayType>(table, group, label, |value: Option<ByteArray>| {
                        texts.push(value.map(|text| inert_bytes(text.data())));
                    }),
                })
                .map_err(bad)?;
            }
        }
        Ok(match texts.is_empty() {
            true => Self::Numbers { labels: numbers, names },
            false => Self::Texts(texts),
        })
    }

    /// Whether any row has a label.
    pub fn is_some(&self) -> bool {
        match self {
            Self::None => false,
            Self::Numbers { labels, .. } => labels.iter().any(|&label| label != NO_LABEL),
            Self::Texts(labels) => labels.iter().any(Option::is_some),
        }
    }

    /// The classes, with numbers that agree with those of `other`.
    pub fn classes(&self, other: Option<&Self>) -> Classes {
        match (self, other) {
            (Self::Numbers { labels, names }, other) => {
                let (others, names_there) = match other {
                    Some(Self::Numbers { labels, names }) => (&labels[..], names.as_ref()),
                    _ => (&[][..], None),
                };
                let all = numbered(labels.iter().chain(others).copied().collect());
                // A part without names takes those of the other.
                let names = names.as_ref().or(names_there).filter(|names| names.len() >= all.names.len());
                let names = names.cloned().unwrap_or(all.names);
                match names.is_empty() {
                    true => Classes::default(),
                    false => Classes { names, labels: labels.clone() },
                }
            }
            (Self::Texts(labels), other) => {
                let others = match other {
                    Some(Self::Texts(labels)) => &labels[..],
                    _ => &[],
                };
                let names: BTreeSet<&str> =
                    labels.iter().chain(others).flatten().map(String::as_str).collect();
                let labels = labels_among(labels.iter().map(Option::as_deref), names.iter().copied());
                Classes { names: names.into_iter().map(str::to_owned).collect(), labels }
            }
            (Self::None, _) => Classes::default(),
        }
    }
}

/// The class names by number, and for each table its new numbers, where it numbers the classes differently.
type Numbering = (Option<Vec<String>>, Vec<Option<Vec<u32>>>);

/// Finds one numbering for tables, each with class names of its own or without. Fails with the index of a table whose
/// numbers cannot be matched with names.
fn one_numbering(tables: Vec<Option<Vec<String>>>) -> Result<Numbering, (usize, &'static str)> {
    let mut named = tables.iter().flatten();
    let Some(first) = named.next() else { return Ok((None, vec![None; tables.len()])) };
    if named.all(|names| names == first) {
        return Ok((Some(first.clone()), vec![None; tables.len()]));
    }
    let mut all: Vec<String> = Vec::new();
    let mut number: HashMap<&str, u32> = HashMap::new();
    let mut renumbered = Vec::with_capacity(tables.len());
    for (table, names) in tables.iter().enumerate() {
        let names = names.as_ref().ok_or((
            table,
            "numbers its classes without naming them, and the other tables do not agree on which number is which \
             class; open it alone, or with tables that use the same numbers",
        ))?;
        let new = names.iter().map(|name| {
            *number.entry(name).or_insert_with(|| {
                all.push(name.clone());
                all.len() as u32 - 1
            })
        });
        renumbered.push(Some(new.collect()));
    }
    Ok((Some(all), renumbered))
}

/// Numbers that are not valid labels, such as negative ones, mean no label.
fn number(value: Option<i64>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).filter(|&value| value <= MAX_LABEL).unwrap_or(NO_LABEL)
}

/// Calls `each` with every value of a column.
fn column_of<T: DataType>(
    table: &Table,
    group: usize,
    at: usize,
    mut each: impl FnMut(Option<T::T>),
) -> Result<(), String> {
    let nullable = descriptor(table, at).max_def_level();
    let mut reader = column::<T>(table, group, at, &Fault::default())?;
    let mut left = table.metadata.row_group(group).num_rows().max(0) as usize;
    while left > 0 {
        let rows = left.min(1 << 16);
        read_rows(&mut reader, rows, nullable)?.into_iter().for_each(&mut each);
        left -= rows;
    }
    Ok(())
}

/// The class names in Hugging Face's metadata of the file.
fn class_names(table: &Table) -> Option<Vec<String>> {
    let label = descriptor(table, table.label?);
    let notes = table.metadata.file_metadata().key_value_metadata()?;
    let description = notes.iter().find(|note| note.key == "huggingface")?.value.as_ref()?;
    let description: serde_json::Value = serde_json::from_str(description).ok()?;
    let feature = description.get("info")?.get("features")?.get(label.name())?;
    let names = feature.get("names")?.as_array()?;
    names.iter().map(|name| name.as_str().map(inert)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rows_of_many_classes_in_words() {
        let texts = |count: usize| (0..count).map(|at| Some(format!("class {:05}", at % 30_000)));
        let train = Labels::Texts(texts(300_000).chain([None]).collect());
        // A class that only the test part has counts too, and no row's number changes.
        let test = Labels::Texts(vec![Some("zebra".to_owned())]);
        let classes = train.classes(Some(&test));
        assert_eq!((classes.names.len(), classes.names[30_000].as_str()), (30_001, "zebra"));
        assert!(classes.labels.iter().take(300_000).copied().eq((0..300_000).map(|at| at % 30_000)));
        assert_eq!(classes.labels[300_000], NO_LABEL);
    }

    #[test]
    fn tables_that_number_classes_otherwise_are_joined_by_name() {
        let names = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        let same = vec![names(&["cat", "dog"]), None, names(&["cat", "dog"])];
        assert_eq!(one_numbering(same), Ok((names(&["cat", "dog"]), vec![None; 3])));
        assert_eq!(one_numbering(vec![None; 2]), Ok((None, vec![None; 2])));
        let other = vec![names(&["cat", "dog"]), names(&["car", "dog"])];
        let expected = (names(&["cat", "dog", "car"]), vec![Some(vec![0, 1]), Some(vec![2, 1])]);
        assert_eq!(one_numbering(other.clone()), Ok(expected));
        assert_eq!(one_numbering([other, vec![None]].concat()).unwrap_err().0, 2);
    }
}
