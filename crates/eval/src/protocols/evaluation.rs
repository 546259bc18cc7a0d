//! The results of protocols.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simclr_data::Skipped;
use simclr_metrics::{ClassCounts, confusion, likeliest, top_k};
use simclr_train::run_folder::result_file;
use simclr_words::text::{counted, grouped, short};

use super::protocol::Protocol;
use super::versus::Versus;
use crate::EvalError;

/// The k of top-k accuracy, which says nothing with this many classes or fewer.
const TOP_K: usize = 5;
/// The most classes for which a confusion matrix is kept.
const MAX_CONFUSION_CLASSES: usize = 100;

/// A protocol's result, as it is written to `RUN/evaluation/PROTOCOL.json`. Accuracies are fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What was done; its name is that of the file.
    pub protocol: Protocol,
    /// Training steps of the encoder, if it came from a run.
    #[serde(default)]
    pub step: Option<u64>,
    /// Where the images come from, if known.
    #[serde(default)]
    pub data: Option<Origin>,
    /// Training images of the classifier.
    pub train_images: usize,
    /// Test images of the classifier.
    pub test_images: usize,
    /// Images of both sets that could not be read.
    pub skipped: usize,
    /// Those images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<BrokenImage>,
    /// Classes of which no training image could be read; their test images still count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlearnt: Vec<String>,
    /// How many classes there are.
    pub classes: usize,
    /// Scores of the trained encoder.
    #[serde(flatten)]
    pub trained: Scores,
    /// Scores of a random encoder; for fine-tuning, of the network trained from scratch.
    #[serde(default)]
    pub random: Option<Scores>,
    /// How long it all took, encoding included.
    pub seconds: f64,
}

/// The images that a classifier was trained and tested on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The data set to train on, as it was named.
    pub train: String,
    /// The data set to test on, which may be the same one.
    pub test: String,
    /// The folder from which a relative path to train on starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Whether the test images were set aside from the training images.
    pub set_apart: bool,
    /// Test images that are training images too.
    pub shared: usize,
}

/// An image that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenImage {
    /// "training", "test" or "validation".
    pub set: String,
    /// Its name in the data set.
    pub name: String,
    /// Why it cannot be read.
    pub reason: String,
}

impl BrokenImage {
    /// The broken images of both sets.
    pub(super) fn all(training: &[Skipped], test: &[Skipped]) -> Vec<BrokenImage> {
        [BrokenImage::of("training", training), BrokenImage::of("test", test)].concat()
    }

    /// The broken images of a set.
    pub(super) fn of(set: &'static str, skipped: &[Skipped]) -> Vec<BrokenImage> {
        let broken = skipped.iter().map(|Skipped { name, reason, .. }| BrokenImage {
            set: set.to_owned(),
            name: name.clone(),
            reason: reason.clone(),
        });
        broken.collect()
    }
}

/// Accuracies of a classifier on one encoder's features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Fraction of test images whose class got the highest score.
    pub top1: f64,
    /// The 95% interval of that by the number of test images; `None` in results of earlier versions.
    #[serde(default)]
    pub interval: Option<[f64; 2]>,
    /// Fraction whose class was among the five likeliest; `None` with five classes or fewer.
    pub top5: Option<f64>,
    /// Mean over the classes of their accuracies, without classes that have no test images.
    pub mean_per_class: f64,
    /// Every class, indexed by label.
    pub per_class: Vec<ClassScore>,
    /// How many images of each class (rows) were predicted as each class (columns); empty above 100 classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Vec<u64>>,
    /// What the protocol chose, and how long its steps took.
    #[serde(default)]
    pub details: Map<String, Value>,
}

/// A class's accuracy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// The class.
    pub name: String,
    /// Fraction of its images that were recognised; `None` where there are none.
    pub accuracy: Option<f64>,
    /// Its test images.
    pub images: u64,
}

impl Scores {
    /// The single class predicted for all test images, if these are of several: then accuracies only reflect the size
    /// of that class, and say nothing about an encoder. Unknown above 100 classes.
    pub fn only_answer(&self) -> Option<&str> {
        let answers =
            |class: usize| self.confusion.iter().any(|row| row.get(class).is_some_and(|&images| images > 0));
        let mut answered = (0..self.confusion.len()).filter(|&class| answers(class));
        let only = answered.next().filter(|_| answered.next().is_none() && self.top1 < 1.0);
        Some(self.per_class.get(only?)?.name.as_str())
    }

    /// The class with the most test images, the first among equals, and its share of them.
    pub fn largest_class(&self) -> Option<(&str, f64)> {
        let all: u64 = self.per_class.iter().map(|class| class.images).sum();
        let largest = self.per_class.iter().rev().max_by_key(|class| class.images)?;
        (all > 0).then(|| (largest.name.as_str(), largest.images as f64 / all as f64))
    }

    /// [`Scores::largest_class`], if always answering with it may be right as often: its share is not below the
    /// interval of top-1.
    pub fn no_better_than(&self) -> Option<(&str, f64)> {
        let least = self.interval.map_or(self.top1, |[least, _]| least);
        self.largest_class().filter(|&(_, share)| share >= least)
    }

    /// How many images a setting was chosen by, if one was.
    pub fn validation_images(&self) -> Option<usize> {
        self.details.get("validation_images").and_then(Value::as_u64).map(|images| images as usize)
    }

    /// From the class predicted for every test image, and the fraction whose class was among the five likeliest.
    pub(super) fn of_predictions(
        predictions: &[u32],
        top5: f64,
        labels: &[u32],
        classes: &[String],
        details: Map<String, Value>,
    ) -> Result<Scores, EvalError> {
        let counts = ClassCounts::new(predictions, labels, classes.len())?;
        let each = classes.iter().zip(counts.per_class()).zip(counts.images());
        let per_class =
            each.map(|((name, accuracy), &images)| ClassScore { name: name.clone(), accuracy, images });
        let confusion = match classes.len() <= MAX_CONFUSION_CLASSES {
            true => confusion(predictions, labels, classes.len())?,
            false => Vec::new(),
        };
        Ok(Scores {
            top1: counts.accuracy(),
            interval: Some(counts.interval()),
            top5: (classes.len() > TOP_K).then_some(top5),
            mean_per_class: counts.mean_per_class(),
            per_class: per_class.collect(),
            confusion,
            details,
        })
    }

    /// From a score of every class for every test image, higher meaning likelier; ties go to the lower class.
    pub(super) fn of_scores(
        scores: &[f32],
        labels: &[u32],
        classes: &[String],
        details: Map<String, Value>,
    ) -> Result<Scores, EvalError> {
        let top5 = top_k(scores, labels, classes.len(), TOP_K)?;
        let predictions: Vec<u32> = scores.chunks_exact(classes.len()).map(likeliest).collect();
        Scores::of_predictions(&predictions, top5, labels, classes, details)
    }
}

/// The image counts of a result.
pub(super) struct Counts {
    pub(super) train: usize,
    pub(super) test: usize,
    pub(super) broken: Vec<BrokenImage>,
    /// Classes of which no training image could be read.
    pub(super) unlearnt: Vec<String>,
}

impl Evaluation {
    pub(super) fn new(
        protocol: Protocol,
        counts: Counts,
        scores: Versus<Scores>,
        seconds: f64,
    ) -> Evaluation {
        Evaluation {
            protocol,
            step: None,
            data: None,
            train_images: counts.train,
            test_images: counts.test,
            skipped: counts.broken.len(),
            broken: counts.broken,
            unlearnt: counts.unlearnt,
            classes: scores.trained.per_class.len(),
            trained: scores.trained,
            random: scores.random,
            seconds,
        }
    }

    /// The result of a protocol in `folder`; `None` if the file is missing or not (or no longer) a valid result.
    pub fn read(folder: &Path, protocol: &Protocol) -> Option<Evaluation> {
        serde_json::from_slice(&std::fs::read(result_file(folder, &protocol.to_string())).ok()?).ok()
    }

    /// The settings of the result, in words; where settings were chosen, those of the trained encoder.
    pub fn settings(&self) -> String {
        let mut settings = self.usual_settings();
        let detail = |key: &str| self.trained.details.get(key);
        let temperature = detail("temperature").and_then(Value::as_f64).filter(|&value| value != 0.1);
        // The title of fine-tuning already has its seed and its weight decay.
        let untold = !self.protocol.is_fine_tuning();
        let seed = detail("seed").and_then(Value::as_u64).filter(|&seed| seed > 0 && untold);
        settings.extend(temperature.map(|temperature| format!(", temperature {}", short(temperature))));
        let decay = detail("weight_decay").and_then(Value::as_f64).filter(|&decay| decay > 0.0 && untold);
        settings.extend(decay.map(|decay| format!(", weight decay {}", short(decay))));
        settings.extend(seed.map(|seed| format!(", seed {seed}")));
        settings
    }

    /// The settings that are named even at their defaults.
    fn usual_settings(&self) -> String {
        let details = &self.trained.details;
        let number = |key: &str| details.get(key).filter(|value| value.is_number());
        let (k, epochs, batch) = (number("k"), number("epochs"), number("batch"));
        match (k, epochs.zip(batch).zip(number("rate")), number("l2").and_then(Value::as_f64)) {
            (Some(k), ..) if k.as_u64() == Some(self.train_images as u64) => {
                format!("k = {k}, all there are to learn from")
            }
            (Some(k), ..) => format!("k = {k}"),
            (_, Some(((epochs, batch), rate)), _) => {
                let rate = rate.as_f64().unwrap_or_default();
                let plural = if epochs.as_u64() == Some(1) { "" } else { "s" };
                let others = self.random.as_ref().and_then(|random| random.details.get("rate")?.as_f64());
                let other = others
                    .filter(|&other| other != rate)
                    .map_or(String::new(), |other| format!(" ({}: {})", self.baseline(), short(other)));
                format!("{epochs} epoch{plural} of batch {batch} at rate {}{other}", short(rate))
            }
            (.., Some(l2)) => format!("L2 weight {}", short(l2)),
            _ => String::new(),
        }
    }

    /// The test images, in words.
    pub fn judged_by(&self) -> String {
        let images = |which: &str| counted(self.test_images, which);
        match &self.data {
            None => images("test image"),
            Some(Origin { test, set_apart: true, .. }) => {
                format!("{} set apart from {test}", images("image"))
            }
            Some(Origin { test, shared: 0, .. }) => format!("{} of {test}", images("test image")),
            Some(Origin { test, shared, .. }) => {
                let shared = grouped(*shared as u64);
                format!("{} of {test}, {shared} of them learnt from", images("test image"))
            }
        }
    }

    /// What the pretrained encoder is compared against, in words.
    pub fn baseline(&self) -> &'static str {
        if self.protocol.is_fine_tuning() { "from scratch" } else { "random encoder" }
    }

    /// Whether `other` is of the same checkpoint, images and settings, as far as both record them.
    pub fn is_like(&self, other: &Evaluation) -> bool {
        let of = |evaluation: &Evaluation| {
            let Evaluation { protocol, step, data, train_images, test_images, .. } = evaluation;
            (protocol.clone(), *step, data.clone(), [*train_images, *test_images], evaluation.settings())
        };
        of(self) == of(other)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(protocol: &str, details: Value) -> Evaluation {
        let result = json!({
            "protocol": protocol, "train_images": 9, "test_images": 9, "skipped": 0, "classes": 2, "top1": 0.5, "top5": null,
            "mean_per_class": 0.5, "per_class": [], "details": details, "seconds": 1.0
        });
        serde_json::from_value(result).unwrap()
    }

    #[test]
    fn five_guesses_count_where_there_are_more_classes() {
        let top5 = |classes: usize| {
            let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
            // The first class has the highest score, the last class the lowest.
            let scores: Vec<f32> = (0..4 * classes).map(|at| -((at % classes) as f32)).collect();
            Scores::of_scores(&scores, &[0, 1, 4, classes as u32 - 1], &names, Map::new()).unwrap().top5
        };
        assert_eq!([top5(5), top5(6), top5(7)], [None, Some(0.75), Some(0.75)]);
    }

    #[test]
    fn one_answer_is_that_of_several_classes() {
        let scores = |confusion: Value, top1: f64| -> Scores {
            let class = |name: &str| json!({ "name": name, "accuracy": null, "images": 1 });
            let classes = [class("a"), class("b")];
            let scores = json!({
                "top1": top1, "top5": null, "mean_per_class": 0.5, "per_class": classes, "confusion": confusion,
            });
            serde_json::from_value(scores).unwrap()
        };
        assert_eq!(scores(json!([[0, 3], [0, 5]]), 0.625).only_answer(), Some("b"));
        assert_eq!(scores(json!([[1, 2], [0, 5]]), 0.75).only_answer(), None);
        // All images are of that class, or the matrix was not kept.
        assert_eq!(scores(json!([[0, 0], [0, 5]]), 1.0).only_answer(), None);
        assert_eq!(scores(json!([]), 0.5).only_answer(), None);
    }

    #[test]
    fn what_it_is_compared_with() {
        let baselines = ["finetune-10%", "knn"].map(|name| result(name, json!({})).baseline());
        assert_eq!(baselines, ["from scratch", "random encoder"]);
    }

    #[test]
    fn what_is_not_as_usual_is_told_and_makes_another_result() {
        let knn = |details| result("knn", details);
        let usual = knn(json!({ "k": 7, "temperature": 0.1 }));
        assert_eq!(Evaluation { test_images: 1500, ..usual.clone() }.judged_by(), "1,500 test images");
        assert_eq!(usual.settings(), "k = 7");
        assert_eq!(knn(json!({ "k": 7, "temperature": 0.5 })).settings(), "k = 7, temperature 0.5");
        let linear = |seed| result("logistic", json!({ "l2": 0.5, "seed": seed }));
        assert_eq!(
            (linear(0).settings(), linear(3).settings()),
            ("L2 weight 0.5".into(), "L2 weight 0.5, seed 3".into())
        );
        assert!(usual.is_like(&Evaluation { seconds: 2.0, ..usual.clone() }));
        // A file of an earlier version has no seed.
        assert!(
            linear(0).is_like(&result("logistic", json!({ "l2": 0.5 }))) && !linear(0).is_like(&linear(3))
        );
        for other in [
            knn(json!({ "k": 8, "temperature": 0.1 })),
            Evaluation { step: Some(1), ..usual.clone() },
            Evaluation { test_images: 8, ..usual.clone() },
        ] {
            assert!(!usual.is_like(&other), "{other:?}");
        }
    }
}
