//! Telling I/O errors of the system from errors in the images themselves.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::decode::MAX_FILE_BYTES;
use crate::error::DataError;
use crate::positioned::Cursor;

/// An image that the system cannot read.
#[derive(Debug)]
pub(crate) struct Unread {
    /// The file that is the image, or contains it.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
    /// Whether nothing else in the file can be read either.
    pub whole: bool,
}

/// Tells a single unreadable image, `index` of `len`, from a lost data set: probes some others, and `known`, which was
/// readable. Returns the error if all fail. `probe` tries to read an image again.
///
/// A bad sector costs one image, and a list may name many that never existed.
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
        // Opening a pipe would wait for a writer.
        false => Ok(()),
    });
    read.map_err(|source| Unread { path, source, whole: false })
}

/// Reads the `len` bytes of `file` at `at` and drops them. A file that is too short is not the system's fault, and no
/// error.
pub(crate) fn probe_range(file: &Arc<File>, at: u64, len: u64) -> io::Result<()> {
    let end = at.saturating_add(len.min(MAX_FILE_BYTES));
    match drain(Cursor::new(Arc::clone(file), at, end)) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        read => read,
    }
}

fn drain(mut from: impl Read) -> io::Result<()> {
    io::copy(&mut from, &mut io::sink()).map(drop)
}

/// The last I/O error of the system below a third-party reader, which may keep no more of it than its text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault(Arc<AtomicI32>);

impl Fault {
    /// Notes an error if it comes from the system.
    pub fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            let code = error.raw_os_error().filter(|_| error.kind() != io::ErrorKind::Interrupted);
            code.into_iter().for_each(|code| self.0.store(code, Ordering::Relaxed));
        })
    }

    /// The error noted last.
    pub fn get(&self) -> Option<io::Error> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&code| code != 0).map(io::Error::from_raw_os_error)
    }

    /// Forgets the error.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A reader whose errors are noted.
#[derive(Debug)]
pub(crate) struct Watched<R> {
    inner: R,
    fault: Fault,
}

impl<R> Watched<R> {
    pub fn new(inner: R, fault: &Fault) -> Self {
        Self { inner, fault: fault.clone() }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.fault.note(self.inner.read(out))
    }
}

impl<R: Seek> Seek for Watched<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
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
        // Nothing can be read from an archive that cannot be opened, whatever other archives do.
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

    #[cfg(target_os = "linux")]
    #[test]
    fn only_what_the_system_says_is_its_fault() {
        // Nothing is mapped at address 0.
        let bad = Arc::new(File::open("/proc/self/mem").unwrap());
        assert_eq!(probe_range(&bad, 0, 9).unwrap_err().raw_os_error(), Some(EIO));
        let file = Arc::new(File::open("Cargo.toml").unwrap());
        assert!(probe_range(&file, 0, 9).is_ok() && probe_range(&file, 0, u64::MAX).is_ok());
        let fault = Fault::default();
        let mut short = Watched::new(&b"abc"[..], &fault);
        assert!(short.read_exact(&mut [0; 9]).is_err() && fault.get().is_none());
        assert!(Watched::new(&*bad, &fault).read(&mut [0; 9]).is_err());
        assert_eq!(fault.get().and_then(|error| error.raw_os_error()), Some(EIO));
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
