//! Reads `metrics.jsonl` as series.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

/// The records that a run wrote while training, by step and by epoch.
#[derive(Debug, Clone, Default)]
pub struct History {
    steps: BTreeMap<u64, Record>,
    epochs: BTreeMap<u64, Record>,
    /// The numbers by which records know their keys.
    keys: HashMap<String, usize>,
    /// See [`History::damaged`].
    damaged: usize,
}

/// The numbers of a record, each with the number of its key: a long run has millions of records.
type Record = Vec<(usize, f64)>;

/// The kind of records a series is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `"kind": "step"`.
    Step,
    /// `"kind": "epoch"`.
    Epoch,
}

impl History {
    /// Reads the file. See [`History::parse`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(path: &Path) -> io::Result<History> {
        Ok(History::parse(&std::fs::read(path)?))
    }

    /// Parses one JSON object per line: `{"kind": "step", "step": 12, "epoch": 0.06, ...}` or `{"kind": "epoch",
    /// "epoch": 1, ...}`, with numbers for other keys.
    ///
    /// Of several records of a step (from a run that was killed and resumed) the last one counts. Records of another
    /// kind are ignored, as are lines that are no record: see [`History::damaged`].
    pub fn parse(bytes: &[u8]) -> History {
        let mut history = History::default();
        for line in bytes.split_inclusive(|&b| b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let Ok(Value::Object(record)) = serde_json::from_slice(line) else {
                history.damaged += usize::from(line.ends_with(b"\n"));
                continue;
            };
            let number = |key: &str| record.get(key).and_then(Value::as_u64);
            let (kind, at) = match record.get("kind").and_then(Value::as_str) {
                Some("step") => (Kind::Step, number("step")),
                Some("epoch") => (Kind::Epoch, number("epoch")),
                _ => continue,
            };
            if let Some(at) = at {
                let numbers = history.numbers_of(&record);
                match kind {
                    Kind::Step => history.steps.insert(at, numbers),
                    Kind::Epoch => history.epochs.insert(at, numbers),
                };
            }
        }
        history
    }

    fn numbers_of(&mut self, record: &Map<String, Value>) -> Record {
        let mut numbers = Record::with_capacity(record.len());
        for (key, value) in record {
            let Some(value) = value.as_f64() else { continue };
            let key = match self.keys.get(key) {
                Some(&key) => key,
                None => {
                    let new = self.keys.len();
                    self.keys.insert(key.clone(), new);
                    new
                }
            };
            numbers.push((key, value));
        }
        numbers
    }

    /// The number under `key` of a record.
    fn number(&self, record: &Record, key: &str) -> Option<f64> {
        let key = self.keys.get(key)?;
        record.iter().find_map(|(own, value)| (own == key).then_some(*value))
    }

    /// The number of lines that are no record, except the half-written last line of a killed run.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// The last step with a record.
    pub fn last_step(&self) -> Option<u64> {
        let records = self.steps.values().chain(self.epochs.values());
        records.filter_map(|record| self.number(record, "step")).map(|step| step as u64).max()
    }

    /// The points (epoch, value) of `key`, in order; steps without an epoch, and values that are missing or
    /// not finite, are left out.
    pub fn series(&self, kind: Kind, key: &str) -> Vec<(f64, f64)> {
        let records = match kind {
            Kind::Step => &self.steps,
            Kind::Epoch => &self.epochs,
        };
        let points = records
            .values()
            .filter_map(|record| Some((self.number(record, "epoch")?, self.number(record, key)?)));
        points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_and_resumed_run() {
        let history = History::parse(
            b"{\"kind\":\"step\",\"step\":1,\"epoch\":0.5,\"loss\":5.0,\"rate\":0.1}\n\
              {\"kind\":\"step\",\"step\":2,\"epoch\":1.0,\"loss\":4.0}\n\
              {\"kind\":\"epoch\",\"epoch\":1,\"knn_top1\":0.25,\"rank_me_h\":null}\r\n\
              {\"kind\":\"note\",\"text\":\"resumed\"}\n\
              \n\
              {\"kind\":\"step\",\"step\":2,\"epoch\":1.0,\"loss\":3.5}\n\
              [1, 2]\n\
              {\"kind\":\"step\"}\n\
              \xff\xfe{\"kind\":\"step\",\"st",
        );
        assert_eq!(history.series(Kind::Step, "loss"), [(0.5, 5.0), (1.0, 3.5)]);
        assert_eq!(history.series(Kind::Step, "rate"), [(0.5, 0.1)]);
        assert_eq!(history.series(Kind::Epoch, "knn_top1"), [(1.0, 0.25)]);
        assert!(history.series(Kind::Epoch, "rank_me_h").is_empty());
        assert!(history.series(Kind::Epoch, "loss").is_empty());
        assert_eq!(history.damaged(), 1);
    }
}
