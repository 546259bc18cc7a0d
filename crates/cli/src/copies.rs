//! The same image more than once: in both parts of an evaluation, or of several classes.

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
pub fn both(train: &Placed, test: &Placed) -> Arc<dyn Dataset> {
    let sets = [train, test].map(|part| (String::new(), part.images.clone()));
    let classes = Concat::classes_of(sets.iter().map(|(_, set)| set.classes()));
    Arc::new(Concat::new(sets.into(), classes))
}

/// Warns of test images, `of` of them there are, that are learnt from as well, as the first is, called like that and
/// like this there; of those of a data set called `set`, where there are several, with what to do.
pub fn warn_of_shared(set: Option<&str>, images: usize, of: usize, [first, like]: [&str; 2], advice: &str) {
    terminal::warn(&format!(
        "{}{} of the {} test images {} learnt from as well, such as {first}{}: the figures tell little of images that are new; \
         {advice}",
        set.map_or(String::new(), |set| format!("{set}: ")),
        terminal::grouped(images as u64),
        terminal::grouped(of as u64),
        if images == 1 { "is" } else { "are" },
        if like == first { String::new() } else { format!(", the same as {like}") },
    ));
}
