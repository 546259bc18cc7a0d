//! Errors of the system in reading images, told apart from what is wrong in these.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use crate::decode::MAX_FILE_BYTES;
use crate::error::DataError;

/// That the system does not read an image.
#[derive(Debug)]
pub(crate) struct Unread {
    /// The file that it is, or is in.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
    /// Whether that is so of everything in the file.
    pub whole: bool,
}

/// Why images cannot be read any more, where image `index` of `len` could not be; nothing where it is only that one.
/// `known` is one that could be read, and `probe` reads one once more.
///
/// A bad sector costs one image, and a list may name many that were never there: some others are tried.
pub(crate) fn lost(
    (index, len): (usize, usize),
    known: Option<usize>,
    probe: impl Fn(usize) -> Result<(), Unread>,
) -> Option<DataError> {
    let Unread { path, source, whole } = probe(index).err()?;
    let never_there = known.is_none() && source.kind() == io::ErrorKind::NotFound;
    let others = [0, len / 2, len - 1].into_iter().chain(known).filter(|&other| other != index);
    let lost = whole || (!never_there && others.into_iter().all(|other| probe(other).is_err()));
    lost.then_some(DataError::Lost { path, source })
}

/// Reads the file of an image and drops it.
pub(crate) fn probe_file(path: PathBuf) -> Result<(), Unread> {
    let read = fs::metadata(&path).and_then(|found| match found.is_file() {
        true => drain(File::open(&path)?.take(MAX_FILE_BYTES)),
        // A pipe would be waited for.
        false => Ok(()),
    });
    read.map_err(|source| Unread { path, source, whole: false })
}

fn drain(mut from: impl Read) -> io::Result<()> {
    io::copy(&mut from, &mut io::sink()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIO: i32 = 5;
    const ENOENT: i32 = 2;

    fn unread(code: i32, whole: bool) -> Result<(), Unread> {
        Err(Unread { path: PathBuf::from("a"), source: io::Error::from_raw_os_error(code), whole })
    }

    #[test]
    fn a_bad_sector_costs_one_image_and_a_disk_that_fails_all() {
        let one = |bad: usize| move |index: usize| if index == bad { unread(EIO, false) } else { Ok(()) };
        assert!((0..9).all(|bad| lost((bad, 9), None, one(bad)).is_none()));
        assert!(lost((4, 9), Some(5), |_| Ok(())).is_none());
        assert!(lost((4, 9), None, |_| unread(EIO, false)).is_some());
        // Of an archive that cannot be opened nothing can be read, whatever others can.
        assert!(
            lost((4, 9), Some(5), |index| if index == 4 { unread(ENOENT, true) } else { Ok(()) }).is_some()
        );
    }

    #[test]
    fn what_was_never_there_has_not_gone() {
        let only =
            |there: usize| move |index: usize| if index == there { Ok(()) } else { unread(ENOENT, false) };
        assert!(lost((4, 900), Some(7), only(7)).is_none());
        assert!(lost((4, 900), None, only(7)).is_none());
        assert!(lost((4, 900), Some(7), only(900)).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_to_be_done_is_told() {
        let told = |code| lost((0, 1), Some(0), |_| unread(code, false)).unwrap().to_string();
        assert!(told(ENOENT).contains("bring back"), "{}", told(ENOENT));
        assert!(told(24).contains("ulimit -n"), "{}", told(24));
        assert!(told(EIO).starts_with("a: ") && told(EIO).contains("disk"), "{}", told(EIO));
    }
}
