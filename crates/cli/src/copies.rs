//! Duplicate images: in both the training and the test part, or with labels of several classes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use simclr_data::Dataset;
use simclr_eval::protocols::SharedPaths;

use crate::terminal::{self, Bar};

/// The progress of comparing images.
#[derive(Default)]
pub struct Comparing {
    bar: OnceLock<Option<Bar>>,
    most: AtomicUsize,
}

impl Comparing {
    /// Reports that `done` of `of` images were compared. Threads may call it in any order.
    pub fn see(&self, done: usize, of: usize) {
        let done = self.most.fetch_max(done, Ordering::Relaxed).max(done);
        let bar = self.bar.get_or_init(|| {
            let bar = terminal::bar(of as u64);
            bar.iter().for_each(|bar| bar.set_message("images compared"));
            bar
        });
        bar.iter().for_each(|bar| bar.set_position(done as u64));
    }
}

/// Warns of identical images with labels of several classes; each group of `found` holds such images.
pub fn warn_of_contradicting(images: &dyn Dataset, found: &[Vec<u32>]) {
    let Some(first) = found.first() else { return };
    terminal::warn(&format!(
        "{} labelled as of several classes, such as {}; correct the labels (simclr data lists all)",
        if found.len() == 1 {
            "1 image is".to_owned()
        } else {
            format!("{} are", terminal::counted(found.len(), "image"))
        },
        labelled(images, first)
    ));
}

/// Identical images, one for each of their labels: `a.png of "cat" = b.png of "dog"`.
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

/// Warns of test images that are also among the images to learn from. `set` names the data set where there are several;
/// `advice` says what to do.
pub fn warn_of_shared(set: Option<&str>, shared: &SharedPaths, advice: &str) {
    let so = format!("the figures say little about new images; {advice}");
    warn_of_both(set, "test", shared, &so);
}

/// Warns of images to choose settings by that are also among those of the data set `set` to learn from.
pub fn warn_of_shared_validation(set: &str, shared: &SharedPaths) {
    let so = "settings that merely memorise them may be preferred; take them out of one of the two";
    warn_of_both(Some(set), "validation", shared, so);
}

fn warn_of_both(set: Option<&str>, part: &str, shared: &SharedPaths, so: &str) {
    let SharedPaths { images, of, first, like } = shared;
    terminal::warn(&format!(
        "{}{} of the {} {part} images {} in the training set as well, such as {}{}: {so}",
        set.map_or(String::new(), |set| format!("{set}: ")),
        terminal::grouped(*images as u64),
        terminal::grouped(*of as u64),
        if *images == 1 { "is" } else { "are" },
        first.display(),
        if like == first { String::new() } else { format!(", the same as {}", like.display()) },
    ));
}
