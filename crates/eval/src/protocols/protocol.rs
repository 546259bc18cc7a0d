//! Which protocol a result is of: its name in files, its title for people, and its place on the page.

use std::fmt;

use serde::{Deserialize, Serialize};
use simclr_words::words;

use super::finetune::{BEST_OF, Labels};

/// How the names of fine-tuning's results begin; the labels follow.
const FINETUNE: &str = "finetune-";

words! {
    /// What a classifier learns from.
    Representation {
        /// The output h of the encoder.
        H = "h",
        /// The output z of the projection head.
        Z = "z",
    }
}

words! {
    /// A setting of fine-tuning that is part of the name where it differs from the default.
    Setting {
        /// Layers of the projection head that are kept.
        Head = "head",
        /// Passes over the images.
        Epochs = "epochs",
        /// Images per step.
        Batch = "batch",
        /// The learning rate, or how it was chosen.
        Rate = "rate",
        /// The weight decay.
        Decay = "decay",
        /// The seed.
        Seed = "seed",
    }
}

impl Setting {
    /// Its wording in titles.
    fn title(self) -> &'static str {
        match self {
            Setting::Head => "from head layer",
            Setting::Decay => "weight decay",
            Setting::Epochs | Setting::Batch | Setting::Rate | Setting::Seed => self.word(),
        }
    }
}

/// The protocol of a result. `Display` and `From` convert it to its name, under which the result is kept, and back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Protocol {
    /// `knn`: nearest neighbours by h.
    Knn,
    /// `logistic` or `logistic_z`: a linear classifier, by logistic regression.
    Logistic(Representation),
    /// `linear_sgd` or `linear_sgd_z`: a linear classifier, by SGD on augmented images.
    LinearSgd(Representation),
    /// `finetune-10%`, and the like.
    FineTune(FineTuning),
    /// The name of a protocol that is not known here: the result is of a later version.
    Other(String),
}

/// What tells results of fine-tuning apart.
#[derive(Clone, Debug, PartialEq)]
pub struct FineTuning {
    /// The labels that were learnt from.
    pub labels: Labels,
    /// The settings that differ from the defaults, with their values: `finetune-10%-seed-1` has a seed.
    pub unusual: Vec<(Setting, String)>,
}

impl Protocol {
    /// Its name for people, which tells it from all others.
    pub fn title(&self) -> String {
        match self {
            Protocol::Knn => "kNN".to_owned(),
            Protocol::Logistic(Representation::H) => "linear, logistic regression".to_owned(),
            Protocol::Logistic(Representation::Z) => "linear on z, logistic regression".to_owned(),
            Protocol::LinearSgd(Representation::H) => "linear, SGD".to_owned(),
            Protocol::LinearSgd(Representation::Z) => "linear on z, SGD".to_owned(),
            Protocol::FineTune(tuning) => tuning.title(|_, _| true),
            Protocol::Other(name) => name.clone(),
        }
    }

    /// Its name beside its settings ([`Evaluation::settings`](super::Evaluation::settings)), without what these say.
    pub fn title_beside_settings(&self) -> String {
        // Of a chosen rate they do not say how it was chosen.
        let untold = |setting, value: &str| match setting {
            Setting::Head | Setting::Decay | Setting::Seed => true,
            Setting::Epochs | Setting::Batch => false,
            Setting::Rate => value.parse::<f64>().is_err(),
        };
        match self {
            Protocol::FineTune(tuning) => tuning.title(untold),
            _ => self.title(),
        }
    }

    /// Whether the whole network was trained, not a classifier on features.
    pub fn is_fine_tuning(&self) -> bool {
        match self {
            Protocol::FineTune(_) => true,
            Protocol::Other(name) => name.starts_with(FINETUNE),
            Protocol::Knn | Protocol::Logistic(_) | Protocol::LinearSgd(_) => false,
        }
    }

    /// Orders results on the page: fine-tuning by its number of labels (shares of them last), and first from h, then
    /// from a layer of the head.
    pub(super) fn place(&self) -> impl Ord + use<> {
        let kind = match self {
            Protocol::Knn => 0,
            Protocol::Logistic(Representation::H) => 1,
            Protocol::Logistic(Representation::Z) => 2,
            Protocol::LinearSgd(Representation::H) => 3,
            Protocol::LinearSgd(Representation::Z) => 4,
            Protocol::Other(_) => 5,
            Protocol::FineTune(_) => 6,
        };
        let within = match self {
            Protocol::FineTune(FineTuning { labels, unusual }) => {
                let number = match *labels {
                    Labels::Images(images) => (false, (images as f64).to_bits()),
                    Labels::Percent(percent) => (true, percent.to_bits()),
                };
                Some((number, unusual.iter().any(|(setting, _)| *setting == Setting::Head)))
            }
            _ => None,
        };
        (kind, within, self.to_string())
    }
}

impl FineTuning {
    /// From what follows [`FINETUNE`] in the name.
    fn parse(name: &str) -> Option<FineTuning> {
        let (labels, mut rest) = name.split_once('-').unwrap_or((name, ""));
        let mut unusual = Vec::new();
        while !rest.is_empty() {
            let (key, values) = rest.split_once('-')?;
            let setting = Setting::ALL.into_iter().find(|setting| setting.word() == key)?;
            // A number may contain a dash itself: 1e-6.
            let next = Setting::WORDS.iter().filter_map(|word| values.find(&format!("-{word}-"))).min();
            let (value, more) = next.map_or((values, ""), |at| (&values[..at], &values[at + 1..]));
            unusual.push((setting, value.to_owned()));
            rest = more;
        }
        Some(FineTuning { labels: labels.parse().ok()?, unusual })
    }

    /// Its title, with those of the unusual settings that are `told`.
    fn title(&self, told: impl Fn(Setting, &str) -> bool) -> String {
        let of = match self.labels {
            Labels::Percent(_) => "of the labels",
            Labels::Images(_) => "labels",
        };
        let unusual = self.unusual.iter().filter(|(setting, value)| told(*setting, value));
        let unusual = unusual.map(|(setting, value)| format!(", {} {}", setting.title(), in_words(value)));
        format!("fine-tuning, {} {of}{}", self.labels, unusual.collect::<String>())
    }
}

/// A setting's value in a title: that of a long list of rates is a number and a checksum.
fn in_words(value: &str) -> String {
    match value.strip_prefix(BEST_OF).and_then(|of| of.split_once('-')) {
        Some((number, list)) => format!("best of {number} ({list})"),
        None => value.to_owned(),
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, features) = match self {
            Protocol::Knn => ("knn", Representation::H),
            Protocol::Logistic(features) => ("logistic", *features),
            Protocol::LinearSgd(features) => ("linear_sgd", *features),
            Protocol::FineTune(FineTuning { labels, unusual }) => {
                write!(f, "{FINETUNE}{labels}")?;
                return unusual.iter().try_for_each(|(setting, value)| write!(f, "-{setting}-{value}"));
            }
            Protocol::Other(name) => (name.as_str(), Representation::H),
        };
        f.write_str(name)?;
        f.write_str(if features == Representation::Z { "_z" } else { "" })
    }
}

impl From<&str> for Protocol {
    fn from(name: &str) -> Protocol {
        match name {
            "knn" => Protocol::Knn,
            "logistic" => Protocol::Logistic(Representation::H),
            "logistic_z" => Protocol::Logistic(Representation::Z),
            "linear_sgd" => Protocol::LinearSgd(Representation::H),
            "linear_sgd_z" => Protocol::LinearSgd(Representation::Z),
            _ => {
                let tuning = name.strip_prefix(FINETUNE).and_then(FineTuning::parse).map(Protocol::FineTune);
                // Not under another name: that of its file.
                tuning.filter(|known| known.to_string() == name).unwrap_or(Protocol::Other(name.to_owned()))
            }
        }
    }
}

impl From<String> for Protocol {
    fn from(name: String) -> Protocol {
        Protocol::from(name.as_str())
    }
}

impl From<Protocol> for String {
    fn from(protocol: Protocol) -> String {
        protocol.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in the order of the page, and in words.
    const NAMES: [(&str, &str); 14] = [
        ("knn", "kNN"),
        ("logistic", "linear, logistic regression"),
        ("logistic_z", "linear on z, logistic regression"),
        ("linear_sgd", "linear, SGD"),
        ("linear_sgd_z", "linear on z, SGD"),
        // From later versions.
        ("finetune-7-colour-2", "finetune-7-colour-2"),
        ("finetune-many", "finetune-many"),
        ("other", "other"),
        (
            "finetune-7-epochs-2-batch-4-decay-1e-30",
            "fine-tuning, 7 labels, epochs 2, batch 4, weight decay 1e-30",
        ),
        ("finetune-500-rate-0.1+1", "fine-tuning, 500 labels, rate 0.1+1"),
        (
            "finetune-500-rate-best-of-13-0123abcd-seed-3",
            "fine-tuning, 500 labels, rate best of 13 (0123abcd), seed 3",
        ),
        ("finetune-500-head-2", "fine-tuning, 500 labels, from head layer 2"),
        ("finetune-0.5%-rate-1e-6-seed-3", "fine-tuning, 0.5% of the labels, rate 1e-6, seed 3"),
        ("finetune-10%", "fine-tuning, 10% of the labels"),
    ];

    #[test]
    fn names_there_and_back_and_in_words() {
        for (name, title) in NAMES {
            let protocol = Protocol::from(name);
            assert_eq!((protocol.to_string().as_str(), protocol.title().as_str()), (name, title));
            assert_eq!(protocol.is_fine_tuning(), name.starts_with("finetune"));
            assert_eq!(serde_json::to_value(&protocol).unwrap(), name);
            assert_eq!(serde_json::from_value::<Protocol>(name.into()).unwrap(), protocol);
        }
        assert_eq!(Protocol::from("finetune-010%"), Protocol::Other("finetune-010%".to_owned()));
    }

    #[test]
    fn beside_settings_nothing_is_told_twice() {
        for (name, title) in [
            (
                "finetune-7-head-1-epochs-2-batch-4-rate-1e-6-decay-1-seed-2",
                "7 labels, from head layer 1, weight decay 1, seed 2",
            ),
            ("finetune-10%-rate-tuned", "10% of the labels, rate tuned"),
        ] {
            assert_eq!(Protocol::from(name).title_beside_settings(), format!("fine-tuning, {title}"));
        }
        assert_eq!(Protocol::Knn.title_beside_settings(), "kNN");
    }

    #[test]
    fn the_order_of_the_page() {
        let mut names = NAMES.map(|(name, _)| name);
        names.reverse();
        names.sort_by_key(|name| Protocol::from(*name).place());
        assert_eq!(names, NAMES.map(|(name, _)| name));
    }
}
