//! The memory that control groups (of containers, systemd, or schedulers such as Slurm) leave to this process.

use std::path::{Path, PathBuf};

/// Reads a file of the system; `None` if there is none, or it cannot be read.
pub(super) type Read<'r> = &'r dyn Fn(&Path) -> Option<String>;

/// The names of a group's files in one of the two versions of control groups.
struct Names {
    /// Each has a limit in bytes, if there is one.
    limits: &'static [&'static str],
    /// Bytes in use, with cached files.
    used: &'static str,
    /// The line of memory.stat with the bytes of cached files that are not in active use, of the group and those
    /// within it.
    inactive: &'static str,
}

const V1: Names = Names {
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    inactive: "total_inactive_file ",
};

/// Beyond memory.high a process is slowed down so much that it might as well be stopped.
const V2: Names =
    Names { limits: &["memory.max", "memory.high"], used: "memory.current", inactive: "inactive_file " };

/// Bytes that all groups of this process leave, each of which may have a limit: its own, and those around that.
pub(super) fn left(read: Read) -> Option<u64> {
    least(read, &left_in)
}

/// Bytes that all groups of this process allow, in use or not.
pub(super) fn limit(read: Read) -> Option<u64> {
    least(read, &limit_of)
}

/// The least that `of` finds in the folders of this process's groups.
fn least(read: Read, of: &dyn Fn(&Path, &Names, Read) -> Option<u64>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    let hierarchies = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let names = match controllers {
            "" => &V2,
            _ if has(controllers, "memory") => &V1,
            _ => return None,
        };
        Some((names, folders(&mounts, controllers.is_empty(), Path::new(path))?))
    });
    hierarchies.flat_map(|(names, folders)| folders.into_iter().filter_map(|at| of(&at, names, read))).min()
}

/// The folders of a group at `path` of its hierarchy and of those around it, as far as they can be seen.
fn folders(mounts: &str, second: bool, path: &Path) -> Option<Vec<PathBuf>> {
    // ID PARENT DEVICE ROOT PLACE OPTIONS ... - TYPE SOURCE OPTIONS: ROOT of the hierarchy is mounted at PLACE.
    let found: Vec<(&Path, &Path)> = mounts
        .lines()
        .filter_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let (mut place, mut kind) = (place.split(' ').skip(3), kind.split(' '));
            let is_it = match (kind.next()?, second) {
                ("cgroup2", true) => true,
                ("cgroup", false) => has(kind.nth(1)?, "memory"),
                _ => false,
            };
            is_it.then_some((Path::new(place.next()?), Path::new(place.next()?)))
        })
        .collect();
    let within =
        |&(root, place): &(&Path, &'_ Path)| Some((place.to_path_buf(), path.strip_prefix(root).ok()?));
    // A container may see no more of the hierarchy than its own part, under another name.
    let (place, rest) = found
        .iter()
        .find_map(within)
        .or_else(|| found.first().map(|(_, place)| (place.to_path_buf(), Path::new(""))))?;
    Some(rest.ancestors().map(|group| place.join(group)).collect())
}

/// The limit of the group in the folder `at`, in bytes, if it has one.
fn limit_of(at: &Path, names: &Names, read: Read) -> Option<u64> {
    names.limits.iter().filter_map(|name| number(at, name, read)).min()
}

/// The number in a file of the folder `at`.
fn number(at: &Path, name: &str, read: Read) -> Option<u64> {
    read(&at.join(name))?.trim().parse().ok()
}

/// Bytes that the group in the folder `at` has left, if it has a limit; inactive cached files do not count as used.
fn left_in(at: &Path, names: &Names, read: Read) -> Option<u64> {
    let limit = limit_of(at, names, read)?;
    let used = number(at, names.used, read)?;
    let inactive = read(&at.join("memory.stat")).and_then(|stat| {
        stat.lines().find_map(|line| line.strip_prefix(names.inactive))?.trim().parse::<u64>().ok()
    });
    Some(limit.saturating_sub(used.saturating_sub(inactive.unwrap_or(0))))
}

/// Whether `list`, separated by commas, has `word`.
fn has(list: &str, word: &str) -> bool {
    list.split(',').any(|one| one == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left on a system with these files.
    fn left_with(files: &[(&str, &str)]) -> Option<u64> {
        left(&|path| {
            let (_, text) = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some((*text).to_owned())
        })
    }

    const MOUNTS_2: &str = "25 1 0:22 / / rw - ext4 /dev/sda rw\n\
        31 25 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_tightest_of_all_groups_around_a_process_counts() {
        let files = [
            ("/proc/self/cgroup", "0::/system.slice/slurm/job_7\n"),
            ("/proc/self/mountinfo", MOUNTS_2),
            // The job itself has no limit, and slurm's is tighter than the one of all services.
            ("/sys/fs/cgroup/system.slice/slurm/job_7/memory.max", "max\n"),
            ("/sys/fs/cgroup/system.slice/slurm/job_7/memory.current", "40\n"),
            ("/sys/fs/cgroup/system.slice/slurm/memory.max", "100\n"),
            ("/sys/fs/cgroup/system.slice/slurm/memory.high", "90\n"),
            ("/sys/fs/cgroup/system.slice/slurm/memory.current", "50\n"),
            ("/sys/fs/cgroup/system.slice/slurm/memory.stat", "anon 5\ninactive_file 30\nactive_file 7\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "1000\n"),
            ("/sys/fs/cgroup/system.slice/memory.current", "60\n"),
        ];
        assert_eq!(left_with(&files), Some(70));
        let of = |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path);
        assert_eq!(limit(&|path| of(path).map(|(_, text)| (*text).to_owned())), Some(90));
        // Without slurm's limits; the group is used up by others.
        assert_eq!(left_with(&[&files[..4], &files[8..]].concat()), Some(940));
        let full = [("/sys/fs/cgroup/system.slice/memory.high", "50")];
        assert_eq!(left_with(&[&files[..4], &full, &files[9..]].concat()), Some(0));
        assert_eq!(left_with(&files[..4]), None);
        assert_eq!(left_with(&[]), None);
    }

    #[test]
    fn the_first_version_has_a_hierarchy_for_memory() {
        let groups = ("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc/in\n0::/\n");
        let unlimited = "9223372036854771712\n";
        let mounts = |root: &str| {
            format!(
                "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                 35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,cpu,memory\n\
                 41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
            )
        };
        // A container sees its own part of the hierarchy, or none that fits its name.
        for (root, group) in [("/docker/abc", "/in"), ("/", "/docker/abc/in"), ("/elsewhere", "")] {
            let at = |name: &str| format!("/sys/fs/cgroup/memory{group}/{name}");
            let files = [
                (at("memory.limit_in_bytes"), "500"),
                (at("memory.usage_in_bytes"), "300"),
                (at("memory.stat"), "inactive_file 1\ntotal_inactive_file 100\n"),
            ];
            let around = [
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", unlimited),
                ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "7"),
            ];
            let mounts = mounts(root);
            let mut all = vec![groups, ("/proc/self/mountinfo", mounts.as_str())];
            all.extend(files.iter().map(|(name, text)| (name.as_str(), *text)));
            all.extend(around);
            assert_eq!(left_with(&all), Some(300), "{root}");
        }
    }
}
