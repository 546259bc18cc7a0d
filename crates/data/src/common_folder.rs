//! Paths as seen from the folder that they have in common.

use std::path::{Path, PathBuf};

/// The path from the root of the file system.
pub(crate) fn whole(path: impl AsRef<Path>) -> PathBuf {
    std::path::absolute(&path).unwrap_or_else(|_| path.as_ref().to_owned())
}

/// The folder that all of these paths from the root lie in or below; empty if there are none.
pub(crate) fn common_folder<'p>(paths: impl Iterator<Item = &'p Path>) -> PathBuf {
    let folders = paths.filter_map(Path::parent).map(Path::to_owned);
    folders.reduce(shared).unwrap_or_default()
}

fn shared(one: PathBuf, other: PathBuf) -> PathBuf {
    let equal = one.components().zip(other.components()).take_while(|(one, other)| one == other);
    equal.map(|(one, _)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_that_paths_have_in_common() {
        let of = |paths: &[&str]| common_folder(paths.iter().map(Path::new));
        assert_eq!(of(&["/a/b/c", "/a/bb/c", "/a/b"]), Path::new("/a"));
        assert_eq!(of(&["/a/b", "/a/b"]), Path::new("/a"));
        assert_eq!(of(&["/a/b", "/c"]), Path::new("/"));
        assert_eq!(of(&[]), Path::new(""));
    }
}
