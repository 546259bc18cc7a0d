//! Finds the checkpoint that a path refers to.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use simclr_data::not_a_file;
use simclr_train::run_folder::RunFolder;

use super::table;
use crate::{ExchangeError, Result};

const INDEX: &str = ".index";
/// The file in a folder of checkpoints that names the newest one.
const NEWEST: &str = "checkpoint";
/// The checkpoint within a SavedModel.
const SAVED_MODEL: &str = "variables/variables.index";

/// The index of the checkpoint that `path` refers to: the index itself, its name without `.index`, another file of the
/// checkpoint, or a folder with one. `None` if it is none of these.
///
/// # Errors
/// A folder of several checkpoints that does not name the newest, or of none.
pub(in crate::import) fn index_of(path: &Path) -> Result<Option<PathBuf>> {
    if path.is_dir() {
        return in_folder(path).map(Some);
    }
    if ends_as_table(path) {
        return Ok(Some(path.to_owned()));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let whole = name.strip_suffix(".meta").or_else(|| name.rsplit_once(".data-").map(|(whole, _)| whole));
    let index = whole.map_or_else(|| with_index(path), |whole| with_index(&path.with_file_name(whole)));
    Ok(index.is_file().then_some(index))
}

fn ends_as_table(path: &Path) -> bool {
    if not_a_file(path).is_some() {
        return false;
    }
    let mut end = Vec::new();
    fs::File::open(path)
        .and_then(|mut file| {
            file.seek(SeekFrom::End(-(size_of::<u64>() as i64)))?;
            file.read_to_end(&mut end)
        })
        .is_ok_and(|_| table::ends_as_table(&end))
}

fn with_index(checkpoint: &Path) -> PathBuf {
    let mut index = checkpoint.as_os_str().to_owned();
    index.push(INDEX);
    index.into()
}

fn in_folder(folder: &Path) -> Result<PathBuf> {
    let saved_model = folder.join(SAVED_MODEL);
    if saved_model.is_file() {
        return Ok(saved_model);
    }
    if let Some(newest) = newest(folder).filter(|index| index.is_file()) {
        return Ok(newest);
    }
    let io = |source| ExchangeError::Io { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.to_string_lossy().ends_with(INDEX) && ends_as_table(&path) {
            found.push(path);
        }
    }
    found.sort();
    let problem = match &found[..] {
        [one] => return Ok(one.clone()),
        [] if RunFolder::exists(folder) => "this is a run of simclr, which can be used as it is".to_owned(),
        [] => "the folder holds no checkpoint of TensorFlow (model.ckpt-N.index, or variables/); give a file of weights".to_owned(),
        [first, .., last] => format!(
            "the folder holds {} checkpoints, from {} to {}: give one of them",
            found.len(),
            first.display(),
            last.display()
        ),
    };
    Err(ExchangeError::weights(folder, problem))
}

/// The checkpoint named by the file `checkpoint`, whose first line is `model_checkpoint_path: "NAME"`.
fn newest(folder: &Path) -> Option<PathBuf> {
    let mut text = String::new();
    fs::File::open(folder.join(NEWEST)).ok()?.take(1 << 16).read_to_string(&mut text).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("model_checkpoint_path:"))?;
    // Absolute paths are those of the machine that wrote it.
    let name = Path::new(name.trim().trim_matches('"')).file_name()?;
    Some(with_index(&folder.join(name)))
}
