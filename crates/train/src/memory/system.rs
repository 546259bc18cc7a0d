//! The memory that the system reports.

use std::fs::read_to_string;

/// Bytes of memory that programs may still use, if the system reports them: what Linux calls available, or less if a
/// control group (a container) allows less.
pub fn available() -> Option<u64> {
    let machine = line_of(&read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let group = |name: &str| read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok();
    let group = || left_in_group(&group("max")?, &group("current")?, &group("stat")?);
    Some(group().map_or(machine, |left| left.min(machine)))
}

/// Bytes of memory of the machine, if the system reports them.
pub fn total() -> Option<u64> {
    line_of(&read_to_string("/proc/meminfo").ok()?, "MemTotal:")
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

/// Bytes that a control group with a limit has left; inactive cached files do not count as used.
fn left_in_group(max: &str, current: &str, stat: &str) -> Option<u64> {
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().ok()?;
    let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?;
    let files: u64 = files.trim().parse().ok()?;
    Some(max.saturating_sub(current.saturating_sub(files)))
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
    fn a_group_has_what_its_limit_leaves() {
        let stat = "anon 5\ninactive_file 30\nactive_file 7\n";
        assert_eq!(left_in_group("100\n", "50\n", stat), Some(80));
        assert_eq!(left_in_group("100\n", "150\n", stat), Some(0));
        assert_eq!(left_in_group("max\n", "50\n", stat), None);
    }
}
