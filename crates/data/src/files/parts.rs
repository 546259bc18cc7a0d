//! Sorting archives into the parts of one data set by their names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{DataError, inert};
use crate::layout::{Split, common_root, folder_of, preferred_test, split_of_path};
use crate::listing::LeftOut;

/// What to do with archives whose names tell no part, when other archives are named as training parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unnamed {
    /// They are to train on: the user listed them explicitly.
    Train,
    /// They are left out, as folders beside `train/` are.
    LeftOut,
}

/// Archives of one kind (shards, tables): those to train on, and those to test on.
pub(crate) struct Parts {
    pub train: Vec<PathBuf>,
    /// The archives of each test part, in order of preference.
    tests: Vec<Vec<PathBuf>>,
}

impl Parts {
    /// Sorts the archives by the part that each path names below their common folder. If no path names a training part,
    /// all are to train on.
    pub fn of(paths: &[PathBuf], unnamed: Unnamed, left_out: &mut LeftOut) -> Self {
        let texts: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
        let root = common_root(texts.iter().map(|text| folder_of(text.as_bytes())));
        let splits: Vec<_> = texts.iter().map(|text| split_of_path(&text[root..])).collect();
        if !splits.contains(&Some(Split::Train)) {
            return Self { train: paths.to_vec(), tests: Vec::new() };
        }
        let mut train = Vec::new();
        let mut tests: BTreeMap<usize, Vec<PathBuf>> = BTreeMap::new();
        for (path, split) in paths.iter().zip(splits) {
            match split {
                Some(Split::Test(name)) => tests.entry(name).or_default().push(path.clone()),
                None if unnamed == Unnamed::LeftOut => {
                    left_out.push(
                        file_name(path),
                        "its name does not tell its part (train, test), as the names of others do",
                    );
                }
                Some(Split::Train) | None => train.push(path.clone()),
            }
        }
        Self { train, tests: tests.into_values().collect() }
    }

    /// Whether some archives are to test on.
    pub fn has_test(&self) -> bool {
        !self.tests.is_empty()
    }

    /// Returns the part to test on, as `open` makes it of its archives; the archives of other test parts are left out.
    ///
    /// # Errors
    /// The errors of `open`.
    pub fn open_test<T>(
        &self,
        train_is_labelled: impl FnOnce() -> bool,
        is_labelled: impl Fn(&T) -> bool,
        mut open: impl FnMut(&[PathBuf]) -> Result<T, DataError>,
        left_out: &mut LeftOut,
    ) -> Result<Option<T>, DataError> {
        if !self.has_test() {
            return Ok(None);
        }
        let mut tests: Vec<T> = self.tests.iter().map(|paths| open(paths)).collect::<Result<_, _>>()?;
        let used = preferred_test(train_is_labelled(), tests.iter().map(is_labelled));
        let others = self.tests.iter().enumerate().filter(|(number, _)| *number != used);
        for path in others.flat_map(|(_, paths)| paths) {
            left_out.push(file_name(path), "in a test part other than the one that is used");
        }
        Ok(Some(tests.swap_remove(used)))
    }
}

/// The name of an archive in messages.
pub(crate) fn file_name(path: &Path) -> String {
    inert(&path.file_name().unwrap_or_default().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_parts_below_the_folder_of_all() {
        let parts = |paths: &[&str], unnamed| {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            let mut left_out = LeftOut::default();
            let parts = Parts::of(&paths, unnamed, &mut left_out);
            (parts.train.len(), parts.tests.iter().map(Vec::len).collect::<Vec<_>>(), left_out.count)
        };
        use Unnamed::{LeftOut as No, Train as Yes};
        assert_eq!(
            parts(&["d/train-0.tar", "d/val-0.tar", "d/val-1.tar", "d/test-0.tar"], No),
            (1, vec![1, 2], 0)
        );
        assert_eq!(parts(&["d/train-0.tar", "d/extra.tar"], No), (1, vec![], 1));
        assert_eq!(parts(&["d/train-0.tar", "d/extra.tar"], Yes), (2, vec![], 0));
        assert_eq!(parts(&["/data/train/a.tar", "/mnt/b.tar"], Yes), (2, vec![], 0));
        assert_eq!(parts(&["/mnt/test/train-0.tar", "/mnt/test/more.tar"], Yes), (2, vec![], 0));
        assert_eq!(parts(&["/train/a.tar", "/train/test-b.tar"], No), (2, vec![], 0));
        assert_eq!(parts(&["p/train/0.parquet", "p/validation/0.parquet"], No), (1, vec![1], 0));
        assert_eq!(parts(&["p/test-0.tar"], No), (1, vec![], 0));
    }
}
