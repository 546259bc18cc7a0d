//! Images to test on, or to choose settings by, that are training images too.

use std::path::PathBuf;

use super::places::LocatedImages;

/// Test images, or validation images, that are training images too: recognising those says little about new images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPaths {
    /// How many.
    pub images: usize,
    /// The number of test or validation images in all, those without a label included.
    pub of: usize,
    /// The path of the first of them.
    pub first: PathBuf,
    /// The path of an equal training image; the same as `first` where both are one file.
    pub like: PathBuf,
}

impl SharedPaths {
    /// Finds them from the groups of the `same` image ([`simclr_data::copies`]) in a data set of the images `learnt`
    /// from, part after part, followed by those of `test`; `None` if no image is in both.
    pub(super) fn of(
        same: &[Vec<u32>],
        learnt: &[&LocatedImages],
        test: &LocatedImages,
    ) -> Option<SharedPaths> {
        let all: usize = learnt.iter().map(|part| part.images.len()).sum();
        let split = |group: &Vec<u32>| {
            let at = group.partition_point(|&image| (image as usize) < all);
            (at > 0 && at < group.len()).then(|| (group[0] as usize, group[at] as usize, group.len() - at))
        };
        let found: Vec<(usize, usize, usize)> = same.iter().filter_map(split).collect();
        let &(mut like, first, _) = found.iter().min_by_key(|&&(_, first, _)| first)?;
        let with_like = learnt.iter().find(|part| {
            let inside = like < part.images.len();
            like -= if inside { 0 } else { part.images.len() };
            inside
        })?;
        Some(SharedPaths {
            images: found.iter().map(|&(.., images)| images).sum(),
            of: test.images.len(),
            first: test.path(first - all),
            like: with_like.path(like),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use simclr_data::{Source, SourceKind};

    use super::*;
    use crate::common::{RGB, Toy};

    #[test]
    fn groups_in_both_parts_count() {
        let placed = |name: &str, images| {
            let source = Source::of(SourceKind::Folder, Arc::new(Toy::new(&RGB, images, 1)));
            LocatedImages::all(source, Path::new(name)).0
        };
        let [train, validation, test] = [placed("train", 3), placed("val", 2), placed("test", 4)];
        let found = |same: &[Vec<u32>]| SharedPaths::of(same, &[&train, &validation], &test);
        let same = [vec![0, 1], vec![2, 7], vec![3, 4, 5, 8]];
        let of = |first: &str, like: &str| SharedPaths {
            images: 1,
            of: 4,
            first: first.into(),
            like: like.into(),
        };
        assert_eq!(found(&same), Some(SharedPaths { images: 3, ..of("test/toy 0", "val/toy 0") }));
        assert_eq!(found(&same[..2]), Some(of("test/toy 2", "train/toy 2")));
        assert_eq!(found(&same[..1]), None);
    }
}
