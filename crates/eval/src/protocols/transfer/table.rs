//! Results as lines of a table.

use super::outcome::{Entry, Outcome};
use super::{KNOWN, Protocol};
use crate::report::TransferRow;

/// A line for each data set and protocol: the paper's data sets first, in its order, then others by name. Training from scratch stands in the line
/// of fine-tuning, which it is the baseline of.
pub fn table(entries: &[Entry]) -> Vec<TransferRow> {
    let newest =
        entries.iter().filter(|entry| entry.protocol != Protocol::Scratch).map(|entry| entry.step).max();
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by_key(|entry| {
        let place = KNOWN.iter().position(|known| known.name == entry.set);
        (place.unwrap_or(KNOWN.len()), &entry.set, entry.protocol)
    });
    let mut rows: Vec<TransferRow> = Vec::new();
    let mut before: Option<&Entry> = None;
    for entry in sorted {
        let scratch = entry.protocol == Protocol::Scratch;
        let tuned = before.filter(|before| before.set == entry.set && before.protocol == Protocol::FineTune);
        match (rows.last_mut(), tuned) {
            // One judged by another metric is another matter.
            (Some(row), Some(tuned)) if scratch && tuned.identity.metric == entry.identity.metric => {
                row.random = score(&entry.trained);
            }
            _ => rows.push(row(entry, newest)),
        }
        before = Some(entry);
    }
    rows
}

fn row(entry: &Entry, newest: Option<u64>) -> TransferRow {
    let scratch = entry.protocol == Protocol::Scratch;
    TransferRow {
        set: entry.title().to_owned(),
        // A checkpoint may have come since a data set was last tried.
        step: Some(entry.step).filter(|&step| !scratch && Some(step) != newest),
        protocol: match entry.protocol {
            Protocol::Linear => "linear",
            Protocol::FineTune => "fine-tuned",
            Protocol::Scratch => "from scratch",
        }
        .to_owned(),
        metric: entry.identity.metric.title().to_owned(),
        simclr: score(&entry.trained).filter(|_| !scratch),
        random: score(if scratch { &entry.trained } else { &entry.random }),
        paper: entry.paper(),
    }
}

fn score(outcome: &Option<Outcome>) -> Option<f64> {
    outcome.as_ref().map(|outcome| outcome.score)
}
