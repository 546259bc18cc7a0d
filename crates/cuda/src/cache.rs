//! Results kept as files in the user's cache folder. A cache that cannot be written or read is not an error: the
//! work is done again.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"simclr cache 1\n";
const SUM: usize = 16;

/// 128-bit FNV-1a over parts, each preceded by its length so that different lists of parts hash differently.
pub(crate) fn fingerprint(parts: &[&[u8]]) -> u128 {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
    };
    for part in parts {
        add(&(part.len() as u64).to_le_bytes());
        add(part);
    }
    hash
}

/// Returns the bytes stored under a name, or `None` if the file is missing or damaged.
pub(crate) fn read(folder: &Path, name: &str) -> Option<Vec<u8>> {
    let bytes = fs::read(folder.join(name)).ok()?;
    let rest = bytes.strip_prefix(MAGIC)?;
    let (sum, payload) = rest.split_at_checked(SUM)?;
    (sum == fingerprint(&[payload]).to_le_bytes()).then(|| payload.to_vec())
}

/// Stores bytes under a name, completely or not at all. An intact file that is already there stays, so that of
/// several processes that compute the same result all use that of the first.
pub(crate) fn write(folder: &Path, name: &str, payload: &[u8]) {
    let fresh = folder.join(format!("{name}.{}.tmp", std::process::id()));
    let written = fs::create_dir_all(folder).and_then(|()| {
        let mut file = fs::File::create(&fresh)?;
        file.write_all(MAGIC)?;
        file.write_all(&fingerprint(&[payload]).to_le_bytes())?;
        file.write_all(payload)?;
        let place = folder.join(name);
        match fs::hard_link(&fresh, &place) {
            // The existing file is damaged, or the file system has no hard links.
            Err(_) if read(folder, name).is_none() => fs::rename(&fresh, place),
            _ => fs::remove_file(&fresh),
        }
    });
    if written.is_err() {
        // The work will be done again next time.
        let _ = fs::remove_file(&fresh);
    }
}

/// Checks that files can be kept in a folder, which is created: a file is written and removed.
///
/// # Errors
/// The system's.
pub(crate) fn check(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let probe = folder.join(format!("probe.{}.tmp", std::process::id()));
    let written = fs::write(&probe, MAGIC);
    let removed = fs::remove_file(&probe);
    written?;
    match removed {
        // Another thread of this process removed the file that both wrote.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Results of trials that hold for one machine: a folder of files, or nothing where there is no cache folder.
pub(crate) struct Remembered {
    folder: Option<PathBuf>,
    machine: String,
}

impl Remembered {
    /// The results in a folder of the cache that hold for `machine`, a text that names the libraries used, with their
    /// versions, and the GPU.
    pub(crate) fn new(cache: Option<&Path>, folder: &str, machine: String) -> Remembered {
        Remembered { folder: cache.map(|cache| cache.join(folder)), machine }
    }

    /// The machine that the results hold for.
    pub(crate) fn machine(&self) -> &str {
        &self.machine
    }

    /// The result stored for a key.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        read(self.folder.as_ref()?, &self.name(key))
    }

    /// Stores the result for a key, unless another process has stored one meanwhile, which stays.
    pub(crate) fn put(&self, key: &str, payload: &[u8]) {
        if let Some(folder) = &self.folder {
            write(folder, &self.name(key), payload);
        }
    }

    /// Removes the result for a key once it is of no use, so that [`Remembered::put`] can store another.
    pub(crate) fn forget(&self, key: &str) {
        if let Some(folder) = &self.folder {
            // A file that cannot be removed stays, and will be rejected again.
            let _ = fs::remove_file(folder.join(self.name(key)));
        }
    }

    fn name(&self, key: &str) -> String {
        let text = format!("{} {key}", self.machine);
        format!("{:032x}", fingerprint(&[text.as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        assert_eq!(read(&folder, "x"), None);
        write(&folder, "x", b"payload");
        assert_eq!(read(&folder, "x").as_deref(), Some(&b"payload"[..]));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        write(&folder, "x", b"another");
        assert_eq!(read(&folder, "x").as_deref(), Some(&b"payload"[..]), "the first stays");
        let whole = fs::read(folder.join("x")).unwrap();
        for len in 0..whole.len() {
            fs::write(folder.join("x"), &whole[..len]).unwrap();
            assert_eq!(read(&folder, "x"), None);
        }
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            fs::write(folder.join("x"), damaged).unwrap();
            assert_eq!(read(&folder, "x"), None);
        }
        write(&folder, "x", b"another");
        assert_eq!(read(&folder, "x").as_deref(), Some(&b"another"[..]));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_keeps_files_is_told_from_one_that_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        check(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::write(folder.join("file"), "").unwrap();
        check(&folder.join("file")).unwrap_err();
    }

    #[test]
    fn what_is_remembered_is_of_one_machine_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let of = |machine: &str| Remembered::new(Some(dir.path()), "a", machine.to_owned());
        let (one, other) = (of("one"), of("other"));
        one.put("key", b"payload");
        assert_eq!(one.get("key").as_deref(), Some(&b"payload"[..]));
        assert_eq!(of("one").get("key").as_deref(), Some(&b"payload"[..]));
        assert_eq!((one.get("another"), other.get("key")), (None, None));
        // The naming scheme must not change, or existing caches are lost.
        assert!(dir.path().join("a").join(format!("{:032x}", fingerprint(&[b"one key"]))).exists());
        one.forget("key");
        assert_eq!(one.get("key"), None);
        let nowhere = Remembered::new(None, "a", "one".to_owned());
        nowhere.put("key", b"payload");
        nowhere.forget("key");
        assert_eq!(nowhere.get("key"), None);
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
        assert_eq!(fingerprint(&[b"ab"]), fingerprint(&[b"ab"]));
    }
}
