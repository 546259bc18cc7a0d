//! Files that `--out` names.

use std::path::Path;

use anyhow::Result;

use crate::exit::usage;

/// Refuses a file that does not end as what is written into it does.
pub fn check_ending(out: &Path, ending: &str) -> Result<()> {
    match out.extension().is_some_and(|end| end.eq_ignore_ascii_case(ending)) {
        true => Ok(()),
        false => Err(usage(format!("--out {}: give a file that ends in .{ending}", out.display()))),
    }
}

/// Refuses a file for which there is no place.
pub fn check_place(out: &Path) -> Result<()> {
    if out.is_dir() {
        return Err(usage(format!("--out {}: is a folder; give a file", out.display())));
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(usage(format!("--out {}: there is no folder {}", out.display(), folder.display())));
    }
    Ok(())
}
