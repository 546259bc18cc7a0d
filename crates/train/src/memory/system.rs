//! The memory that the system reports.

use std::fs::read_to_string;
use std::path::Path;

use super::groups::{self, Read};

/// Bytes of memory that this process may still use, if the system reports them: what Linux calls available, or less if
/// a control group (a container, a service, a job) or a limit of its address space (ulimit -v) allows less.
pub fn available() -> Option<u64> {
    available_from(&|path| read_to_string(path).ok())
}

/// [`available`], on a system with these files.
fn available_from(read: Read) -> Option<u64> {
    let machine = line_of(&read(Path::new("/proc/meminfo"))?, "MemAvailable:")?;
    [Some(machine), groups::left(read), left_of_addresses(read)].into_iter().flatten().min()
}

/// Bytes by which the address space of this process may still grow, if that is limited.
fn left_of_addresses(read: Read) -> Option<u64> {
    let limits = read(Path::new("/proc/self/limits"))?;
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
    let used = line_of(&read(Path::new("/proc/self/status"))?, "VmSize:")?;
    Some(limit.saturating_sub(used))
}

/// Bytes of memory of the machine, if the system reports them.
pub fn total() -> Option<u64> {
    line_of(&read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// Bytes of memory that this process may use in all, in use or not, if the system reports them: those of the machine,
/// or fewer if a control group allows fewer.
pub(crate) fn allowed() -> Option<u64> {
    [total(), groups::limit(&|path| read_to_string(path).ok())].into_iter().flatten().min()
}

/// [`available`], or 4 GiB if the system does not report it.
pub fn available_bytes() -> u64 {
    const UNKNOWN: u64 = 4 << 30;
    available().unwrap_or(UNKNOWN)
}

/// The most bytes of memory that this process ever held, if the system reports them.
pub fn peak() -> Option<u64> {
    line_of(&read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Parses the line `name` of Linux's /proc/meminfo or /proc/self/status, in bytes.
fn line_of(file: &str, name: &str) -> Option<u64> {
    let line = file.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_line_that_counts() {
        let text = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:   12345 kB\n";
        assert_eq!(line_of(text, "MemAvailable:"), Some(12_345 * 1024));
        assert_eq!(line_of(text, "MemTotal:"), Some(24_000_000 * 1024));
        assert_eq!(line_of("MemAvailable: lots", "MemAvailable:"), None);
        assert!(available_bytes() > 0);
    }

    #[test]
    fn the_least_of_what_is_left_is_available() {
        let status = "VmPeak:  90 kB\nVmSize:  50 kB\n";
        let limits = |soft: &str| {
            format!("Limit  Soft Limit  Hard Limit  Units\nMax address space  {soft}  unlimited  bytes\n")
        };
        let with = |soft: &str| {
            let limits = limits(soft);
            available_from(&|path| match path.to_str()? {
                "/proc/meminfo" => Some("MemAvailable:  100 kB\n".to_owned()),
                "/proc/self/status" => Some(status.to_owned()),
                "/proc/self/limits" => Some(limits.clone()),
                _ => None,
            })
        };
        assert_eq!(with("unlimited"), Some(100 << 10));
        assert_eq!(with("1048576"), Some(100 << 10));
        assert_eq!(with("61440"), Some(10 << 10));
        assert_eq!(with("1"), Some(0));
        assert_eq!(available_from(&|_| None), None);
    }
}
