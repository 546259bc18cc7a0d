//! The folder of a study: the runs of its variants, the report, and whose they are (`study.json`).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use simclr_eval::study::{Study, Variant};
use simclr_train::Config;
use simclr_train::config::Difference;
use simclr_train::file_system::{Disk, write_atomically};
use simclr_train::pretrain::{self, Identity};
use simclr_train::run_folder::RunFolder;

use crate::exit::usage;
use crate::out;

/// The name of the file that says which study a folder holds.
const MARKER: &str = "study.json";

/// What it says.
#[derive(Serialize, Deserialize)]
struct Marker {
    /// The title of the study.
    title: String,
    /// The folders of its variants, without seeds.
    variants: Vec<String>,
}

impl Marker {
    fn of(study: &Study) -> Marker {
        let variants = study.variants.iter().map(Variant::folder).collect();
        Marker { title: study.title.clone(), variants }
    }

    /// Whether `study` is this one, perhaps changed since: it has all variants, or the title and some of them.
    fn is_of(&self, study: &Study) -> bool {
        let has = |folder: &String| study.variants.iter().any(|variant| variant.folder() == *folder);
        let kept = self.variants.iter().filter(|folder| has(folder)).count();
        kept == self.variants.len() || (kept > 0 && self.title == study.title)
    }
}

/// Whether a folder is that of a study.
pub fn is_study(folder: &Path) -> bool {
    folder.join(MARKER).is_file()
}

/// Rejects a folder that is not this study's, new or empty, before anything is written into it. `data` are the images.
pub fn check(out: &Path, study: &Study, data: &[PathBuf]) -> Result<()> {
    let refuse = |what: &str| Err(usage(format!("--out {}: {what}", out.display())));
    if RunFolder::exists(out) {
        return refuse("it is a run; give a folder for the study's runs");
    }
    if out::is_among(out, data) {
        return refuse("it is among the images; give a folder elsewhere for the study's runs");
    }
    let found: Vec<PathBuf> = match fs::read_dir(out) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return refuse(&format!("{error}; give a folder")),
    };
    let marker = out.join(MARKER);
    if found.contains(&marker) {
        let text = fs::read(&marker).unwrap_or_default();
        return match serde_json::from_slice::<Marker>(&text) {
            Ok(other) if other.is_of(study) => Ok(()),
            Ok(Marker { title, .. }) => {
                refuse(&format!("it holds another study, {title:?}; give a folder of its own"))
            }
            Err(_) => {
                refuse(&format!("{MARKER} in it does not say which study it holds; give another folder"))
            }
        };
    }
    // A study's folder may hold the file that describes it, even before the first run.
    let describes = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
    match found.iter().any(|path| RunFolder::exists(path)) || found.iter().all(describes) {
        true => Ok(()),
        false => refuse("is not empty and holds no study; give a new or an empty folder"),
    }
}

/// Rejects a folder with a run (`runs`: folder and configuration) that was begun with other settings or other images.
/// Whatever else is wrong with a run is told when its turn comes.
pub fn check_runs<'r>(
    out: &Path,
    runs: impl Iterator<Item = (&'r Path, &'r Config)>,
    images: Identity,
) -> Result<()> {
    for (folder, config) in runs.filter(|(folder, _)| RunFolder::exists(folder)) {
        let Ok(run) = pretrain::inspect(folder) else { continue };
        // Without a checkpoint it begins anew.
        let Some(checkpoint) = run.checkpoint() else { continue };
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let refuse = |what: String| Err(usage(format!("--out {}: {name} in it {what}", out.display())));
        let differences = run.config.differences(config).into_iter();
        let mut differences = differences.filter(|found| !found.changes_nothing);
        if let Some(Difference { key, ours, theirs, .. }) = differences.next() {
            return refuse(format!(
                "was begun with {key}={ours}, not {theirs}; give another --out, or the original settings"
            ));
        }
        if let Some(problem) = images.problem(&checkpoint.meta) {
            return refuse(format!(
                "is of other images: {problem}; for a study of these, give another --out"
            ));
        }
    }
    Ok(())
}

/// Records in the folder that it is this study's.
pub fn mark(out: &Path, study: &Study) -> Result<()> {
    let text = serde_json::to_vec(&Marker::of(study))?;
    Ok(write_atomically(&Disk, &out.join(MARKER), |file| file.write_all(&text))?)
}
