//! Names for files that are being written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The ending of such names: `FILE.PROCESS-NUMBER-HOST.tmp`, so that two programs never write to the same file, also
/// where several machines share a disk. A file of a process that is gone was left by a program that was stopped.
const TEMPORARY: &str = ".tmp";

/// Hexadecimal digits of the host in such names.
const HOST_DIGITS: usize = 8;

/// A new name, which this process has not used before.
pub fn temporary_of(file: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = file.as_os_str().to_owned();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{number}-{:0HOST_DIGITS$x}{TEMPORARY}", process::id(), host()));
    name.into()
}

/// Who writes, or wrote, a temporary file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The number of its process.
    pub process: u32,
    /// The machine on which that runs; `None` in names that earlier versions gave.
    host: Option<u32>,
}

impl Writer {
    /// Whether it runs, or ran, on this machine since that was started, so that its process can be looked for.
    pub fn is_here(self) -> bool {
        self.host == Some(host())
    }
}

/// The name of the file that a temporary one was to become, and who writes or wrote it; `None` if `name` is not a
/// temporary one.
pub fn unfinished(name: &str) -> Option<(&str, Writer)> {
    let (whole, writer) = name.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
    let (process, rest) = writer.split_once('-')?;
    let (number, host) = match rest.split_once('-') {
        Some((number, host)) if host.len() == HOST_DIGITS => {
            (number, Some(u32::from_str_radix(host, 16).ok()?))
        }
        Some(_) => return None,
        None => (rest, None),
    };
    number.parse::<u64>().ok()?;
    Some((whole, Writer { process: process.parse().ok()?, host }))
}

/// A number for this machine, another one each time it starts. Containers have names of their own.
fn host() -> u32 {
    static HOST: OnceLock<u32> = OnceLock::new();
    *HOST.get_or_init(|| {
        let parts = ["/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/hostname"];
        crc32c::crc32c(&parts.map(|part| fs::read(part).unwrap_or_default()).concat())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_tells_the_file_and_the_process() {
        let [first, second] = [(); 2].map(|()| temporary_of(Path::new("x.npy")));
        assert_ne!(first, second);
        let (whole, writer) = unfinished(first.to_str().unwrap()).unwrap();
        assert_eq!((whole, writer.process, writer.is_here()), ("x.npy", process::id(), true));
        for elsewhere in ["x.npy.7-1.tmp".to_owned(), format!("x.npy.7-1-{:08x}.tmp", host() ^ 1)] {
            let (whole, writer) = unfinished(&elsewhere).unwrap();
            assert_eq!((whole, writer.process, writer.is_here()), ("x.npy", 7, false));
        }
        assert!(
            ["x.npy.tmp", "x.npy", "backup.2024-01-15.tmp", "x.1-2.npy", "x.a-1.tmp", "x.1-2-3-4.tmp"]
                .iter()
                .all(|name| unfinished(name).is_none())
        );
    }
}
