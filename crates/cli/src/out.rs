//! Checks of the files that `--out` names, and of folders for results.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use simclr_data::Source;
use simclr_eval::protocols::LocatedImages;
use simclr_train::file_system::{AtomicFile, Disk};
use simclr_train::run_folder::RunFolder;

use crate::exit::usage;

/// Rejects a file name without the ending of the format that is written.
pub fn check_ending(out: &Path, ending: &str) -> Result<()> {
    match out.extension().is_some_and(|end| end.eq_ignore_ascii_case(ending)) {
        true => Ok(()),
        false => Err(usage(format!("--out {}: give a file that ends in .{ending}", out.display()))),
    }
}

/// Rejects a folder that cannot be written to, before hours of work go into what belongs there; `instead` says what to
/// do. It need not exist yet.
pub fn check_folder(folder: &Path, instead: &str) -> Result<()> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    match AtomicFile::create(&Disk, &there.join("new")) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(usage(format!("cannot write into the folder {}: {error}; {instead}", folder.display())))
        }
    }
}

/// Rejects an output path that cannot be written: it must be a new or a regular file in an existing folder.
pub fn check_place(out: &Path) -> Result<()> {
    if out.is_dir() {
        return Err(usage(format!("--out {}: is a folder; give a file", out.display())));
    }
    // The new file would replace it.
    if out.exists() && !out.is_file() {
        return Err(usage(format!("--out {}: is not a regular file; give another name", out.display())));
    }
    if RunFolder::keeps(out) {
        let out = out.display();
        return Err(usage(format!("--out {out}: lies among the checkpoints of a run; give another file")));
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(usage(format!("--out {}: there is no folder {}", out.display(), folder.display())));
    }
    check_folder(folder, "give another")
}

/// Refuses to replace a file that is one of the images or lies among them.
pub fn check_apart(out: &Path, data: &[PathBuf]) -> Result<()> {
    if out.exists() && is_among(out, data) { Err(among(out)) } else { Ok(()) }
}

/// Refuses to replace an image of `source`, opened at `data`. A list may name images that lie anywhere.
pub fn check_no_image(out: &Path, source: &Source, data: &[PathBuf]) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    // With several data sets, images are named by their whole paths.
    let (images, test) =
        LocatedImages::all(source.clone(), data.first().map_or(Path::new(""), PathBuf::as_path));
    match images.has(out) || test.is_some_and(|test| test.has(out)) {
        true => Err(among(out)),
        false => Ok(()),
    }
}

fn among(out: &Path) -> Error {
    let out = out.display();
    usage(format!("--out {out}: is there already, among the images, and is not replaced; give another file"))
}

/// Rejects a picture among the images: later runs would read it as one of them, and so differ.
pub fn check_new_image(out: &Path, data: &[PathBuf]) -> Result<()> {
    check_apart(out, data)?;
    check_elsewhere(out, data, "the picture would be one of the images")
}

/// Rejects a Parquet table among archives, as later runs would read it instead of them. Beside images it is not read.
pub fn check_new_archive(out: &Path, source: &Source, data: &[PathBuf]) -> Result<()> {
    let is_table = out.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet"));
    match is_table && source.kind.is_of_archives() {
        true => check_elsewhere(out, data, "the table would be read for the images"),
        false => Ok(()),
    }
}

fn check_elsewhere(out: &Path, data: &[PathBuf], why: &str) -> Result<()> {
    match is_among(out, data) {
        true => Err(usage(format!("--out {}: {why}; give a file elsewhere", out.display()))),
        false => Ok(()),
    }
}

/// Whether a path is one of `data` or lies in one, or would once it exists.
pub fn is_among(out: &Path, data: &[PathBuf]) -> bool {
    let Ok(whole) = std::path::absolute(out) else { return false };
    let there = whole.ancestors().find_map(|path| path.canonicalize().ok());
    let Some(there) = there else { return false };
    data.iter().filter_map(|path| path.canonicalize().ok()).any(|path| there.starts_with(path))
}
