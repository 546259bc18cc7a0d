//! Pairs training and test images of opened data sets, and reports which images are in both and which labels
//! contradict each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use simclr_data::{Cached, Concat, Dataset, Source, contradicting, copies};
use simclr_train::memory;
use simclr_words::text::grouped;

use super::evaluation::Origin;
use super::places::LocatedImages;
use super::shared::SharedPaths;
use super::splits::Splits;
use crate::EvalError;

/// The most images to set apart: an accuracy on them is known to half a percent, and more only take longer.
const MOST_SET_APART: f64 = 50_000.0;

/// Seed of the draw that sets test images aside.
const SEED: u64 = 0;

/// An opened data set.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The images found.
    pub source: Source,
    /// Its path, or several paths read as one data set.
    pub paths: Vec<PathBuf>,
}

impl Opened {
    /// Its name in results ([`Origin`]).
    pub fn name(&self) -> String {
        named(&self.paths)
    }

    /// The training images, and the test images if there are any.
    fn parts(self) -> (LocatedImages, Option<LocatedImages>) {
        // Images of several data sets are named by their full paths.
        let path = self.paths.first().map_or(Path::new(""), PathBuf::as_path);
        LocatedImages::all(self.source, path)
    }
}

/// The most paths that a name has.
const NAMED: usize = 4;

/// The name in results of images from several paths: all of them, or the first few and how many there are more, since
/// they may be thousands of single images.
pub fn named(paths: &[PathBuf]) -> String {
    let first = paths.iter().take(NAMED).map(|path| path.to_string_lossy());
    let named = first.collect::<Vec<_>>().join(" ");
    match paths.len().checked_sub(NAMED) {
        None | Some(0) => named,
        Some(more) => format!("{named} and {} more", grouped(more as u64)),
    }
}

/// Training and test images, and what is wrong with them.
#[derive(Clone)]
pub struct Paired {
    /// The images that have labels.
    pub splits: Splits,
    /// All images compared: the training images followed by the test images; or, where the test images were set aside
    /// from the training images, all of those in their order.
    pub images: Arc<dyn Dataset>,
    /// Groups of the same image with different labels, some of which are wrong: rows of `images`.
    pub contradicting: Vec<Vec<u32>>,
    /// Test images that are training images too, if any.
    pub shared: Option<SharedPaths>,
    /// If test images were set aside: the number of images that are copies of another, and went to the same side.
    pub kept_together: usize,
}

/// Pairs the training images of `train` with test images: the test split of `test` if it has one, or else all of
/// `test`; without `test`, the test split of `train`; without that, a `share` of each class of `train` (less if that
/// were more than 50,000 images in all), set aside so that copies of an image stay on one side.
///
/// Compares all images by contents ([`copies`]) on `threads` threads, regardless of their paths and names; `progress`
/// gets the number done and the total, from any of these threads. Small images stay in memory ([`kept_in_memory`]).
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
        let folder = Path::new(&train).is_relative().then(|| std::env::current_dir().ok()).flatten();
        Origin { train, test, folder, set_apart, shared }
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
    // Of an image without a label nothing is learnt, nor is it tested on.
    let has_label = |&image: &u32| images.label(image as usize).is_some();
    let labelled: Vec<Vec<u32>> =
        same.iter().map(|group| group.iter().copied().filter(has_label).collect()).collect();
    let contradicting = contradicting(&*images, &same).into_iter().map(<[u32]>::to_vec).collect();
    let Some(test) = test else {
        let share = share.min(most_set_apart(train.images.len()));
        let splits = Splits::hold_out(kept_in_memory(train.images), &same, share, SEED)?.of(origin(true, 0));
        let kept_together = labelled.iter().map(|group| group.len().saturating_sub(1)).sum();
        return Ok(Paired { splits, images, contradicting, shared: None, kept_together });
    };
    let shared = SharedPaths::of(&labelled, &[&train], &test);
    let count = shared.as_ref().map_or(0, |shared| shared.images);
    let [train, test] = [train, test].map(|part| kept_in_memory(part.images));
    let splits = Splits::compared(train, test, &same)?.of(origin(false, count));
    Ok(Paired { splits, images, contradicting, shared, kept_together: 0 })
}

/// The share of `images` that is [`MOST_SET_APART`]; 1 or more if there are no more.
fn most_set_apart(images: usize) -> f64 {
    MOST_SET_APART / images.max(1) as f64
}

/// The training images followed by the test images.
fn both(train: &LocatedImages, test: &LocatedImages) -> Arc<dyn Dataset> {
    let sets = [train, test].map(|part| (String::new(), part.images.clone()));
    let classes = Concat::classes_of(sets.iter().map(|(_, set)| set.classes()));
    Arc::new(Concat::new(sets.into(), classes))
}

/// The same images, cached decoded as far as an eighth of the free memory allows: protocols read them more than once.
pub fn kept_in_memory(images: Arc<dyn Dataset>) -> Arc<dyn Dataset> {
    Arc::new(Cached::in_memory(images, memory::available_bytes() / 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_images_a_smaller_share_is_set_apart() {
        assert!(most_set_apart(0) > 1.0 && most_set_apart(200_000) == 0.25);
        assert_eq!(most_set_apart(1_000_000) * 1_000_000.0, MOST_SET_APART);
    }
}
