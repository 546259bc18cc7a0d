//! Files that `--out` names, and folders that results go to.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use simclr_data::Source;
use simclr_eval::protocols::Placed;
use simclr_train::file_system::{AtomicFile, Disk};
use simclr_train::run_folder::RunFolder;

use crate::exit::usage;

/// Refuses a file that does not end as what is written into it does.
pub fn check_ending(out: &Path, ending: &str) -> Result<()> {
    match out.extension().is_some_and(|end| end.eq_ignore_ascii_case(ending)) {
        true => Ok(()),
        false => Err(usage(format!("--out {}: give a file that ends in .{ending}", out.display()))),
    }
}

/// Refuses a folder that takes no file, before hours go into what is to be written there. It need not be there yet.
pub fn check_folder(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    match AtomicFile::create(&Disk, &there.join("new")) {
        Ok(_) => Ok(()),
        Err(error) => Err(usage(format!("cannot write into the folder {}: {error}", folder.display()))),
    }
}

/// Refuses a file for which there is no place.
pub fn check_place(out: &Path) -> Result<()> {
    if out.is_dir() {
        return Err(usage(format!("--out {}: is a folder; give a file", out.display())));
    }
    // What is written takes its place.
    if out.exists() && !out.is_file() {
        return Err(usage(format!("--out {}: is no regular file; give another name", out.display())));
    }
    if RunFolder::keeps(out) {
        let out = out.display();
        return Err(usage(format!("--out {out}: lies among the checkpoints of a run; give another file")));
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(usage(format!("--out {}: there is no folder {}", out.display(), folder.display())));
    }
    Ok(())
}

/// Refuses to replace a file that is one of the images, or lies among them.
pub fn check_apart(out: &Path, data: &[PathBuf]) -> Result<()> {
    if out.exists() && is_among(out, data) { Err(among(out)) } else { Ok(()) }
}

/// Refuses to replace an image of what was opened at `data`, which a list may name wherever it lies.
pub fn check_no_image(out: &Path, source: &Source, data: &[PathBuf]) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    // Images of several data sets are called by their whole paths.
    let (images, test) = Placed::all(source.clone(), data.first().map_or(Path::new(""), PathBuf::as_path));
    match images.has(out) || test.is_some_and(|test| test.has(out)) {
        true => Err(among(out)),
        false => Ok(()),
    }
}

fn among(out: &Path) -> Error {
    let out = out.display();
    usage(format!("--out {out}: is there already, among the images, and is not replaced; give another file"))
}

/// Refuses a picture that would be one of the images from then on, and a run on them another.
pub fn check_new_image(out: &Path, data: &[PathBuf]) -> Result<()> {
    check_apart(out, data)?;
    check_elsewhere(out, data, "the picture would be one of the images")
}

/// Refuses a table among archives, which would be read in their place from then on; beside images it is left alone.
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

/// Whether a path is, or would be once it is made, one of `data` or in one.
pub fn is_among(out: &Path, data: &[PathBuf]) -> bool {
    let Ok(whole) = std::path::absolute(out) else { return false };
    let there = whole.ancestors().find_map(|path| path.canonicalize().ok());
    let Some(there) = there else { return false };
    data.iter().filter_map(|path| path.canonicalize().ok()).any(|path| there.starts_with(path))
}
