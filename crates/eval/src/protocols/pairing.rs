//! Images to learn from and images to test on, of what was opened: which are in both, and which labels contradict
//! each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use simclr_data::{Cached, Concat, Dataset, Source, contradicting, copies};
use simclr_train::memory;

use super::evaluation::Origin;
use super::places::Placed;
use super::shared::SharedImages;
use super::splits::Splits;
use crate::EvalError;

/// Seed of which images are set apart to test on.
const SEED: u64 = 0;

/// A data set that was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What was found.
    pub source: Source,
    /// Where, one or several read as one.
    pub paths: Vec<PathBuf>,
}

impl Opened {
    /// What it is called in results ([`Origin`]).
    pub fn name(&self) -> String {
        named(&self.paths)
    }

    /// The images to train on, and those to test on.
    fn parts(self) -> (Placed, Option<Placed>) {
        // Images of several data sets are called by their whole paths.
        let path = self.paths.first().map_or(Path::new(""), PathBuf::as_path);
        Placed::all(self.source, path)
    }
}

/// What images of several paths are called in results.
pub fn named(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Images to learn from and to test on, and what is wrong with them.
#[derive(Clone)]
pub struct Paired {
    /// Those that have labels.
    pub splits: Splits,
    /// All that were compared: the images to learn from and behind them those to test on, or, where some of them were
    /// set apart to test on, all as they lie.
    pub images: Arc<dyn Dataset>,
    /// Groups of the same image with labels of several classes, of which some are wrong: rows of `images`.
    pub contradicting: Vec<Vec<u32>>,
    /// Test images that are learnt from as well, where there are any.
    pub shared: Option<SharedPaths>,
    /// Where test images were set apart, how many images are copies of another, and stayed on its side.
    pub kept_together: usize,
}

/// Test images that are learnt from as well: what they are recognised by tells little of images that are new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPaths {
    /// How many.
    pub images: usize,
    /// Of so many test images.
    pub of: usize,
    /// Where the first of them lies.
    pub first: PathBuf,
    /// Where an image to learn from lies that equals it; `first` where it is the same file.
    pub like: PathBuf,
}

/// Images to learn from, those of `train`, and to test on: those that `test` has to test on or else all of it, or
/// those that `train` has to test on; where there are none, a `share` of each class of `train` is set apart, copies of
/// an image on its side.
///
/// All are compared by their contents ([`copies`]) with `threads` threads, wherever they lie and whatever they are
/// called there; `progress` is told how many are done with, and of how many, by any of them. Small images stay in memory
/// ([`kept_in_memory`]).
///
/// # Errors
/// Those of [`Splits::new`] and [`Splits::hold_out`].
pub fn pair(
    train: Opened,
    test: Option<Opened>,
    share: f64,
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Paired, EvalError> {
    let names = [train.name(), test.as_ref().unwrap_or(&train).name()];
    let origin = |set_apart, shared| {
        let [train, test] = names;
        Origin { train, test, set_apart, shared }
    };
    let (train, own) = train.parts();
    let test = match test.map(Opened::parts) {
        Some((images, test)) => Some(test.unwrap_or(images)),
        None => own,
    };
    let images = match &test {
        Some(test) => both(&train, test),
        None => train.images.clone(),
    };
    progress(0, images.len());
    let same = copies(&*images, threads, &|done| progress(done, images.len()));
    let contradicting = contradicting(&*images, &same).into_iter().map(<[u32]>::to_vec).collect();
    let Some(test) = test else {
        let splits = Splits::hold_out(kept_in_memory(train.images), &same, share, SEED)?.of(origin(true, 0));
        let kept_together = same.iter().map(|group| group.len() - 1).sum();
        return Ok(Paired { splits, images, contradicting, shared: None, kept_together });
    };
    let shared = SharedImages::of(&same, train.images.len()).map(|shared| SharedPaths {
        images: shared.images,
        of: test.images.len(),
        first: test.path(shared.first),
        like: train.path(shared.like),
    });
    let count = shared.as_ref().map_or(0, |shared| shared.images);
    let [train, test] = [train, test].map(|part| kept_in_memory(part.images));
    let splits = Splits::new(train, test)?.of(origin(false, count));
    Ok(Paired { splits, images, contradicting, shared, kept_together: 0 })
}

/// The images to train on, and behind them those to test on.
fn both(train: &Placed, test: &Placed) -> Arc<dyn Dataset> {
    let sets = [train, test].map(|part| (String::new(), part.images.clone()));
    let classes = Concat::classes_of(sets.iter().map(|(_, set)| set.classes()));
    Arc::new(Concat::new(sets.into(), classes))
}

/// The same images, kept decoded in an eighth of the memory that is free, as far as they fit: protocols go through
/// them more than once.
pub fn kept_in_memory(images: Arc<dyn Dataset>) -> Arc<dyn Dataset> {
    Arc::new(Cached::in_memory(images, memory::available_bytes() / 8))
}
