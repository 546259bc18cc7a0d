//! How much memory there is.

/// Bytes of memory that programs may still take: what the system says is available, or 4 GB where it does not say.
pub fn available_bytes() -> u64 {
    const UNKNOWN: u64 = 4 << 30;
    std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_in(&text)).unwrap_or(UNKNOWN)
}

/// The `MemAvailable` line of Linux's /proc/meminfo, in bytes.
fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_line_that_counts() {
        let text = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:   12345 kB\n";
        assert_eq!(available_in(text), Some(12_345 * 1024));
        assert_eq!(available_in("MemAvailable: lots"), None);
        assert!(available_bytes() > 0);
    }
}
