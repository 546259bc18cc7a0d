//! An opened data set of a suite: images to train on, to choose settings by, and to test on.

use std::path::{Path, PathBuf};

use simclr_data::{DataError, Source, copies};
use simclr_train::TrainError;

use super::labels::ShownClasses;
use super::suite::SetSpec;
use crate::EvalError;
use crate::protocols::examples::Examples;
use crate::protocols::fingerprint::fingerprint;
use crate::protocols::places::{LocatedImages, Seen};
use crate::protocols::shared::SharedPaths;
use crate::protocols::splits::matched;

/// The share of every class's training images set aside to choose settings by, if a suite names no validation images.
const VALIDATION: f64 = 0.1;

/// A data set on which an encoder is evaluated.
#[derive(Clone, Debug)]
pub struct TransferSet {
    /// Its description in the suite.
    pub spec: SetSpec,
    /// The names of the classes, in the order of the labels of all parts.
    pub classes: Vec<String>,
    /// Images to train on while settings are chosen.
    pub train: Examples,
    /// Images to choose settings by.
    pub validation: Examples,
    /// Both, to train on once settings are chosen.
    pub both: Examples,
    /// Images to test the choice on, and used for nothing else.
    pub test: Examples,
    /// Test images that are among `both` too, under another name, if any.
    pub shared: Option<SharedPaths>,
    /// Validation images, where the suite names them, that are among `train` too, under another name, if any.
    pub shared_validation: Option<SharedPaths>,
    /// A checksum (CRC-32C) of its description in the suite, of the names of all images, of their classes, and of the
    /// part each is in.
    pub fingerprint: u32,
}

impl TransferSet {
    /// Opens the data set that `spec` describes, each path with `open`. Classes are matched by name. If no validation
    /// images are named, `seed` draws a tenth of each class of the training images; images that show several classes
    /// count for the rarest; copies of an image stay on one side.
    ///
    /// Compares all images by contents ([`copies`]) on `threads` threads; `progress` gets the number done and the
    /// total, from any of these threads.
    ///
    /// # Errors
    /// Those of `open`; [`EvalError::NoLabels`], [`EvalError::UnknownClass`], [`EvalError::OneClass`],
    /// [`EvalError::TooFewToSplit`]; test images that are neither named nor part of `train`, an image in two of the
    /// parts, a table of classes that does not fit the images.
    pub fn open(
        spec: &SetSpec,
        suite: &Path,
        seed: u64,
        threads: usize,
        open: &mut dyn FnMut(&Path) -> Result<Source, DataError>,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<TransferSet, EvalError> {
        let parts = open_parts(spec, suite, open)?;
        refuse_shared(&parts.named(), spec, suite)?;
        let labelled = with_targets(&parts, spec)?;
        let both = match &labelled.validation {
            Some(validation) => labelled.train.then(validation)?,
            None => labelled.train.clone(),
        };
        let all = both.then(&labelled.test)?.images;
        progress(0, all.len());
        let same = copies(&*all, threads, &|done| progress(done, all.len()));
        // Images without a label are left out by now.
        let mut places = vec![parts.train.with(&labelled.train.images)];
        let validation = parts.validation.zip(labelled.validation.as_ref());
        places.extend(validation.map(|(part, own)| part.with(&own.images)));
        let places: Vec<&LocatedImages> = places.iter().collect();
        let shared = SharedPaths::of(&same, &places, &parts.test.with(&labelled.test.images));
        let among = |group: &Vec<u32>| {
            let rows = group.iter().copied().filter(|&row| (row as usize) < both.len());
            rows.collect::<Vec<u32>>()
        };
        let same: Vec<Vec<u32>> = same.iter().map(among).collect();
        let shared_validation = match places[..] {
            [train, validation] => SharedPaths::of(&same, &[train], validation),
            _ => None,
        };
        let Labelled { classes, train, test, validation } = labelled;
        let (train, validation) = match validation {
            Some(validation) => (train, validation),
            None => {
                let purpose = "choose settings on some of them";
                both.set_apart(classes.len(), &same, VALIDATION, purpose, seed)?
            }
        };
        // Names are relative to paths in the suite: another folder may hold other images of the same names.
        let texts = std::iter::once(&spec.written).chain(&classes);
        let fingerprint = fingerprint(texts, &[&train, &validation, &test]);
        let spec = spec.clone();
        Ok(TransferSet {
            spec,
            classes,
            train,
            validation,
            both,
            test,
            shared,
            shared_validation,
            fingerprint,
        })
    }
}

/// The parts of a data set, as they were opened.
struct Parts {
    train: LocatedImages,
    test: LocatedImages,
    /// Where the suite names them.
    validation: Option<LocatedImages>,
}

impl Parts {
    /// Each with its key in the suite; the order in which tables list their images.
    fn named(&self) -> Vec<(&'static str, &LocatedImages)> {
        let mut parts = vec![("train", &self.train), ("test", &self.test)];
        parts.extend(self.validation.as_ref().map(|part| ("validation", part)));
        parts
    }
}

/// Opens the parts that `spec` names, each path with `open`.
fn open_parts(
    spec: &SetSpec,
    suite: &Path,
    open: &mut dyn FnMut(&Path) -> Result<Source, DataError>,
) -> Result<Parts, EvalError> {
    let mut all = |path: &PathBuf| Ok::<_, DataError>(LocatedImages::all(open(path)?, path));
    let (train, own_test) = all(&spec.train)?;
    let mut other = |path: &PathBuf| all(path).map(|(train, test)| test.unwrap_or(train));
    let test = match (&spec.test, own_test) {
        (Some(path), _) => other(path)?,
        (None, Some(test)) => test,
        (None, None) => {
            // If no image has a label, that is the error to report: naming test images would not help.
            if spec.labels.is_none() {
                matched("training", train.images, None)?;
            }
            return Err(without_test(spec, suite));
        }
    };
    let validation = spec.validation.as_ref().map(other).transpose()?;
    Ok(Parts { train, test, validation })
}

/// The images of all parts that have labels, with these.
struct Labelled {
    /// The names of the classes, in the order of the labels of all parts.
    classes: Vec<String>,
    train: Examples,
    test: Examples,
    validation: Option<Examples>,
}

/// Takes the labels from the table that `spec` names, else from the images; classes are matched by name.
fn with_targets(parts: &Parts, spec: &SetSpec) -> Result<Labelled, EvalError> {
    let Parts { train, test, validation } = parts;
    let Some(table) = &spec.labels else {
        let train = matched("training", train.images.clone(), None)?;
        let classes = train.classes().to_vec();
        let part = |set, part: &LocatedImages| {
            Ok::<_, EvalError>(Examples::labelled(matched(set, part.images.clone(), Some(&classes))?))
        };
        let test = part("test", test)?;
        let validation = validation.as_ref().map(|own| part("validation", own)).transpose()?;
        return Ok(Labelled { train: Examples::labelled(train), test, validation, classes });
    };
    let paths: Vec<String> = parts.named().iter().flat_map(|(_, part)| part.paths()).collect();
    let (classes, targets) = ShownClasses::read(table)?.of(&paths)?;
    let mut rows = 0..targets.rows() as u32;
    let mut part = |LocatedImages { images, .. }: &LocatedImages| {
        let own: Vec<u32> = rows.by_ref().take(images.len()).collect();
        Examples { images: images.clone(), targets: targets.select(&own) }
    };
    // In the order of the paths.
    let (train, test) = (part(train), part(test));
    Ok(Labelled { classes, train, test, validation: validation.as_ref().map(part) })
}

/// Returns an error for an image in two of `parts`, each given with its key in the suite.
fn refuse_shared(
    parts: &[(&'static str, &LocatedImages)],
    spec: &SetSpec,
    suite: &Path,
) -> Result<(), EvalError> {
    let mut seen = Seen::default();
    for &(key, part) in parts {
        if let Some(shared) = seen.add(key, part) {
            return Err(TrainError::BadValue {
                origin: suite.display().to_string(),
                key: format!("set.{}.{key}", spec.name),
                found: format!("of images that {} has too, such as {}", shared.with, shared.at.display()),
                expected: "train, validation and test without a common image; where train has test images of its own, test is \
                           those: else name all of them, such as own/train, own/val and own/test"
                    .to_owned(),
            }
            .into());
        }
    }
    Ok(())
}

fn without_test(spec: &SetSpec, suite: &Path) -> EvalError {
    let message = format!(
        "[[set]] {} needs `test = \"...\"`: {} has no test images of its own",
        spec.name,
        spec.train.display()
    );
    TrainError::Syntax { origin: suite.display().to_string(), message }.into()
}
