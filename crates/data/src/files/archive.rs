//! Turning image files in folders, on disk or in an archive, into a data set.

use std::sync::Arc;

use super::{Files, ImageFiles};
use crate::decode::DecodeOptions;
use crate::error::inert_bytes;
use crate::layout::{Arranged, Arrangement, Classes, Root, arrange, below, first};
use crate::listing::LeftOut;
use crate::loader::NO_LABEL;

/// The data sets found in a folder or an archive.
pub(crate) struct Opened {
    pub train: ImageFiles,
    pub test: Option<ImageFiles>,
    pub unlabelled: Option<ImageFiles>,
    pub left_out: LeftOut,
}

/// The data set of images that lie in `folders` (one per image), which determine its parts and classes.
pub(crate) fn by_folders(
    files: Arc<dyn Files>,
    folders: &[&[u8]],
    root: Root,
    mut left_out: LeftOut,
    options: DecodeOptions,
) -> Opened {
    let Arrangement { mut train, test, unlabelled } = arrange(folders, root);
    left_out.notes.append(&mut train.notes);
    let mut used = vec![false; folders.len()];
    let parts = [Some(&train), test.as_ref(), unlabelled.as_ref()];
    for &image in parts.into_iter().flatten().flat_map(|part| &part.chosen) {
        used[image as usize] = true;
    }
    let start = root.len(folders.iter().copied());
    for stray in (0..used.len()).filter(|&image| !used[image]) {
        left_out.push(files.name(stray), "in none of the parts that are used");
        left_out.images += 1;
        left_out.outside.insert(match first(below(folders[stray], start)) {
            b"" => "./".to_owned(),
            folder => format!("{}/", inert_bytes(folder)),
        });
    }
    let set =
        |arranged: Arranged| ImageFiles::some(files.clone(), arranged.chosen, arranged.classes, options);
    let train = set(train);
    let mut test = test.map(set);
    if let Some(test) = &mut test {
        test.relabel(train.classes());
    }
    Opened { train, test, unlabelled: unlabelled.map(set), left_out }
}

/// Whether a file of an archive, or a folder that it lies in, is hidden. `..` does no harm: nothing is ever written to
/// a path from an archive.
pub(super) fn is_hidden(name: &[u8]) -> bool {
    let parts = name.split(|&byte| byte == b'/');
    parts.filter(|&part| part != b"." && part != b"..").any(|part| part.starts_with(b"."))
}

/// The largest numeric label. Every class up to the largest label gets a name: one wrong number must not exhaust
/// memory.
pub(crate) const MAX_LABEL: u32 = 1 << 20;

/// Classes named by their numbers, from 0 to the largest label.
pub(crate) fn numbered(labels: Vec<u32>) -> Classes {
    let largest = labels.iter().copied().filter(|&label| label != NO_LABEL).max();
    match largest {
        Some(largest) => Classes { names: (0..=largest).map(|class| class.to_string()).collect(), labels },
        None => Classes::default(),
    }
}
