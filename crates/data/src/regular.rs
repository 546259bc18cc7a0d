//! Whether a path can be read as a file.

use std::io::ErrorKind;
use std::path::Path;

/// Why a path is not a file to read: "no such file", "is a folder" or "is not a regular file"; `None` if it is one, or
/// the system does not tell.
///
/// Opening a pipe waits for a writer, and reading a device may never end.
pub fn not_a_file(path: &Path) -> Option<&'static str> {
    match path.metadata() {
        Ok(found) if found.is_file() => None,
        Ok(found) if found.is_dir() => Some("is a folder"),
        Ok(_) => Some("is not a regular file"),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Some("no such file")
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_no_files_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        assert_eq!(
            (not_a_file(&file), not_a_file(folder.path())),
            (Some("no such file"), Some("is a folder"))
        );
        std::fs::write(&file, "").unwrap();
        assert_eq!((not_a_file(&file), not_a_file(&file.join("b"))), (None, Some("no such file")));
        if cfg!(unix) {
            assert_eq!(not_a_file(Path::new("/dev/zero")), Some("is not a regular file"));
        }
    }
}
