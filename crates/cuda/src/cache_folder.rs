//! Where this program keeps what it can find out again.

use std::ffi::OsString;
use std::path::PathBuf;

/// This program's folder among the user's caches, if the environment says where these are. It need not exist.
pub fn cache_folder() -> Option<PathBuf> {
    folder_from(|name| std::env::var_os(name))
}

fn folder_from(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("simclr"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_folder_follows_the_environment() {
        let of = |xdg: Option<&str>, home: Option<&str>| {
            folder_from(|name| if name == "HOME" { home } else { xdg }.map(OsString::from))
        };
        assert_eq!(of(Some("/c"), Some("/h")).unwrap(), Path::new("/c/simclr"));
        assert_eq!(of(Some("relative"), Some("/h")).unwrap(), Path::new("/h/.cache/simclr"));
        assert_eq!(of(None, None), None);
    }
}
