//! Results as lines of a table.

use std::cmp::Reverse;

use simclr_train::TrainError;
use simclr_train::run_folder::RunFolder;
use simclr_words::text::counted;

use super::outcome::{Entry, Outcome};
use super::{KNOWN, Protocol};
use crate::report::TransferRow;

/// Makes a line for each data set, protocol, length of training and seed, with the newest checkpoint that has a
/// result, and of several results the last one in `entries`. The paper's data sets come first, in its order, then
/// others by name. Training from scratch is shown in the line of fine-tuning, as its baseline. Lines with another
/// checkpoint than the newest of `run` say so.
///
/// # Errors
/// Checkpoints that cannot be listed.
pub fn table(entries: &[Entry], run: &RunFolder) -> Result<Vec<TransferRow>, TrainError> {
    let newest = run.checkpoints(1).list()?.last().map(|&(step, _)| step);
    Ok(rows(entries, newest))
}

fn rows(entries: &[Entry], newest: Option<u64>) -> Vec<TransferRow> {
    let mut sorted: Vec<&Entry> = entries.iter().rev().collect();
    let group = |entry: &Entry| {
        let place = KNOWN.iter().position(|known| known.name == entry.set).unwrap_or(KNOWN.len());
        let training = entry.identity.training.map(|training| (Reverse(training.steps), training.batch));
        (place, entry.set.clone(), entry.protocol, training, entry.identity.seed)
    };
    // A stable sort: among equals the last one comes first.
    sorted.sort_by_cached_key(|entry| (group(entry), entry.trained.is_none(), Reverse(entry.step)));
    sorted.dedup_by_key(|entry| group(entry));
    let (baselines, own): (Vec<&Entry>, Vec<&Entry>) =
        sorted.iter().partition(|other| sorted.iter().any(|entry| entry.is_beside(other)));
    let row = |entry: &&Entry| {
        let beside = baselines.iter().find(|other| entry.is_beside(other));
        let is_alone = |other: &&&Entry| (&other.set, other.protocol) == (&entry.set, entry.protocol);
        let several = own.iter().filter(is_alone).count() > 1;
        row(entry, beside.copied(), several, newest)
    };
    own.iter().map(row).collect()
}

fn row(entry: &Entry, beside: Option<&Entry>, several: bool, newest: Option<u64>) -> TransferRow {
    let scratch = entry.protocol == Protocol::Scratch;
    let protocol = match entry.protocol {
        Protocol::Linear => "linear",
        Protocol::FineTune => "fine-tuned",
        Protocol::Scratch => "from scratch",
    };
    let training = entry.identity.training;
    let settings = match training.filter(|_| several) {
        Some(training) => {
            let (steps, images) =
                (counted(training.steps as usize, "step"), counted(training.batch, "image"));
            format!(", {steps} of {images}, seed {}", entry.identity.seed)
        }
        None if several => format!(", seed {}", entry.identity.seed),
        None => String::new(),
    };
    // Otherwise there are only dashes, which do not say why.
    let diverged = match beside {
        _ if entry.diverged() => ", diverged",
        Some(scratch) if scratch.diverged() => ", from scratch diverged",
        _ => "",
    };
    let random = match beside {
        Some(scratch) => &scratch.trained,
        None if scratch => &entry.trained,
        None => &entry.random,
    };
    TransferRow {
        set: entry.title().to_owned(),
        // There may be newer checkpoints than the one this data set was last evaluated with.
        step: Some(entry.step).filter(|&step| !scratch && Some(step) != newest),
        protocol: format!("{protocol}{settings}{diverged}"),
        metric: entry.identity.metric.title().to_owned(),
        simclr: score(&entry.trained).filter(|_| !scratch),
        random: score(random),
        paper: [entry.paper(), entry.paper_supervised(), beside.and_then(Entry::paper)]
            .into_iter()
            .flatten()
            .collect(),
    }
}

impl Entry {
    /// Whether training diverged with every setting tried so far.
    fn diverged(&self) -> bool {
        self.trained.is_none() && !self.grid.is_empty() && self.best().is_none()
    }

    /// Whether `other` is the baseline of this entry: the same network trained from scratch, for as long and on the
    /// same images.
    pub fn is_beside(&self, other: &Entry) -> bool {
        let of = |entry: &Entry| (entry.identity.training, entry.identity.metric, entry.identity.seed);
        let same =
            of(self) == of(other) && self.set == other.set && self.identity.data == other.identity.data;
        (self.protocol, other.protocol) == (Protocol::FineTune, Protocol::Scratch) && same
    }
}

fn score(outcome: &Option<Outcome>) -> Option<f64> {
    outcome.as_ref().map(|outcome| outcome.score)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(protocol: &str, step: u64, steps: u64, data: &str, score: f64) -> Entry {
        let outcome = json!({
            "score": score, "validation": 0.5, "chosen": {}, "train_images": 9, "validation_images": 1, "test_images": 9, "seconds": 1.0
        });
        let training = (protocol != "linear").then(|| json!({ "steps": steps, "batch": 8 }));
        let identity = json!({
            "encoder": "", "data": data, "metric": "top1", "seed": 0, "training": training, "version": 1
        });
        let entry = json!({
            "set": "own", "protocol": protocol, "identity": identity, "step": step, "classes": 2, "trained": outcome, "random": null
        });
        serde_json::from_value(entry).unwrap()
    }

    /// The protocol, the step, and the two figures.
    type Cells = (String, Option<u64>, Option<f64>, Option<f64>);

    fn shown(entries: &[Entry]) -> Vec<Cells> {
        let cells = |row: TransferRow| (row.protocol, row.step, row.simclr, row.random);
        rows(entries, Some(7)).into_iter().map(cells).collect()
    }

    #[test]
    fn only_what_is_alike_stands_side_by_side() {
        let tuned = entry("finetune", 7, 500, "a", 0.9);
        let of = |protocol: &str, simclr, random| (protocol.to_owned(), None, simclr, random);
        let alike = [tuned.clone(), entry("scratch", 3, 500, "a", 0.4)];
        assert_eq!(shown(&alike), [of("fine-tuned", Some(0.9), Some(0.4))]);
        for other in [entry("scratch", 7, 10, "a", 0.4), entry("scratch", 7, 500, "b", 0.4)] {
            let apart = [of("fine-tuned", Some(0.9), None), of("from scratch", None, Some(0.4))];
            assert_eq!(shown(&[tuned.clone(), other]), apart);
        }
        let lengths = [entry("finetune", 7, 10, "a", 0.2), tuned.clone()];
        let rows = [
            of("fine-tuned, 500 steps of 8 images, seed 0", Some(0.9), None),
            of("fine-tuned, 10 steps of 8 images, seed 0", Some(0.2), None),
        ];
        assert_eq!(shown(&lengths), rows);
        // What diverged has no figure, and says why.
        let point =
            json!({ "rate": 9.0, "decay": 0.0, "validation": null, "validation_images": 0, "seconds": 1.0 });
        let grid = vec![serde_json::from_value(point).unwrap()];
        let diverged =
            |protocol| Entry { trained: None, grid: grid.clone(), ..entry(protocol, 7, 500, "a", 0.0) };
        let none = [of("fine-tuned, diverged", None, None)];
        assert_eq!(shown(&[diverged("finetune")]), none);
        assert_eq!(shown(&[diverged("finetune"), diverged("scratch")]), none);
        let one = [of("fine-tuned, from scratch diverged", Some(0.9), None)];
        assert_eq!(shown(&[tuned, diverged("scratch")]), one);
    }

    #[test]
    fn the_papers_figures_are_of_what_is_measured() {
        let of =
            |protocol| Entry { set: "cars".to_owned(), classes: 196, ..entry(protocol, 7, 500, "a", 0.5) };
        let published = |entries: &[Entry]| -> Vec<String> {
            rows(entries, Some(7)).iter().map(|row| row.published().unwrap_or_default()).collect()
        };
        assert_eq!(published(&[of("linear")]), ["60.0, 68.8%"]);
        assert_eq!(published(&[of("finetune")]), ["92.1, 91.4%"]);
        assert_eq!(published(&[of("finetune"), of("scratch")]), ["92.1, 91.4, 91.3%"]);
        assert_eq!(published(&[of("scratch")]), ["91.3%"]);
        assert_eq!(published(&[entry("linear", 7, 500, "a", 0.5)]), [""]);
    }

    #[test]
    fn the_newest_checkpoint_counts() {
        let linear = |step, data, score| entry("linear", step, 0, data, score);
        let of = |step, score| ("linear".to_owned(), step, Some(score), None);
        assert_eq!(shown(&[linear(7, "a", 0.7), linear(3, "a", 0.3)]), [of(None, 0.7)]);
        assert_eq!(shown(&[linear(3, "a", 0.3), linear(2, "a", 0.2)]), [of(Some(3), 0.3)]);
        // Of two sets of images, the one evaluated last.
        assert_eq!(shown(&[linear(7, "a", 0.1), linear(7, "b", 0.7)]), [of(None, 0.7)]);
        // An unfinished entry gives way to a finished one.
        let begun = Entry { trained: None, ..linear(7, "b", 0.0) };
        assert_eq!(shown(&[linear(3, "a", 0.3), begun]), [of(Some(3), 0.3)]);
    }
}
