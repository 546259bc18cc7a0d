//! Storing very many names in little memory.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Byte strings one after another in one buffer, with an overhead of 8 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    ends: Vec<u64>,
}

impl Names {
    pub fn push(&mut self, name: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.ends.push(self.bytes.len() as u64);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[start..self.ends[index] as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

/// Paths relative to a root; the name of each folder is stored once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    /// The folders, components separated by `/`; "" is the root itself.
    pub folders: Names,
    /// The folder of each file.
    pub folder_of: Vec<u32>,
    /// The name of each file in its folder.
    pub files: Names,
}

impl Paths {
    pub fn push(&mut self, folder: u32, name: &[u8]) {
        self.folder_of.push(folder);
        self.files.push(name);
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// The folder of file `index`.
    pub fn folder(&self, index: usize) -> &[u8] {
        self.folders.get(self.folder_of[index] as usize)
    }

    /// The path of file `index`, components separated by `/`.
    pub fn get(&self, index: usize) -> Vec<u8> {
        let (folder, name) = (self.folder(index), self.files.get(index));
        match folder {
            [] => name.to_vec(),
            _ => [folder, b"/", name].concat(),
        }
    }
}

/// A file name as bytes; `None`, on systems other than Unix, if it is not Unicode.
pub(crate) fn bytes_of(name: &OsStr) -> Option<&[u8]> {
    #[cfg(unix)]
    return Some(std::os::unix::ffi::OsStrExt::as_bytes(name));
    #[cfg(not(unix))]
    name.to_str().map(str::as_bytes)
}

/// The opposite of [`bytes_of`].
pub(crate) fn os_name(bytes: &[u8]) -> OsString {
    #[cfg(unix)]
    return std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec());
    #[cfg(not(unix))]
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// The part of a name after its last dot.
pub(crate) fn extension(name: &[u8]) -> &[u8] {
    let name = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    match name.iter().rposition(|&byte| byte == b'.') {
        Some(dot) if dot > 0 => &name[dot + 1..],
        _ => b"",
    }
}

/// Whether the extension of `path` is one of `known`, in any case.
pub(crate) fn has_extension(path: &Path, known: &[&str]) -> bool {
    path.extension().is_some_and(|end| known.iter().any(|known| end.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let mut paths = Paths::default();
        paths.folders.push(b"");
        paths.folders.push(b"a/b");
        paths.push(1, b"x.jpg");
        paths.push(0, b"");
        assert_eq!((paths.len(), paths.get(0), paths.get(1)), (2, b"a/b/x.jpg".to_vec(), vec![]));
        assert_eq!(extension(b"a.b/c.tar.GZ"), b"GZ");
        assert_eq!((extension(b"a.b/c"), extension(b".jpg")), (&b""[..], &b""[..]));
    }
}
