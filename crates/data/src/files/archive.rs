//! What the members of an archive are to a data set.

use std::path::Path;
use std::sync::Arc;

use super::{Files, ImageFiles, in_test_alone};
use crate::decode::DecodeOptions;
use crate::error::DataError;
use crate::layout::{Arranged, Classes, arrange, folder_of};
use crate::listing::LeftOut;
use crate::loader::NO_LABEL;
use crate::names::Names;

/// Images of an archive, or of several.
pub(crate) type ArchiveImages = ImageFiles<Arc<dyn Files>>;

/// What an archive holds.
pub(crate) struct Opened {
    pub train: ArchiveImages,
    pub test: Option<ArchiveImages>,
    pub left_out: LeftOut,
}

/// The data set of members called `names`, with parts and classes by their folders.
pub(crate) fn by_folders(
    place: &Path,
    files: Arc<dyn Files>,
    names: &Names,
    mut left_out: LeftOut,
    options: DecodeOptions,
) -> Result<Opened, DataError> {
    let folders: Vec<&[u8]> = names.iter().map(folder_of).collect();
    let (train, test) = arrange(&folders);
    let used = train.chosen.len() + test.as_ref().map_or(0, |test| test.chosen.len());
    if used < names.len() {
        let used: std::collections::HashSet<u32> =
            train.chosen.iter().chain(test.iter().flat_map(|test| &test.chosen)).copied().collect();
        for stray in (0..names.len() as u32).filter(|image| !used.contains(image)) {
            left_out.push(files.name(stray as usize), "lies beside the parts or classes, in none of them");
        }
    }
    let set =
        |arranged: Arranged| ImageFiles::some(files.clone(), arranged.chosen, arranged.classes, options);
    let train = set(train);
    let test = match test {
        Some(test) => {
            let mut test = set(test);
            test.relabel(&train.classes, |class| in_test_alone(place, class))?;
            Some(test)
        }
        None => None,
    };
    Ok(Opened { train, test, left_out })
}

/// The largest label that is a number. All classes up to the largest have a name: one wrong number shall not take
/// the memory.
pub(crate) const MAX_LABEL: u32 = 1 << 20;

/// Classes that are numbers, up to the largest label.
pub(crate) fn numbered(labels: Vec<u32>) -> Classes {
    let largest = labels.iter().copied().filter(|&label| label != NO_LABEL).max();
    match largest {
        Some(largest) => Classes { names: (0..=largest).map(|class| class.to_string()).collect(), labels },
        None => Classes::default(),
    }
}
