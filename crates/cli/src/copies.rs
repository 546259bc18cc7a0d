//! The same image more than once: in both parts of an evaluation, or of several classes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use simclr_data::{Concat, Dataset, contradicting, copies};
use simclr_eval::protocols::Placed;

use crate::terminal;

/// Groups of the same images; how far it is is shown.
pub fn find(images: &Arc<dyn Dataset>, threads: usize) -> Vec<Vec<u32>> {
    let bar = terminal::bar(images.len() as u64);
    bar.iter().for_each(|bar| bar.set_message("images compared"));
    let most = AtomicUsize::new(0);
    copies(&**images, threads, &|done| {
        let done = most.fetch_max(done, Ordering::Relaxed).max(done);
        bar.iter().for_each(|bar| bar.set_position(done as u64));
    })
}

/// Warns of images that have labels of several classes among `groups` of the same.
pub fn warn_of_contradicting(images: &Arc<dyn Dataset>, groups: &[Vec<u32>]) {
    let found = contradicting(&**images, groups);
    let Some(first) = found.first() else { return };
    terminal::warn(&format!(
        "{} labelled as of several classes, such as {}; correct the labels (simclr data lists all)",
        if found.len() == 1 {
            "1 image is".to_owned()
        } else {
            format!("{} are", terminal::counted(found.len(), "image"))
        },
        labelled(&**images, first)
    ));
}

/// An image and its labels, by the first of each: `a.png of "cat" = b.png of "dog"`.
pub fn labelled(images: &dyn Dataset, group: &[u32]) -> String {
    let mut seen = Vec::new();
    let each = group.iter().filter_map(|&image| {
        let label = images.label(image as usize).filter(|label| !seen.contains(label))?;
        seen.push(label);
        let class = images.classes().get(label as usize)?;
        Some(terminal::inert(&format!("{} of {class:?}", images.name(image as usize))))
    });
    each.collect::<Vec<_>>().join(" = ")
}

/// The images to train on, and behind them those to test on.
pub struct Both<'p> {
    pub images: Arc<dyn Dataset>,
    train: &'p Placed,
    test: &'p Placed,
}

/// Test images that are learnt from as well.
pub struct Shared {
    /// How many.
    pub images: usize,
    /// Where the first of them lies.
    pub first: PathBuf,
    /// Where the same image to train on lies.
    pub like: PathBuf,
}

impl<'p> Both<'p> {
    pub fn of(train: &'p Placed, test: &'p Placed) -> Both<'p> {
        let sets = [train, test].map(|part| (String::new(), part.images.clone()));
        let classes = Concat::classes_of(sets.iter().map(|(_, set)| set.classes()));
        Both { images: Arc::new(Concat::new(sets.into(), classes)), train, test }
    }

    /// Those of `groups` of the same images that lie in both parts.
    pub fn shared(&self, groups: &[Vec<u32>]) -> Option<Shared> {
        let before = self.train.images.len();
        let split = |group: &Vec<u32>| {
            let at = group.partition_point(|&image| (image as usize) < before);
            (at > 0 && at < group.len())
                .then(|| (group[0] as usize, group[at] as usize - before, group.len() - at))
        };
        let found: Vec<(usize, usize, usize)> = groups.iter().filter_map(split).collect();
        let &(like, first, _) = found.iter().min_by_key(|&&(_, first, _)| first)?;
        let images = found.iter().map(|&(.., images)| images).sum();
        Some(Shared { images, first: self.test.path(first), like: self.train.path(like) })
    }
}
