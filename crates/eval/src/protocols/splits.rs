//! Labelled training and test images whose classes agree.

use std::borrow::Cow;
use std::sync::Arc;

use simclr_data::{Concat, Dataset, Reading, Subset, balanced_subset, copies};
use simclr_train::Model;

use super::evaluation::Origin;
use super::examples::Examples;
use super::finetune::Labels;
use super::fingerprint::fingerprint;
use super::stratify::stratify;
use crate::EvalError;

/// The most class names listed in a message.
const NAMED: usize = 10;

/// The images that classifiers are trained on and those they are tested on. All have labels (images without are left
/// out), and both number the classes as the training images do.
#[derive(Clone)]
pub struct Splits {
    train: Arc<dyn Dataset>,
    test: Arc<dyn Dataset>,
    /// Groups of the same training image, each ascending; `None` if the images have not been compared.
    copies: Option<Vec<Vec<u32>>>,
    origin: Option<Origin>,
    strict: bool,
}

impl Splits {
    /// Pairs two data sets. Classes are matched by name, so a test set may lack some, or order them differently.
    ///
    /// # Errors
    /// [`EvalError::NoLabels`], [`EvalError::OneClass`], and [`EvalError::UnknownClass`] for a test class that the
    /// training images do not have.
    pub fn new(train: Arc<dyn Dataset>, test: Arc<dyn Dataset>) -> Result<Splits, EvalError> {
        let train = matched("training", train, None)?;
        let test = matched("test", test, Some(train.classes()))?;
        Ok(Splits { train, test, copies: None, origin: None, strict: false })
    }

    /// As [`Splits::new`], where the images have been compared: `copies` are groups of the same image
    /// ([`simclr_data::copies`]), as rows of `train`; rows beyond its last are ignored. Protocols that keep copies on
    /// one side then need not compare the images again.
    ///
    /// # Errors
    /// As [`Splits::new`].
    pub fn compared(
        train: Arc<dyn Dataset>,
        test: Arc<dyn Dataset>,
        copies: &[Vec<u32>],
    ) -> Result<Splits, EvalError> {
        let copies = copies_among(copies, &rows_with_label(&*train));
        Ok(Splits { copies: Some(copies), ..Splits::new(train, test)? })
    }

    /// Sets aside a share of every class of one data set (a fifth, say) to test on. The images of each group in
    /// `copies`, which are the same, stay together.
    ///
    /// The encoder may have been pretrained on the test images too. It never saw their labels; but the labels of some
    /// of them may have decided which of its checkpoints is the best
    /// ([`TrainedEncoder::chosen_by`](super::TrainedEncoder::chosen_by)).
    ///
    /// # Errors
    /// As [`Splits::new`], [`EvalError::TooFewToSplit`], and [`EvalError::Option`] for a fraction that is not
    /// between 0 and 1.
    pub fn hold_out(
        whole: Arc<dyn Dataset>,
        copies: &[Vec<u32>],
        fraction: f64,
        seed: u64,
    ) -> Result<Splits, EvalError> {
        check_fraction("the share of test images", fraction)?;
        let together = copies_among(copies, &rows_with_label(&*whole));
        let whole = labelled("training", whole)?;
        let labels: Vec<u32> = (0..whole.len()).filter_map(|index| whole.label(index)).collect();
        let (rest, part) = stratify(&labels, &together, fraction, seed);
        if part.is_empty() {
            return Err(EvalError::TooFewToSplit { purpose: "set some apart for the test" });
        }
        let [rest, part]: [Vec<u32>; 2] =
            [rest, part].map(|rows| rows.into_iter().map(|row| row as u32).collect());
        let copies = copies_among(&together, &rest);
        let [rest, part] = [rest, part].map(|rows| Arc::new(Subset::new(whole.clone(), rows)));
        Splits::compared(rest, part, &copies)
    }

    /// Sets whether an image that cannot be read is an error, instead of being left out and listed.
    #[must_use]
    pub fn strict(self, strict: bool) -> Splits {
        Splits { strict, ..self }
    }

    /// Whether an image that cannot be read is an error.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Sets where the images come from.
    #[must_use]
    pub fn of(self, origin: Origin) -> Splits {
        Splits { origin: Some(origin), ..self }
    }

    /// The same with fewer training images: equally many of each class, drawn by `seed`. A smaller number draws a
    /// subset of a larger one.
    ///
    /// # Errors
    /// [`EvalError::Labels`] where a class would get no image, or there are too few images.
    pub(super) fn labelled(&self, labels: Labels, seed: u64) -> Result<Splits, EvalError> {
        let images = labels.count(self.train.len());
        let few = balanced_subset(self.train.clone(), images, seed)
            .map_err(|problem| EvalError::Labels { labels, problem })?;
        let copies = self.copies.as_ref().map(|groups| copies_among(groups, few.indices()));
        Ok(Splits { train: Arc::new(few), copies, ..self.clone() })
    }

    /// Groups of the same training image, each ascending. Images that have not been compared before are compared now,
    /// on `threads` threads.
    pub(super) fn copies(&self, threads: usize) -> Cow<'_, [Vec<u32>]> {
        match &self.copies {
            Some(groups) => Cow::Borrowed(groups),
            None => Cow::Owned(copies(&*self.train, threads, &|_| ())),
        }
    }

    /// How images are read for `model`.
    pub(super) fn reading(&self, model: &Model) -> Reading {
        Reading { threads: model.device.threads(), strict: self.strict }
    }

    /// The training images.
    pub fn train(&self) -> &Arc<dyn Dataset> {
        &self.train
    }

    /// The test images.
    pub fn test(&self) -> &Arc<dyn Dataset> {
        &self.test
    }

    /// Where the images come from, if known.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// The names of the classes, indexed by the labels of both sets.
    pub fn classes(&self) -> &[String] {
        self.train.classes()
    }

    /// A checksum (CRC-32C) of the names of their data sets, of the names of all images, of their classes, and of
    /// which part each is in. It does not cover the contents of the images.
    pub fn fingerprint(&self) -> u32 {
        // Names are relative to the data set: another one may hold other images of the same names.
        let origin = self.origin.iter().flat_map(|Origin { train, test, .. }| [train, test]);
        let parts = [&self.train, &self.test].map(|images| Examples::labelled(images.clone()));
        fingerprint(origin.chain(self.classes()), &[&parts[0], &parts[1]])
    }
}

impl std::fmt::Debug for Splits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Splits({} / {} images, {} classes)",
            self.train.len(),
            self.test.len(),
            self.classes().len()
        )
    }
}

pub(super) fn check_fraction(name: &'static str, fraction: f64) -> Result<(), EvalError> {
    if fraction > 0.0 && fraction < 1.0 {
        return Ok(());
    }
    let expected = "a number above 0 and below 1";
    Err(EvalError::Option { name, found: fraction.to_string(), expected })
}

/// The rows that have a label, ascending.
fn rows_with_label(images: &dyn Dataset) -> Vec<u32> {
    (0..images.len() as u32).filter(|&row| images.label(row as usize).is_some()).collect()
}

/// What `groups` of the same image are among the images `chosen` (ascending), numbered by their place in `chosen`.
/// Groups of which fewer than two images are left are dropped.
fn copies_among(groups: &[Vec<u32>], chosen: &[u32]) -> Vec<Vec<u32>> {
    let row = |image: &u32| chosen.binary_search(image).ok().map(|row| row as u32);
    let left = groups.iter().map(|group| group.iter().filter_map(row).collect::<Vec<u32>>());
    let mut left: Vec<Vec<u32>> = left.filter(|group| group.len() > 1).collect();
    left.sort_unstable();
    left
}

/// The images that have a label: for example, images outside the folders of the classes have none.
fn labelled(set: &'static str, images: Arc<dyn Dataset>) -> Result<Arc<dyn Dataset>, EvalError> {
    let labelled = rows_with_label(&*images);
    match labelled.len() {
        0 => Err(EvalError::NoLabels { set }),
        all if all == images.len() => Ok(images),
        _ => Ok(Arc::new(Subset::new(images, labelled))),
    }
}

/// The labelled images of a data set, with labels that index `classes`, those of the training images; or with its own
/// labels if it is the training set.
pub(super) fn matched(
    set: &'static str,
    images: Arc<dyn Dataset>,
    classes: Option<&[String]>,
) -> Result<Arc<dyn Dataset>, EvalError> {
    let images = labelled(set, images)?;
    match (classes, images.classes()) {
        (None, [class]) => Err(EvalError::OneClass { class: class.clone() }),
        (Some(classes), own) if own != classes => renumber(set, images, classes),
        _ => Ok(images),
    }
}

fn renumber(
    set: &'static str,
    images: Arc<dyn Dataset>,
    classes: &[String],
) -> Result<Arc<dyn Dataset>, EvalError> {
    if let Some(class) = images.classes().iter().find(|class| !classes.contains(class)) {
        let (class, count, known) = (class.clone(), classes.len(), named(classes));
        return Err(EvalError::UnknownClass { set, class, count, known });
    }
    Ok(Arc::new(Concat::new(vec![(String::new(), images)], classes.to_vec())))
}

fn named(classes: &[String]) -> String {
    let mut text = classes[..classes.len().min(NAMED)].join(", ");
    if classes.len() > NAMED {
        text.push_str(", ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::{RGB, Toy};

    #[test]
    fn copies_are_those_that_comparing_finds() {
        let mut toy = Toy::new(&RGB, 60, 1);
        toy.labels[0] = None;
        for (copy, of) in [(3, 0), (6, 0), (10, 7), (20, 11), (50, 11), (59, 11)] {
            toy.pixels[copy] = toy.pixels[of].clone();
        }
        let whole = toy.shared();
        let same = copies(&*whole, 1, &|_| ());
        assert_eq!(same.len(), 3);
        let all = Splits::compared(whole.clone(), whole.clone(), &same).unwrap();
        let held_out = Splits::hold_out(whole, &same, 0.2, 3).unwrap();
        for data in [&all, &held_out] {
            for few in [data.clone(), data.labelled(Labels::Percent(60.0), 1).unwrap()] {
                let found = few.copies.clone().unwrap();
                assert!(!found.is_empty());
                assert_eq!(found, copies(&**few.train(), 1, &|_| ()));
            }
        }
    }
}
