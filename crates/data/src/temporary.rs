//! Names for files that are being written.

use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// The ending of such names: `FILE.PROCESS-NUMBER.tmp`, so that two programs never write to the same file. A file of a
/// process that is gone was left by a program that was stopped.
const TEMPORARY: &str = ".tmp";

/// A new name, which this process has not used before.
pub fn temporary_of(file: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}-{}{TEMPORARY}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    name.into()
}

/// The name of the file that a temporary one was to become, and the process that writes or wrote it; `None` if `name`
/// is not a temporary one.
pub fn unfinished(name: &str) -> Option<(&str, u32)> {
    let (whole, writer) = name.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
    let (process, number) = writer.split_once('-')?;
    number.parse::<u64>().ok()?;
    Some((whole, process.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_tells_the_file_and_the_process() {
        let [first, second] = [(); 2].map(|()| temporary_of(Path::new("x.npy")));
        assert_ne!(first, second);
        assert_eq!(unfinished(first.to_str().unwrap()), Some(("x.npy", process::id())));
        assert!(
            ["x.npy.tmp", "x.npy", "x.1-2.npy", "x.a-1.tmp"].iter().all(|name| unfinished(name).is_none())
        );
    }
}
