//! All images of a data set, one split after another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;
use simclr_data::{Concat, Dataset, Skipped, Source};
use simclr_words::words;

use crate::EvalError;

words! {
    /// A split of a data set.
    Split {
        /// The images to train on.
        Train = "train",
        /// The images to test on.
        Test = "test",
        /// Images to train on without labels (STL-10).
        Unlabelled = "unlabelled",
    }
}

impl Split {
    fn of(self, source: &Source) -> Option<&Arc<dyn Dataset>> {
        match self {
            Split::Train => Some(&source.train),
            Split::Test => source.test.as_ref(),
            Split::Unlabelled => source.unlabelled.as_ref(),
        }
    }
}

impl FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Split, String> {
        let found = Split::ALL.into_iter().find(|split| split.word() == text);
        found.ok_or_else(|| "expected train, test or unlabelled".to_owned())
    }
}

/// The images of a data set, with the split that each belongs to.
#[derive(Clone)]
pub struct Images {
    whole: Arc<dyn Dataset>,
    /// Each split with the index of its first image; empty where the data set is not divided.
    parts: Vec<(u32, Split)>,
}

/// What is known of one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Image<'a> {
    /// Its name in its split.
    pub name: String,
    /// Its split, where there are several.
    pub split: Option<Split>,
    /// Its label.
    pub label: Option<u32>,
    /// The name of its class.
    pub class: Option<&'a str>,
}

/// An image that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Its name in its split.
    pub name: String,
    /// Its split, where there are several.
    pub split: Option<Split>,
    /// Why it cannot be read.
    pub reason: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", placed(self.split, &self.name), self.reason)
    }
}

impl Image<'_> {
    /// Its name, preceded by its split where there are several.
    pub fn place(&self) -> String {
        placed(self.split, &self.name)
    }
}

fn placed(split: Option<Split>, name: &str) -> String {
    split.map_or_else(|| name.to_owned(), |split| format!("{split}: {name}"))
}

impl Images {
    /// The images of a data set that is not divided.
    pub fn new(images: Arc<dyn Dataset>) -> Images {
        Images { whole: images, parts: Vec::new() }
    }

    /// All images of `source`, or those of one split.
    ///
    /// # Errors
    /// [`EvalError::NoSplit`] for a split that it does not have.
    pub fn of(source: &Source, only: Option<Split>) -> Result<Images, EvalError> {
        let present: Vec<(Split, &Arc<dyn Dataset>)> =
            Split::ALL.into_iter().filter_map(|split| Some((split, split.of(source)?))).collect();
        // An undivided source keeps all its images in `train`, though it may well be a folder of test images.
        let divided = present.len() > 1;
        let chosen: Vec<(Split, &Arc<dyn Dataset>)> =
            present.iter().filter(|(split, _)| only.is_none_or(|only| only == *split)).copied().collect();
        if let Some(split) = only.filter(|_| !divided || chosen.is_empty()) {
            let there =
                if divided { present.iter().map(|(split, _)| split.word()).collect() } else { vec![] };
            return Err(EvalError::NoSplit { split, there });
        }
        let mut parts = Vec::new();
        let mut first = 0;
        for (split, set) in &chosen {
            parts.push((first, *split));
            first += set.len() as u32;
        }
        let classes = Concat::classes_of(chosen.iter().map(|(_, set)| set.classes()));
        let sets = chosen.into_iter().map(|(_, set)| (String::new(), set.clone())).collect();
        Ok(Images {
            whole: Arc::new(Concat::new(sets, classes)),
            parts: if divided { parts } else { Vec::new() },
        })
    }

    /// All of them as one data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.whole
    }

    /// Whether the data set is divided into splits, even if only one of them was chosen.
    pub fn is_divided(&self) -> bool {
        !self.parts.is_empty()
    }

    /// The splits present; a single `None` where the data set is not divided.
    pub fn splits(&self) -> impl Iterator<Item = Option<Split>> {
        let whole = (!self.is_divided()).then_some(None);
        self.parts.iter().map(|(_, split)| Some(*split)).chain(whole)
    }

    /// What is known of image `index`.
    pub fn image(&self, index: u32) -> Image<'_> {
        let label = self.whole.label(index as usize);
        Image {
            name: self.whole.name(index as usize),
            split: self.split(index),
            label,
            class: label.map(|label| self.whole.classes()[label as usize].as_str()),
        }
    }

    /// The skipped images, with their splits.
    pub(crate) fn broken(&self, skipped: Vec<Skipped>) -> Vec<Broken> {
        let broken = skipped.into_iter().map(|Skipped { index, name, reason }| Broken {
            name,
            split: self.split(index),
            reason,
        });
        broken.collect()
    }

    fn split(&self, index: u32) -> Option<Split> {
        let before = self.parts.partition_point(|(first, _)| *first <= index);
        before.checked_sub(1).map(|part| self.parts[part].1)
    }
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Images({}, {:?})", self.whole.len(), self.parts)
    }
}
